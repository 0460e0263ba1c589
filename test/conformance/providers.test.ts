/** What every provider keeps to, whatever its kind. A new kind: a rig here. */
import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { createProviders, type Provider, type ProviderDeps } from '../../src/broker/provider.ts';
import { readBoundToken } from '../../src/core/bound-token.ts';
import { type FaultCode, Fault } from '../../src/core/fault.ts';
import { type CredentialForm, type ProviderKind, providerForms, providerKinds } from '../../src/core/grant.ts';
import { limits } from '../../src/core/limits.ts';
import { Secret } from '../../src/core/secret.ts';
import { createLog } from '../../src/ops/log.ts';
import type { ProviderSettings } from '../../src/settings/broker.ts';
import { createFakeClock, type FakeClock } from '../fakes/clock.ts';
import { createSpiffeAuthority } from '../support/certificates.ts';
import { badBundles, certificateText, keyText, lateBundles, soundBundle } from '../support/client-certificates.ts';

t.setTimeout(120_000);

const use = { workload: 'spiffe://outrider.test/ns/demo/sa/demo-app', target: 'payments' };
const forText = { ...use, form: 'text' } as const;

/** Where a kind's values come from, so that the suite can put any value there (unless the kind makes its own), or take the source away. */
interface Source {
  readonly settings: ProviderSettings;
  readonly deps?: Partial<ProviderDeps>;
  /** Every character is a byte. Undefined for a kind that makes what it gives. */
  readonly give: ((value: string) => void) | undefined;
  readonly takeAway: () => void;
  /** What becomes of a value before it is judged. */
  readonly read?: (value: string) => string;
}

const sources: Readonly<Record<ProviderKind, (t: Test, clock: FakeClock) => Promise<Source>>> = {
  jwt: async (_, clock) => {
    let value: string | undefined = '';
    const mint = async ({ lifetimeMs }: { lifetimeMs: number }) => {
      if (value === undefined) throw new Error('no signing key');
      return { token: new Secret(value), expiresAtMs: clock.now() + lifetimeMs };
    };
    return {
      settings: { kind: 'jwt', name: 'it', audience: 'https://payments.outrider.test', lifetimeMs: 600_000 },
      deps: { issuer: { mint } },
      give: (next) => {
        value = next;
      },
      takeAway: () => {
        value = undefined;
      },
    };
  },
  oauth2_client_credentials: async (t) => {
    let value = '';
    const server = createServer(({ headers }, response) => {
      response.setHeader('content-type', 'application/json');
      const tokenType = headers['dpop'] === undefined ? 'Bearer' : 'DPoP';
      response.end(JSON.stringify({ access_token: value, token_type: tokenType, expires_in: 600 }));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const close = (): void => {
      server.closeAllConnections();
      server.close();
    };
    t.teardown(close);
    return {
      settings: {
        kind: 'oauth2_client_credentials',
        name: 'it',
        tokenUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}/token`,
        clientId: 'outrider',
        clientAuthentication: { method: 'client_secret_basic', secret: { env: 'SECRET' } },
        scopes: [],
        parameters: {},
        caFile: undefined,
      },
      give: (next) => {
        value = next;
      },
      takeAway: close,
    };
  },
  static_file: async (t) => {
    const file = join(t.testdir({ value: '' }), 'value');
    return {
      settings: { kind: 'static_file', name: 'it', file, recheckMs: 60_000 },
      give: (next) => writeFileSync(file, next, 'latin1'),
      takeAway: () => rmSync(file),
      read: (value) => value.replace(/\r?\n$/, ''),
    };
  },
  x509: async (_, clock) => ({
    settings: { kind: 'x509', name: 'it', lifetimeMs: 3_600_000 },
    // The authority's end is the end of the source.
    deps: { authority: keep(createSpiffeAuthority(clock.now(), 60_000)) },
    give: undefined,
    takeAway: () => clock.advance(120_000),
  }),
};

/** Always the same, as long as it is asked. */
function keep<T>(value: T): () => T {
  return () => value;
}

const rig = async (t: Test, kind: ProviderKind) => {
  const clock = createFakeClock();
  const source = await sources[kind](t, clock);
  const results: ('ok' | FaultCode)[] = [];
  const lines: string[] = [];
  const log = createLog({ role: 'broker', level: 'debug', write: (line) => void lines.push(line) });
  const noIssuer = { mint: () => Promise.reject(new Error('not for this kind')) };
  const make = (kept?: ReadonlyMap<string, Provider>): ReadonlyMap<string, Provider> =>
    createProviders(
      [source.settings],
      {
        issuer: noIssuer,
        authority: () => createSpiffeAuthority(),
        clock,
        log,
        env: { SECRET: 'canary-client' },
        onRequest: (_, result) => void results.push(result),
        ...source.deps,
      },
      kept,
    );
  /** By a provider of its own, so that no value is held from before. */
  const obtain = (form: CredentialForm = 'text') => (make().get('it') as Provider).obtain({ ...use, form });
  const give = (value: string): void => {
    assert(source.give, 'this kind takes its values from somewhere');
    source.give(value);
  };
  return { ...source, give, clock, results, lines, log, make, obtain };
};

const gives = (form: CredentialForm): readonly ProviderKind[] => providerKinds.filter((kind) => providerForms[kind].includes(form));

/** The characters a value may have at its ends, and inside: written out here, not taken from the code under test. */
const visible = Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i)).join('');
const isWritable = (value: string): boolean =>
  value !== '' && Array.from(value).every((char, i) => visible.includes(char) || (char === ' ' && i > 0 && i < value.length - 1));

for (const kind of gives('text')) {
  await t.test(`${kind}: gives the value as it is, alive and for a bounded time`, async (t) => {
    const { give, obtain, clock, results } = await rig(t, kind);
    give('canary-1 with inner space');
    const { value, expiresAtMs } = await obtain();
    t.equal(value.reveal(), 'canary-1 with inner space');
    t.ok(expiresAtMs > clock.now() && expiresAtMs <= clock.now() + limits.tokenLifetimeMaxMs);
    t.strictSame(results, ['ok']);
  });

  await t.test(`${kind}: every byte at every place is refused unless it is visible ASCII, or a space inside`, async (t) => {
    const { give, obtain, read = (value) => value } = await rig(t, kind);
    let refused = 0;
    const wrong: string[] = [];
    for (let byte = 0; byte < 256; byte += 1) {
      const char = String.fromCharCode(byte);
      for (const value of [char, `${char}bc`, `a${char}c`, `ab${char}`]) {
        give(value);
        const outcome = await obtain().then(
          ({ value: got }) => got.reveal(),
          (fault: Fault) => fault.code,
        );
        const expected = read(value);
        // An empty access_token is no token at all.
        const allowed = isWritable(expected)
          ? [expected]
          : expected === ''
            ? ['credential_invalid', 'credential_unavailable']
            : ['credential_invalid'];
        if (!allowed.includes(outcome)) wrong.push(`${JSON.stringify(value)} gave ${JSON.stringify(outcome)}`);
        if (outcome === 'credential_invalid') refused += 1;
      }
    }
    t.strictSame(wrong, []);
    t.ok(refused > 4 * 155, `${refused} refused`);
  });

  await t.test(`${kind}: an empty value and one byte too many are refused, the largest is not`, async (t) => {
    const { give, obtain } = await rig(t, kind);
    give('');
    await t.rejects(obtain(), { code: /^credential_(invalid|unavailable)$/ });
    give('a'.repeat(limits.credentialBytesMax + 1));
    await t.rejects(obtain(), { code: 'credential_invalid' });
    give('a'.repeat(limits.credentialBytesMax));
    t.equal((await obtain()).value.reveal().length, limits.credentialBytesMax);
  });

  await t.test(`${kind}: a refused value is in no error and no log line`, async (t) => {
    const { give, obtain, lines, log } = await rig(t, kind);
    for (const value of ['canary-\u0000', 'canary-\n\n', `canary-${'x'.repeat(limits.credentialBytesMax)}`]) {
      give(value);
      await obtain().then(
        () => t.fail('was given'),
        (error: unknown) => log.error({ error }, 'refused'),
      );
    }
    t.equal(lines.length, 3);
    t.notMatch(lines.join(''), /canary/);
  });

  await t.test(`${kind}: what is asked for a handshake and is no certificate is refused`, async (t) => {
    const { give, obtain, results } = await rig(t, kind);
    give('canary-1');
    await t.rejects(obtain('certificate'), { code: 'credential_invalid' });
    t.strictSame(results, ['credential_invalid']);
  });
}

for (const kind of gives('certificate')) {
  await t.test(
    `${kind}: gives a chain and its key as they are, alive and for a bounded time, and no longer than the leaf lives`,
    async (t) => {
      const { give, obtain, clock, results, settings } = await rig(t, kind);
      if (settings.kind !== 'x509') give(soundBundle(clock.now(), 30_000));
      const { value, expiresAtMs } = await obtain('certificate');
      const leaf = new X509Certificate(value.reveal());
      t.ok(leaf.checkPrivateKey(createPrivateKey(keyText(value.reveal()))), 'leaf first, with its key');
      t.ok(expiresAtMs > clock.now() && expiresAtMs <= leaf.validToDate.getTime());
      t.strictSame(results, ['ok']);
    },
  );

  await t.test(`${kind}: a certificate is never given where text is asked for`, async (t) => {
    const { give, obtain, clock, results, settings } = await rig(t, kind);
    if (settings.kind !== 'x509') give(soundBundle(clock.now()));
    await t.rejects(obtain('text'), { code: 'credential_invalid' });
    t.strictSame(results, ['credential_invalid']);
  });
}

await t.test(
  'static_file: what is not a chain and its key, and nothing else, is refused with what is wrong and never with what it is',
  async (t) => {
    const { give, obtain, clock, log, lines } = await rig(t, 'static_file');
    for (const [what, { bundle, detail }] of Object.entries(badBundles(clock.now()))) {
      give(bundle);
      const fault = await obtain('certificate').then(
        () => undefined,
        (thrown: Fault) => thrown,
      );
      t.match(fault, { code: 'credential_invalid', detail }, what);
      log.error({ error: fault }, 'refused');
      for (const line of bundle.split('\n').filter((one) => one.length > 40))
        t.notOk(lines.join('').includes(line), `${what} is not shown`);
    }
    for (const [what, bundle] of Object.entries(lateBundles(clock.now()))) {
      give(bundle);
      await t.rejects(obtain('certificate'), { code: 'credential_unavailable' }, what);
    }
  },
);

await t.test('static_file: of a certificate file only the chain and the key are granted, in one spelling', async (t) => {
  const { give, obtain, clock } = await rig(t, 'static_file');
  const sound = soundBundle(clock.now());
  give(`Bag Attributes\n  friendlyName: canary-name\n${keyText(sound)}subject=CN\n${certificateText(sound)}`.replaceAll('\n', '\r\n'));
  t.equal((await obtain('certificate')).value.reveal(), sound);
});

for (const kind of gives('bound_token')) {
  await t.test(`${kind}: gives a token with the key that it is bound to, another key for another token`, async (t) => {
    const { give, obtain, clock, results } = await rig(t, kind);
    give('canary-1');
    const read = async () => {
      const { value, expiresAtMs } = await obtain('bound_token');
      t.ok(expiresAtMs > clock.now() && expiresAtMs <= clock.now() + limits.tokenLifetimeMaxMs);
      return readBoundToken(value.reveal());
    };
    const [one, other] = [await read(), await read()];
    t.equal(one?.accessToken, 'canary-1');
    t.equal(createPrivateKey(one?.privateKeyPem as string).asymmetricKeyDetails?.namedCurve, 'prime256v1');
    t.not(one?.privateKeyPem, other?.privateKeyPem);
    t.strictSame(results, ['ok', 'ok']);
  });

  await t.test(`${kind}: a token that no field can hold is refused with its key`, async (t) => {
    const { give, obtain, log, lines } = await rig(t, kind);
    for (const value of ['canary 1', 'canary"', 'canary\n', 'canary\u00e4', '=canary']) {
      give(value);
      await obtain('bound_token').then(
        () => t.fail('was given'),
        (error: Fault) => {
          t.equal(error.code, 'credential_invalid', JSON.stringify(value));
          log.error({ error }, 'refused');
        },
      );
    }
    t.notMatch(lines.join(''), /canary/);
  });
}

const awsKeys = (rest: object = {}): string =>
  JSON.stringify({ Version: 1, AccessKeyId: 'EXAMPLE_ACCESS_KEY_1', SecretAccessKey: 'canary/secret+key', ...rest });

for (const kind of gives('aws_keys')) {
  await t.test(`${kind}: gives AWS keys and nothing that stands beside them, and no longer than they live`, async (t) => {
    const { give, obtain, clock } = await rig(t, kind);
    give(`${awsKeys({ SessionToken: 'canary-session', Profile: 'not for anybody' })}\n`);
    const { value, expiresAtMs } = await obtain('aws_keys');
    t.strictSame(JSON.parse(value.reveal()), {
      Version: 1,
      AccessKeyId: 'EXAMPLE_ACCESS_KEY_1',
      SecretAccessKey: 'canary/secret+key',
      SessionToken: 'canary-session',
    });
    t.equal(expiresAtMs, clock.now() + 60_000, 'as long as the file is trusted without reading it again');
    give(awsKeys({ Expiration: new Date(clock.now() + 30_000).toISOString() }));
    t.equal((await obtain('aws_keys')).expiresAtMs, clock.now() + 30_000);
    give(awsKeys({ Expiration: new Date(clock.now()).toISOString() }));
    await t.rejects(obtain('aws_keys'), { code: 'credential_unavailable', detail: 'Provider it gave a credential that has expired.' });
  });

  await t.test(`${kind}: what is no pair of AWS keys is refused, and is in no error`, async (t) => {
    const { give, obtain, log, lines } = await rig(t, kind);
    const values = [
      'canary',
      '{}',
      '["canary"]',
      awsKeys({ AccessKeyId: 'canary' }),
      awsKeys({ AccessKeyId: undefined }),
      awsKeys({ SecretAccessKey: '' }),
      awsKeys({ SecretAccessKey: 'canary key' }),
      awsKeys({ SessionToken: 'canary\n' }),
      awsKeys({ Expiration: 'soon, canary' }),
      awsKeys().slice(0, -1),
    ];
    for (const value of values) {
      give(value);
      await obtain('aws_keys').then(
        () => t.fail('was given'),
        (error: Fault) => {
          t.equal(error.code, 'credential_invalid', value);
          log.error({ error }, 'refused');
        },
      );
    }
    t.equal(lines.length, values.length);
    t.notMatch(lines.join(''), /canary/);
  });
}

for (const kind of providerKinds) {
  const form = providerForms[kind][0] as CredentialForm;

  await t.test(`${kind}: without its source it says credential_unavailable, counted, with a cause for the log`, async (t) => {
    const { takeAway, obtain, results } = await rig(t, kind);
    takeAway();
    const fault = await obtain(form).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    t.type(fault, Fault);
    t.match(fault, { code: 'credential_unavailable', cause: Error });
    t.strictSame(results, ['credential_unavailable']);
  });

  await t.test(`${kind}: a reload with the same settings keeps the provider and what it holds`, async (t) => {
    const { make, settings } = await rig(t, kind);
    const before = make();
    t.equal(make(before).get('it'), before.get('it'));
    t.not(createProviders([{ ...settings, name: 'other' }], {} as ProviderDeps, before).get('other'), before.get('it'));
  });
}

await t.test('jwt: the audience is the settings, the subject the workload, the life at most ten minutes', async (t) => {
  const asked: object[] = [];
  const mint = async (options: object) => {
    asked.push(options);
    return { token: new Secret('a.b.c'), expiresAtMs: Date.now() + 1000 };
  };
  const deps = {
    issuer: { mint },
    authority: () => createSpiffeAuthority(),
    clock: createFakeClock(),
    log: createLog({ role: 'broker', level: 'silent' }),
    env: {},
  };
  const settings = { kind: 'jwt', name: 'it', audience: 'https://payments.outrider.test', lifetimeMs: 3_600_000 } as const;
  await (createProviders([settings], deps).get('it') as Provider).obtain(forText);
  t.strictSame(asked, [{ audience: 'https://payments.outrider.test', subject: use.workload, lifetimeMs: 600_000 }]);
});

await t.test('static_file: read for every grant, one trailing newline dropped, a directory or FIFO refused', async (t) => {
  const { give, make, clock, settings, obtain } = await rig(t, 'static_file');
  const provider = make().get('it') as Provider;
  give('first\n');
  t.strictSame(
    [(await provider.obtain(forText)).value.reveal(), (await provider.obtain(forText)).expiresAtMs],
    ['first', clock.now() + 60_000],
  );
  give('second\r\n');
  t.equal((await provider.obtain(forText)).value.reveal(), 'second');
  give('third\n\n');
  await t.rejects(obtain(), { code: 'credential_invalid' });
  const fifo = join(t.testdirName, 'fifo');
  execFileSync('mkfifo', [fifo]);
  const deps = {
    issuer: { mint: () => Promise.reject(new Error('no')) },
    authority: () => createSpiffeAuthority(),
    clock,
    log: createLog({ role: 'broker', level: 'silent' }),
    env: {},
  };
  for (const file of [t.testdirName, fifo]) {
    const [odd] = createProviders([{ ...settings, file } as ProviderSettings], deps).values();
    await t.rejects((odd as Provider).obtain(forText), { code: 'credential_unavailable' }, 'at once, without waiting for a writer');
  }
});

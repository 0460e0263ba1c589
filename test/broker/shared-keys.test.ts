/** What is particular to keys in a Secret: conflicts, what is not ours in it, damage, an API server that is away; and the bundle beside it. */
import { inspect } from 'node:util';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { openTrustDomain } from '../../src/broker/authority.ts';
import { createIssuer } from '../../src/broker/issuer.ts';
import { pemOfKey } from '../../src/broker/authority/serving.ts';
import { createPublication } from '../../src/broker/run/publication.ts';
import { openState } from '../../src/broker/run/state.ts';
import { createSharedKeys, type StoredKey } from '../../src/broker/store.ts';
import { limits } from '../../src/core/limits.ts';
import { Secret } from '../../src/core/secret.ts';
import { ApiError, createApiServer } from '../../src/net/api-server.ts';
import type { Closer } from '../../src/ops/drain.ts';
import { createAuthority } from '../../src/pki/authority.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import type { BrokerSettings } from '../../src/settings/broker.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { configMapPath, secretPath, startObjectServer, type StoredObject } from '../fakes/object-server.ts';
import { createLogLines } from '../support/broker.ts';

const place = { namespace: 'outrider', secret: 'outrider-keys', configMap: 'outrider-trust' };

const key = (kid: string): StoredKey => ({
  kid,
  algorithm: 'ES256',
  privateKeyPem: new Secret('canary'),
  publishedFromMs: 1,
  signsFromMs: 2,
});

const rig = async (t: Test) => {
  const server = await startObjectServer(t);
  const directory = t.testdir({ 'ca.pem': server.caPem, token: server.bearer });
  const api = createApiServer({ url: server.url, caFile: join(directory, 'ca.pem'), tokenFile: join(directory, 'token') });
  const data = (path: string) => (server.objects.get(path)?.['data'] ?? {}) as Record<string, string>;
  const put = (path: string, entries: Record<string, string>): void => {
    server.objects.set(path, { ...(server.objects.get(path) as StoredObject), data: entries });
  };
  return { server, api, data, put, keys: () => createSharedKeys(api, place) };
};

/** What brokers that share a Secret have of it, by one clock and in one log. */
const brokersOn = (keys: Awaited<ReturnType<typeof rig>>['keys']) => {
  const clock = createFakeClock();
  const { log, lines } = createLogLines();
  const settings = { url: 'https://broker.outrider.test', algorithm: 'ES256', keyLifetimeMs: 86_400_000, keyOverlapMs: 3_600_000 } as const;
  const start = async () => {
    const store = keys();
    const trustDomain = await openTrustDomain({ name: 'outrider.test', store, clock, log });
    return { trustDomain, issuer: await createIssuer({ settings, store, clock }) };
  };
  return { start, clock, lines };
};

const base64 = (text: string): string => Buffer.from(text).toString('base64');

t.test('nothing but get and update by name is asked for, and what others keep in the objects stays', async (t) => {
  const { server, put, data, keys } = await rig(t);
  put(secretPath, { other: base64('kept') });
  await keys().changeSigningKeys(async () => [key('a')]);
  t.equal(data(secretPath)['other'], base64('kept'));
  t.match(server.objects.get(secretPath), { type: 'Opaque', metadata: { name: 'outrider-keys', labels: { app: 'x' } } });
  t.match(JSON.parse(Buffer.from(data(secretPath)['keys.json'] ?? '', 'base64').toString()), {
    version: 1,
    authorities: [],
    signingKeys: [{ kid: 'a', algorithm: 'ES256', publishedFromMs: 1, signsFromMs: 2 }],
  });
  t.strictSame(server.answered, [`GET ${secretPath} 200`, `PUT ${secretPath} 200`]);
});

t.test('who was not first reads again and decides again; what it had decided is nowhere', async (t) => {
  const { server, keys } = await rig(t);
  const [one, other] = [keys(), keys()];
  server.beforePut = async () => {
    server.beforePut = undefined;
    await other.changeSigningKeys(async () => [key('first')]);
  };
  const seen: number[] = [];
  const there = await one.changeSigningKeys(async (stored) => {
    seen.push(stored.length);
    return stored.length === 0 ? [key('second')] : undefined;
  });
  t.strictSame(seen, [0, 1]);
  t.strictSame(
    there.map(({ kid }) => kid),
    ['first'],
  );
});

t.test('who is never first gives up, and says what may be wrong', async (t) => {
  const { server, put, keys } = await rig(t);
  let writes = 0;
  server.beforePut = () => {
    const object = server.objects.get(secretPath) as StoredObject;
    server.objects.set(secretPath, { ...object, metadata: { ...object.metadata, resourceVersion: `elsewhere ${(writes += 1)}` } });
  };
  put(secretPath, {});
  await t.rejects(
    keys().changeSigningKeys(async () => [key('a')]),
    { name: 'StoreError', message: /was changed by others 10 times in a row/ },
  );
  t.equal(writes, limits.sharedKeysAttemptsMax);
});

t.test('two brokers that start at the same time on an empty Secret have one authority and one signing key', async (t) => {
  const { keys, server } = await rig(t);
  const { start, clock } = brokersOn(keys);
  const [one, other, third] = await Promise.all([start(), start(), start()]);
  t.ok(server.answered.includes(`PUT ${secretPath} 409`), 'they did meet');
  t.equal((await keys().authorities()).length, 1);
  t.equal((await keys().signingKeys()).length, 1);
  for (const { trustDomain, issuer } of [other, third]) {
    t.equal(trustDomain.bundlePem(), one.trustDomain.bundlePem());
    t.strictSame(issuer.jwks(), one.issuer.jwks());
  }
  clock.advance(23 * 3_600_000);
  await Promise.all([one, other, third].map(({ issuer }) => issuer.rotate()));
  t.equal((await keys().signingKeys()).length, 2, 'one successor');
  t.strictSame(other.issuer.jwks(), one.issuer.jwks());
});

t.test('a Secret that is emptied under running brokers gets back what they have, and from one of them alone', async (t) => {
  const { keys, put, server } = await rig(t);
  const { start, lines } = brokersOn(keys);
  const [one, other] = [await start(), await start()];
  const [bundle, jwks] = [one.trustDomain.bundlePem(), one.issuer.jwks()];
  put(secretPath, {});
  for (const { trustDomain, issuer } of [one, other]) {
    await trustDomain.rotate();
    await issuer.rotate();
    t.equal(trustDomain.bundlePem(), bundle);
    t.strictSame(issuer.jwks(), jwks);
  }
  t.equal((await start()).trustDomain.bundlePem(), bundle);
  t.equal(server.answered.filter((line) => line === `PUT ${secretPath} 200`).length, 4, 'twice at the start, twice again');
  t.match(lines.join(''), /"level":"warn".*the authorities are gone from Secret outrider\/outrider-keys and are put back/);
});

t.test('a broker that starts on a Secret emptied under others does not take the trust domain from them', async (t) => {
  const { keys, put } = await rig(t);
  const { start, clock, lines } = brokersOn(keys);
  const old = [await start(), await start()];
  const [first] = old as [(typeof old)[number]];
  const authority = first.trustDomain.authority().certificatePem;
  const kids = (): string[] => (first.issuer.jwks() as { keys: { kid: string }[] }).keys.map(({ kid }) => kid);
  const [kid] = kids() as [string];
  clock.advance(1_000);
  put(secretPath, {});
  const young = await start();
  t.not(young.trustDomain.authority().certificatePem, authority, 'it can know nothing of the others');
  const all = [...old, young];
  for (const { trustDomain, issuer } of [...all, ...all]) {
    await trustDomain.rotate();
    await issuer.rotate();
  }
  for (const { trustDomain, issuer } of all) {
    t.equal(trustDomain.authority().certificatePem, authority, 'what everybody trusts signs on');
    t.equal(trustDomain.bundle().length, 2, 'and the other one is trusted, too');
    t.equal(trustDomain.bundlePem(), first.trustDomain.bundlePem());
    t.strictSame(issuer.jwks(), first.issuer.jwks());
    const { token } = await issuer.mint({ audience: 'x', subject: 'y', lifetimeMs: 60_000 });
    t.equal(JSON.parse(Buffer.from(token.reveal().split('.')[0] as string, 'base64url').toString()).kid, kid);
  }
  t.equal(kids().length, 2);
  t.equal((await keys().authorities()).length, 2);
  t.match(lines.join(''), /"level":"warn".*the authorities are gone from Secret outrider\/outrider-keys and are put back/);
  // As for any successor: it is known everywhere before it signs.
  clock.advance(limits.trustDomainAuthorityAnnouncementMs + 1_000);
  for (const { trustDomain } of all) t.not(trustDomain.authority().certificatePem, authority);
});

t.test('what is damaged, newer, or of another trust domain is refused with what to do, and nothing of it is shown', async (t) => {
  const { put, data, keys } = await rig(t);
  const written = (change: object): string => JSON.stringify({ version: 1, authorities: [], signingKeys: [], ...change });
  const one = { kid: 'a', algorithm: 'ES256', privateKeyPem: 'canary', publishedFromMs: 1, signsFromMs: 2 };
  for (const [text, message] of [
    [
      'canary',
      /^Secret outrider\/outrider-keys, keys\.json is not JSON: put back a copy, or empty its data \(a broker that runs puts back/,
    ],
    ['', /is not JSON/],
    ['["canary"]', /is not JSON/],
    ['{}', /is not a list of keys that Outrider wrote/],
    [written({ version: 2 }), /was written by a newer Outrider \(version 2; this one knows 1\): run that version/],
    [written({ signingKeys: 'canary' }), /is not a list of keys/],
    [written({ signingKeys: [{ ...one, kid: '' }] }), /holds a signing key that is not whole/],
    [written({ signingKeys: [{ ...one, algorithm: 'canary' }] }), /holds a signing key that is not whole/],
    [written({ signingKeys: [{ ...one, signsFromMs: '2' }] }), /holds a signing key that is not whole/],
    [written({ signingKeys: [one, one] }), /holds a signing key twice/],
    [written({ authorities: [{ certificatePem: 'canary', privateKeyPem: 'canary' }] }), /holds an authority that is not whole/],
  ] as const) {
    put(secretPath, { 'keys.json': base64(text) });
    const error: unknown = await keys()
      .changeSigningKeys(async () => t.fail('nobody decides about that') as never)
      .catch((thrown: unknown) => thrown);
    t.match(error, { name: 'StoreError', message }, text);
    t.notMatch(inspect(error, { depth: 10 }), 'canary');
    t.equal(data(secretPath)['keys.json'], base64(text), 'and it is left as it is');
  }
  put(secretPath, {});
  const { log } = createLogLines();
  await openTrustDomain({ name: 'outrider.test', store: keys(), clock: createFakeClock(), log });
  await t.rejects(openTrustDomain({ name: 'other.test', store: keys(), clock: createFakeClock(), log }), {
    name: 'StoreError',
    message:
      /^Secret outrider\/outrider-keys holds the authority of another trust domain \(URI:spiffe:\/\/outrider\.test\), not of other\.test/,
  });
});

t.test('an API server that is away, a Secret that is not there and one that may not be read are told from each other', async (t) => {
  const { server, keys } = await rig(t);
  const errorOf = (): Promise<unknown> =>
    keys()
      .signingKeys()
      .catch((error: unknown) => error);
  server.isAway = true;
  t.match(await errorOf(), new ApiError('GET', secretPath, { status: 503, reason: 'ServiceUnavailable' }));
  server.isAway = false;
  server.objects.delete(secretPath);
  t.match(await errorOf(), { name: 'ApiError', message: `GET ${secretPath}: 404 (NotFound)` });
});

t.test('the bundle is published where it differs, and a replica that is behind does not put an old one back', async (t) => {
  const { server, api, put, data } = await rig(t);
  const { log, lines } = createLogLines();
  const publish = createPublication(api, place, log);
  put(configMapPath, { other: 'kept' });
  const puts = (): string[] => server.answered.filter((one) => one.startsWith('PUT'));
  await (await publish())('one');
  t.strictSame(data(configMapPath), { other: 'kept', 'ca.pem': 'one' });
  await (await publish())('one');
  t.equal(puts().length, 1, 'no write when it is there');

  const behind = await publish();
  await (await publish())('one, two');
  await behind('zero');
  t.equal(data(configMapPath)['ca.pem'], 'one, two');
  t.strictSame(puts().at(-1), `PUT ${configMapPath} 409`);
  t.notMatch(lines.join(''), /"level":"warn"/, 'which is nothing to worry about');

  server.isAway = true;
  const later = await publish();
  server.isAway = false;
  await later('three');
  t.equal(data(configMapPath)['ca.pem'], 'one, two');
  server.objects.delete(configMapPath);
  await (await publish())('three');
  t.match(lines.join(''), /"level":"warn".*503.*could not be published.*"level":"warn".*404.*could not be published/s);
});

t.test('what another broker publishes while this one starts is not put back either', async (t) => {
  const { server, keys, put, data } = await rig(t);
  const clock = createFakeClock();
  const { log } = createLogLines();
  const directory = t.testdirName;
  server.beforePut = async () => {
    // The authority is stored by now; before the signing key is, another broker adds one of its own and publishes both.
    if (data(secretPath)['keys.json'] === undefined) return;
    server.beforePut = undefined;
    const key = createKeyPair();
    const lifetimeMs = limits.trustDomainAuthorityLifetimeMs;
    const { certificatePem } = createAuthority({
      commonName: 'x',
      key,
      nowMs: clock.now(),
      lifetimeMs,
      spiffeTrustDomain: 'outrider.test',
    });
    const added = { certificatePem, privateKeyPem: pemOfKey(key), signsFromMs: clock.now() + lifetimeMs / 2 };
    const both = await keys().changeAuthorities(async (stored) => [...stored, added]);
    put(configMapPath, { 'ca.pem': both.map((one) => one.certificatePem).join('') });
    const { metadata, ...rest } = server.objects.get(configMapPath) as StoredObject;
    server.objects.set(configMapPath, { ...rest, metadata: { ...metadata, resourceVersion: 'another' } });
  };
  const closers: Closer[] = [];
  t.teardown(async () => {
    for (const { close } of closers.toReversed()) await close();
  });
  const settings = {
    trustDomain: 'outrider.test',
    stateDir: join(directory, 'state'),
    bundleFile: join(directory, 'bundle.pem'),
    issuer: { url: 'https://broker.outrider.test', algorithm: 'ES256', keyLifetimeMs: 86_400_000, keyOverlapMs: 3_600_000 },
    sharedKeys: { ...place, apiServer: server.url, caFile: join(directory, 'ca.pem'), tokenFile: join(directory, 'token') },
  } as unknown as BrokerSettings;
  const { trustDomain } = await openState(settings, { clock, log, metrics: { add: () => undefined }, stopRequested: undefined, closers });
  t.equal(trustDomain.bundle().length, 2);
  t.equal(data(configMapPath)['ca.pem'], trustDomain.bundlePem());
});

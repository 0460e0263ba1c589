/**
 * Requests that are signed for AWS, verified as AWS verifies them (test/support/aws-verifier.ts): whatever the program sent, what goes out bears
 * one signature, ours, over exactly what goes out.
 */
import { createHash, randomBytes } from 'node:crypto';
import { SignatureV4 } from '@smithy/signature-v4';
import fc from 'fast-check';
import t from 'tap';
import { createBudget } from '../../src/core/budget.ts';
import { hostField } from '../../src/core/destination.ts';
import { Fault } from '../../src/core/fault.ts';
import type { AwsPlacement } from '../../src/core/grant.ts';
import type { HeaderList } from '../../src/core/headers.ts';
import { limits } from '../../src/core/limits.ts';
import type { Prepared } from '../../src/proxy/exchange.ts';
import { inject, needsWholeBody } from '../../src/proxy/inject.ts';
import { type AwsTestKeys, type AwsVerdict, Sha256, verifyAws } from '../support/aws-verifier.ts';
import { type Asked, asking, context, credential, injected, refusal } from '../support/injection.ts';

const keysWith = (sessionToken: string): AwsTestKeys => ({
  accessKeyId: `TEST${randomBytes(8).toString('hex').toUpperCase()}`,
  secretAccessKey: randomBytes(30).toString('base64'),
  sessionToken,
});
const keys = keysWith('');
const temporary = keysWith(randomBytes(120).toString('base64'));
const placeholder: AwsTestKeys = {
  accessKeyId: 'PLACEHOLDERKEYID',
  secretAccessKey: 'placeholder-secret',
  sessionToken: 'placeholder-token',
};

const placement = (rest: Partial<AwsPlacement> = {}): AwsPlacement => ({
  kind: 'aws_sigv4',
  algorithm: 'sigv4',
  service: '',
  region: '',
  ...rest,
});
const credentialOf = (of: AwsTestKeys, rest?: Partial<AwsPlacement>) =>
  credential(
    placement(rest),
    JSON.stringify({
      AccessKeyId: of.accessKeyId,
      SecretAccessKey: of.secretAccessKey,
      ...(of.sessionToken ? { SessionToken: of.sessionToken } : {}),
    }),
  );

const nowMs = Date.parse('2026-11-22T08:30:00Z');
const s3 = { host: 'bucket.s3.eu-west-1.amazonaws.com' };
const sqs = { host: 'sqs.eu-west-1.amazonaws.com' };
const terms = { region: 'eu-west-1', nowMs };

const bodyOf = async (prepared: Prepared): Promise<Buffer> => {
  const parts: Uint8Array[] = [];
  for await (const part of prepared.body?.chunks ?? []) parts.push(part);
  return Buffer.concat(parts);
};

/** What a target makes of it. */
const arrived = async (prepared: Prepared, of: AwsTestKeys, service: string, rest: Partial<typeof terms> = {}): Promise<AwsVerdict> =>
  verifyAws(
    {
      method: prepared.method,
      url: prepared.path,
      headers: [['host', hostField(prepared.destination)], ...prepared.headers],
      body: await bodyOf(prepared),
    },
    of,
    { ...terms, ...rest, service },
  );

const sign = (asked: Asked, of: AwsTestKeys = keys, rest: Partial<AwsPlacement> = {}): Prepared =>
  injected(asked, [credentialOf(of, rest)], { nowMs });

const refused = (asked: Asked, rest: Partial<AwsPlacement> = {}): string => refusal(() => sign(asked, keys, rest));
const faultOf = (run: () => unknown): Fault | undefined => {
  try {
    run();
  } catch (thrown) {
    if (thrown instanceof Fault) return thrown;
    throw thrown;
  }
  return undefined;
};

const valuesIn = (headers: HeaderList, name: string): string[] =>
  headers.filter(([n]) => n.toLowerCase() === name).map(([, value]) => value);
const sha256 = (data: string): string => createHash('sha256').update(data).digest('hex');

/** What an SDK with placeholder keys would have sent. */
const presigned = async (asked: Asked, isUpload: boolean, { service = 's3', expiresIn = 600, signedMs = nowMs } = {}): Promise<Asked> => {
  const signer = new SignatureV4({
    credentials: placeholder,
    region: 'us-east-1',
    service,
    sha256: Sha256,
    uriEscapePath: service !== 's3',
  });
  const headers = Object.fromEntries([
    ['host', 'x.amazonaws.com'],
    ...(asked.headers ?? []).map(([n, v]) => [n.toLowerCase(), v] as const),
  ]);
  const request = {
    method: asked.method ?? 'GET',
    protocol: 'https:',
    hostname: 'x',
    path: asked.path ?? '/',
    headers,
    query: {},
    body: asked.body,
  };
  const options = {
    signingDate: new Date(signedMs),
    signableHeaders: new Set(Object.keys(headers)),
    unhoistableHeaders: new Set(Object.keys(headers)),
  };
  if (isUpload) {
    const { headers: signed } = await signer.sign(request, options);
    return {
      ...asked,
      headers: [...(asked.headers ?? []), ...Object.entries(signed).filter(([name]) => name !== 'host' && !(name in headers))],
    };
  }
  const { query = {} } = await signer.presign(request, { ...options, expiresIn });
  const parameters = Object.entries(query).map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`);
  return { ...asked, query: `${asked.query ?? ''}${asked.query ? '&' : '?'}${parameters.join('&')}` };
};

const seed = Date.now();
t.comment(`seed ${seed}`);

t.test('whatever the program sent and however it signed, what goes out verifies', async (t) => {
  const segment = fc.constantFrom('a', 'key', 'a%20b', '%C3%A9t%C3%A9', 'x~y', 'a-b_c.d', '%2B', '%3D', 'a%2Cb', '%E1%88%B4', '1', '%40');
  const odd = fc.constantFrom('', '.', '..', '%2F', '%25', 'a%2Fb', '%252F', '%2e');
  const parameter = fc.constantFrom(
    'list-type=2',
    'prefix=a%20b',
    'prefix=a+b',
    'uploads',
    'x=',
    '=y',
    'a=b=c',
    'q=%C3%A9',
    'a=2',
    'a=1',
    'a=1;b=2',
    'z=%2f',
    'B=%41',
  );
  const field = fc.constantFrom<readonly [string, string]>(
    ['Content-Type', 'text/plain; charset=utf-8'],
    ['x-amz-meta-note', 'a   b  c'],
    ['X-Amz-Acl', 'private'],
    // UTF-8 as it stands on the wire.
    ['x-amz-meta-name', 'caf\u00c3\u00a9'],
    ['Range', 'bytes=0-9'],
    ['If-None-Match', '"e"'],
    ['User-Agent', 'sdk/1.0'],
    ['Content-MD5', 'q8V5'],
    ['Cache-Control', 'no-store'],
    ['amz-sdk-request', 'attempt=1'],
  );
  const cases = fc.record({
    method: fc.constantFrom('GET', 'PUT', 'POST', 'DELETE', 'HEAD'),
    segments: fc.array(segment, { maxLength: 4 }),
    odd: fc.option(odd, { nil: undefined }),
    parameters: fc.array(parameter, { maxLength: 4 }),
    fields: fc.uniqueArray(field, { maxLength: 5, selector: ([name]) => name }),
    body: fc.option(fc.string({ maxLength: 40 }), { nil: undefined }),
    payload: fc.constantFrom('none', 'hash', 'UNSIGNED-PAYLOAD'),
    signed: fc.constantFrom('no', 'header', 'query'),
    isStore: fc.boolean(),
    algorithm: fc.constantFrom('sigv4' as const, 'sigv4a' as const),
    isTemporary: fc.boolean(),
  });
  const seen = new Set<string>();
  await fc.assert(
    fc.asyncProperty(cases, async (one) => {
      const isUnsigned = one.payload === 'UNSIGNED-PAYLOAD';
      const service = one.isStore ? 's3' : 'sqs';
      const path = `/${[...one.segments, ...(one.odd === undefined ? [] : [one.odd, 'end'])].join('/')}`;
      const stated = one.payload === 'hash' ? sha256(one.body ?? '') : one.payload;
      const query = one.parameters.length === 0 ? '' : `?${one.parameters.join('&')}`;
      const plain: Asked = {
        method: one.method,
        path,
        query,
        destination: one.isStore ? s3 : sqs,
        headers: [
          ...one.fields,
          ...(one.payload === 'none' || (isUnsigned && !one.isStore) ? [] : [['x-amz-content-sha256', stated] as const]),
        ],
        ...(one.body === undefined ? {} : { body: one.body }),
      };
      const asked = one.signed === 'no' ? plain : await presigned(plain, one.signed === 'header', { service });
      const of = one.isTemporary ? temporary : keys;
      const prepared = sign(asked, of, { algorithm: one.algorithm });
      const verdict = await arrived(prepared, of, service);
      seen.add(`${verdict.form} ${verdict.algorithm} ${service}`);
      const whole = JSON.stringify([prepared.path, prepared.headers]);
      if (verdict.problems.length > 0) throw new Error(`${verdict.problems.join('\n')}\n${whole}`);
      if (verdict.form !== (one.signed === 'query' ? 'query' : 'header')) throw new Error(`signed in another form: ${whole}`);
      if (/PLACEHOLDER|placeholder/.test(whole)) throw new Error(`something of the program's signature is left: ${whole}`);
      if (prepared.path.split('?')[0] !== path) throw new Error(`another path: ${whole}`);
      for (const [name, value] of one.fields)
        if (!prepared.headers.some(([n, v]) => n === name && v === value)) throw new Error(`${name} is gone`);
      const sent = prepared.path.split('?')[1]?.split('&') ?? [];
      const wanted = one.parameters.map((p) => p.replace('+', '%20').replace(';', '%3B'));
      if (sent.slice(0, wanted.length).join('&') !== wanted.join('&')) throw new Error(`another query: ${whole}`);
    }),
    { seed, numRuns: 1_500 },
  );
  t.equal(seen.size, 8, [...seen].join(', '));
});

t.test('an unsigned request is signed in the header, and its body is read whole', async (t) => {
  const asked: Asked = {
    method: 'POST',
    path: '/',
    headers: [['Content-Type', 'application/x-www-form-urlencoded']],
    body: 'Action=ListQueues',
    destination: sqs,
  };
  t.ok(needsWholeBody(asking(asked, credentialOf(keys))));
  const verdict = await arrived(sign(asked), keys, 'sqs');
  t.strictSame(verdict.problems, []);
  t.strictSame(verdict.signedHeaders, ['content-type', 'host', 'x-amz-content-sha256', 'x-amz-date']);
  t.notOk(
    needsWholeBody(asking({ ...asked, method: 'GET', body: undefined as never }, credentialOf(keys))),
    'without a body there is nothing to read',
  );
});

t.test('a body that came in chunks and was read whole is announced by its length', async (t) => {
  const prepared = sign({ method: 'POST', headers: [['Transfer-Encoding', 'chunked']], body: 'hello', destination: sqs });
  t.strictSame(valuesIn(prepared.headers, 'content-length'), ['5']);
  t.strictSame((await arrived(prepared, keys, 'sqs')).problems, []);
});

t.test('S3: an upload without a hash is hashed while it is short, and goes on unsigned over TLS alone when it is long', async (t) => {
  const upload = (length: number | undefined, scheme: 'http' | 'https' = 'https'): Asked => ({
    method: 'PUT',
    headers: length === undefined ? [] : [['Content-Length', String(length)]],
    body: 'x',
    destination: { ...s3, scheme },
  });
  const isHeld = (asked: Asked): boolean => needsWholeBody(asking(asked, credentialOf(keys)));
  t.ok(isHeld(upload(1)));
  t.ok(isHeld(upload(limits.heldBodyBytesMax)));
  t.notOk(isHeld(upload(limits.heldBodyBytesMax + 1)));
  t.notOk(isHeld(upload(undefined)));
  t.ok(isHeld(upload(limits.heldBodyBytesMax + 1, 'http')), 'in clear text the body is always signed, so that one too long is refused');
  const prepared = sign(upload(limits.heldBodyBytesMax + 1));
  t.strictSame(valuesIn(prepared.headers, 'x-amz-content-sha256'), ['UNSIGNED-PAYLOAD']);
  t.strictSame((await arrived(prepared, keys, 's3')).problems, []);
});

t.test('what the program says of its payload stays: the target holds the body to it', async (t) => {
  for (const value of [sha256('hello'), 'UNSIGNED-PAYLOAD', 'STREAMING-UNSIGNED-PAYLOAD-TRAILER']) {
    const asked: Asked = { method: 'PUT', headers: [['X-Amz-Content-Sha256', value]], body: 'hello', destination: s3 };
    t.notOk(needsWholeBody(asking(asked, credentialOf(keys))), value);
    t.strictSame(valuesIn(sign(asked).headers, 'x-amz-content-sha256'), [value]);
  }
});

t.test('query form: what the URL says of the payload stays; S3 takes the body as it comes, others have it hashed', async (t) => {
  const asked = (destination: { host: string }, stated = ''): Asked => ({
    method: 'PUT',
    query: `?X-Amz-Signature=00${stated}`,
    body: 'hello',
    destination,
  });
  for (const [service, destination] of Object.entries({ s3, sqs })) {
    const kept = asked(destination, `&X-Amz-Content-Sha256=${sha256('hello')}`);
    t.notOk(needsWholeBody(asking(kept, credentialOf(keys))));
    t.strictSame((await arrived(sign(kept), keys, service)).problems, []);
    t.equal(needsWholeBody(asking(asked(destination), credentialOf(keys))), service === 'sqs');
    t.strictSame((await arrived(sign(asked(destination)), keys, service)).problems, []);
  }
  t.equal(refused(asked(s3, '&X-Amz-Content-Sha256=STREAMING-AWS4-HMAC-SHA256-PAYLOAD')), 'signature_unsupported');
});

t.test('every spelling and every copy of the old signature goes', async (t) => {
  const prepared = sign(
    {
      path: '/k',
      destination: s3,
      query: '?X-Amz-Security-Token=old&x%2damz-security-token=old&X-AMZ-DATE=old&versionId=1',
      headers: [
        ['Authorization', 'Bearer old'],
        ['AUTHORIZATION', 'Basic old'],
        ['X-Amz-Security-Token', 'old'],
        ['x_amz_security_token', 'old'],
        ['x-amz-date', 'old'],
        ['X_Amz_Date', 'old'],
        ['Date', 'Mon, 01 Jan 2024 00:00:00 old'],
        ['X-Amz-Region-Set', 'old'],
        ['x_amz_content_sha256', 'old'],
      ],
    },
    temporary,
  );
  t.notMatch(JSON.stringify([prepared.path, prepared.headers]), /old/);
  t.equal(prepared.path, '/k?versionId=1');
  t.strictSame((await arrived(prepared, temporary, 's3')).problems, []);
});

t.test('only what arrives as it was signed is signed: fields of our hop and of nodes on the way are not', async (t) => {
  const all = [
    'accept',
    'user-agent',
    'connection',
    'content-length',
    'expect',
    'te',
    'x-amzn-trace-id',
    'x-gone',
    'host',
    'x-amz-date',
    'range',
  ];
  const prepared = sign({
    method: 'PUT',
    destination: s3,
    body: 'x',
    headers: [
      [
        'Authorization',
        `AWS4-HMAC-SHA256 Credential=${placeholder.accessKeyId}/20261122/us-east-1/s3/aws4_request, SignedHeaders=${all.toSorted().join(';')}, Signature=00`,
      ],
      ['Accept', '*/*'],
      ['User-Agent', 'sdk'],
      ['Connection', 'keep-alive, x-gone'],
      ['Content-Length', '1'],
      ['Expect', '100-continue'],
      ['TE', 'trailers'],
      ['X-Amzn-Trace-Id', 'Root=1'],
      ['X-Gone', '1'],
      ['Range', 'bytes=0-1'],
      ['X-Other', '1'],
    ],
  });
  const verdict = await arrived(prepared, keys, 's3');
  t.strictSame(verdict.problems, []);
  t.strictSame(verdict.signedHeaders, ['accept', 'host', 'range', 'x-amz-content-sha256', 'x-amz-date']);
});

t.test('a signature that cannot be replaced is refused', async (t) => {
  const v4 = 'AWS4-HMAC-SHA256 Credential=A/20261122/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00';
  const rows: readonly (readonly [string, Asked])[] = [
    ['version 2', { headers: [['Authorization', 'AWS AKID:c2ln']] }],
    ['version 2 in the query', { query: '?AWSAccessKeyId=A&Signature=s&Expires=1' }],
    ['version 3', { headers: [['Authorization', 'AWS3-HTTPS AWSAccessKeyId=A']] }],
    ['an unknown version 4', { headers: [['Authorization', 'AWS4-HMAC-SHA512 Credential=A']] }],
    ['an unknown version 4 in the query', { query: '?X-Amz-Algorithm=AWS4-HMAC-SHA512&X-Amz-Signature=00' }],
    [
      'two signatures',
      {
        headers: [
          ['Authorization', v4],
          ['authorization', v4],
        ],
      },
    ],
    ['header and query', { headers: [['Authorization', v4]], query: '?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=00' }],
    ['two dates in the query', { query: '?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20261122T083000Z&x-amz-date=20261122T083001Z' }],
    [
      'two hashes',
      {
        headers: [
          ['x-amz-content-sha256', sha256('a')],
          ['X-Amz-Content-Sha256', sha256('b')],
        ],
      },
    ],
    [
      'one hash twice',
      {
        headers: [
          ['x-amz-content-sha256', sha256('a')],
          ['X-Amz-Content-Sha256', sha256('a')],
        ],
      },
    ],
    ['event streams', { headers: [['x-amz-content-sha256', 'STREAMING-AWS4-HMAC-SHA256-EVENTS']] }],
    ['chunks of another algorithm', { headers: [['x-amz-content-sha256', 'STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD']], body: 'x' }],
    ['the session of a directory bucket', { headers: [['x-amz-s3session-token', 'token']] }],
  ];
  for (const [what, asked] of rows) t.equal(refused({ ...asked, destination: s3 }), 'signature_unsupported', what);
  t.equal(refused({ headers: [['Authorization', 'Bearer placeholder']], destination: s3 }), 'none', 'what is no signature is replaced');
});

t.test('a host that says no service or region needs a placement that does', async (t) => {
  const elsewhere: Asked = { destination: { host: 'minio.outrider.test', port: 9000 } };
  const fault = faultOf(() => sign(elsewhere));
  t.match(fault, { code: 'credential_invalid', detail: /the placement must name them/ });
  const verdict = await arrived(sign(elsewhere, keys, { service: 's3', region: 'eu-west-1' }), keys, 's3');
  t.strictSame(verdict.problems, []);
  t.match(
    faultOf(() => sign({ destination: { host: 'b.s3-accelerate.amazonaws.com' } })),
    { code: 'credential_invalid' },
  );
  const accelerated = sign({ destination: { host: 'b.s3-accelerate.amazonaws.com' } }, keys, { region: 'eu-west-1' });
  t.strictSame((await arrived(accelerated, keys, 's3')).problems, []);
  const everywhere: Asked = { destination: { host: 'alias.mrap.accesspoint.s3-global.amazonaws.com' } };
  t.match(
    faultOf(() => sign(everywhere)),
    { code: 'credential_invalid', detail: /sigv4a/ },
  );
  t.strictSame((await arrived(sign(everywhere, keys, { algorithm: 'sigv4a' }), keys, 's3', { region: '*' })).problems, []);
});

t.test('what is no set of access keys is refused before anything is sent', async (t) => {
  for (const value of ['', 'AKIA', '{}', '{"AccessKeyId":"short","SecretAccessKey":"s"}']) {
    t.equal(
      refusal(() => injected({ destination: s3 }, [credential(placement(), value)], { nowMs })),
      'credential_invalid',
      value,
    );
  }
});

t.test('of a credential the target sees, and must not repeat, its session token alone', async (t) => {
  const shown = (of: AwsTestKeys): string[] => sign({ destination: s3 }, of).unspoken.map((secret) => secret.reveal());
  t.strictSame(shown(keys), []);
  t.strictSame(shown(temporary), [temporary.sessionToken]);
  const prepared = sign({ destination: s3 }, temporary);
  t.notOk(JSON.stringify([prepared.path, prepared.headers]).includes(temporary.secretAccessKey));
});

t.test('a URL is good for as long as its program signed it for, and never for longer than it takes to send it', async (t) => {
  const lifetime = async (expiresIn: number, agoSeconds: number): Promise<string | undefined> => {
    const asked = await presigned({ path: '/k', destination: s3 }, false, { expiresIn, signedMs: nowMs - agoSeconds * 1_000 });
    const verdict = await arrived(sign(asked), keys, 's3');
    t.strictSame(verdict.problems, []);
    return verdict.expires;
  };
  t.equal(await lifetime(60, 0), '60');
  t.equal(await lifetime(60, 45), '15');
  t.equal(await lifetime(604_800, 0), '300');
  t.equal(await lifetime(60, -30), '60', 'a program whose clock is ahead gains nothing');
  const past = await presigned({ destination: s3 }, false, { expiresIn: 60, signedMs: nowMs - 60_000 });
  t.match(
    faultOf(() => sign(past)),
    { code: 'signature_unsupported', detail: /is over/ },
  );
  t.match(
    faultOf(() => sign({ query: '?X-Amz-Signature=00&X-Amz-Expires=soon', destination: s3 })),
    { code: 'signature_unsupported' },
  );
});

t.test('AWS IoT takes the session token beside the signature', async (t) => {
  const device: Asked = { path: '/mqtt', query: '?X-Amz-Signature=00', destination: { host: 'a1b2-ats.iot.eu-west-1.amazonaws.com' } };
  const { path } = sign(device, temporary);
  t.match(path, /X-Amz-Credential=[^&]*iotdevicegateway/);
  t.match(path, /&X-Amz-Signature=[0-9a-f]{64}&X-Amz-Security-Token=[^&]+$/);
});

t.test('one credential signs for every day, region and service that its requests ask for', async (t) => {
  const { grant } = asking({}, credentialOf(keys));
  const elsewhere = { host: 'bucket.s3.us-east-2.amazonaws.com' };
  for (let day = 0; day < limits.awsDerivedKeysMax; day += 1) {
    const at = nowMs + day * 86_400_000;
    for (const [service, region, destination] of [
      ['s3', 'eu-west-1', s3] as const,
      ['s3', 'us-east-2', elsewhere] as const,
      ['sqs', 'eu-west-1', sqs] as const,
    ]) {
      const prepared = inject({ ...asking({ destination }), grant }, { ...context, nowMs: at });
      t.strictSame((await arrived(prepared, keys, service, { region, nowMs: at })).problems, [], `day ${day}, ${service} in ${region}`);
    }
  }
});

t.test('nothing is held for a request that signs no chunks', async (t) => {
  const buffers = createBudget(0);
  const prepared = injected(
    { method: 'PUT', headers: [['x-amz-content-sha256', 'UNSIGNED-PAYLOAD']], body: 'x', destination: s3 },
    [credentialOf(keys)],
    {
      nowMs,
      buffers,
    },
  );
  t.equal((await bodyOf(prepared)).toString(), 'x');
  t.ok(context.buffers);
});

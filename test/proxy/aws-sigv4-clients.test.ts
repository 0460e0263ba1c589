/** The AWS SDK with placeholder keys, through the whole proxy to an origin that verifies every signature as AWS does. */
import { randomBytes } from 'node:crypto';
import { Agent, request as startRequest } from 'node:https';
import { Readable } from 'node:stream';
import { CopyObjectCommand, GetObjectCommand, ListObjectsV2Command, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { SignatureV4 } from '@smithy/signature-v4';
import t, { type Test } from 'tap';
import type { PlacedCredential } from '../../src/core/grant.ts';
import type { Rule } from '../../src/core/policy.ts';
import { Secret } from '../../src/core/secret.ts';
import { startRecorder } from '../fakes/recorder.ts';
import { type AwsTestKeys, type AwsVerdict, Sha256, verifyAws } from '../support/aws-verifier.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { directoryOf } from '../support/directory.ts';
import { allowAll, bearer, grantOf, startPath, target } from '../support/path.ts';

const host = 's3.outrider.test';
const region = 'eu-west-1';
const authority = createTestAuthority();
const keys: AwsTestKeys = {
  accessKeyId: `TEST${randomBytes(8).toString('hex').toUpperCase()}`,
  secretAccessKey: randomBytes(30).toString('base64'),
  sessionToken: randomBytes(60).toString('base64'),
};
const placeholder = { accessKeyId: 'PLACEHOLDERKEYID', secretAccessKey: 'placeholder-secret', sessionToken: 'placeholder-token' };

const awsKeys = (algorithm: 'sigv4' | 'sigv4a'): PlacedCredential => ({
  ...bearer('unused'),
  placement: { kind: 'aws_sigv4', algorithm, service: 's3', region },
  value: new Secret(
    JSON.stringify({ AccessKeyId: keys.accessKeyId, SecretAccessKey: keys.secretAccessKey, SessionToken: keys.sessionToken }),
  ),
});

interface Seen {
  readonly method: string;
  readonly url: string;
  readonly headers: readonly (readonly [string, string])[];
  readonly verdict: AwsVerdict;
}

interface SetUp {
  readonly algorithm?: 'sigv4' | 'sigv4a';
  readonly rules?: readonly Rule[];
}

const setUp = async (t: Test, { algorithm = 'sigv4', rules = [allowAll] }: SetUp = {}) => {
  const seen: Seen[] = [];
  const problems: unknown[] = [];
  const store = new Map<string, Buffer>();
  const origin = await startRecorder(authority.serverFor(host), (request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      const headers = pairs(request.rawHeaders);
      const arrived = { method: request.method as string, url: request.url as string, headers, body: Buffer.concat(parts) };
      verifyAws(arrived, keys, { service: 's3', region, nowMs: Date.now() }).then(
        (verdict) => {
          seen.push({ ...arrived, verdict });
          const key = arrived.url.split('?')[0] as string;
          if (arrived.method === 'PUT') store.set(key, verdict.content);
          response.setHeader('etag', '"e"');
          if (arrived.url.includes('list-type=2'))
            response.end('<ListBucketResult><Name>b</Name><KeyCount>0</KeyCount></ListBucketResult>');
          else if (headers.some(([name]) => name.toLowerCase() === 'x-amz-copy-source'))
            response.end('<CopyObjectResult><ETag>e</ETag></CopyObjectResult>');
          else response.end(arrived.method === 'GET' ? store.get(key) : undefined);
        },
        (error: unknown) => {
          problems.push(error);
          response.writeHead(500).end();
        },
      );
    });
  });
  t.teardown(() => origin.close());
  const to = target('s3', { hosts: [host], ports: [443], paths: 'verbatim' });
  const path = await startPath({
    dir: directoryOf(t),
    targets: [to],
    pins: [{ host, port: 443, address: '127.0.0.1', addressPort: origin.httpsPort }],
    trustPem: authority.pem,
    grants: { get: () => grantOf(to, { credentials: [awsKeys(algorithm)], rules }) },
  });
  t.teardown(() => path.close());
  const agent = new Agent({ ca: path.bundle, keepAlive: true, proxyEnv: { HTTPS_PROXY: `http://127.0.0.1:${path.port}` } });
  t.teardown(() => agent.destroy());
  const client = new S3Client({
    endpoint: `https://${host}`,
    forcePathStyle: true,
    region: 'us-east-1',
    credentials: placeholder,
    maxAttempts: 1,
    requestHandler: { httpsAgent: agent },
  });
  t.teardown(() => client.destroy());
  return { agent, client, seen, problems, path, origin };
};

const pairs = (raw: readonly string[]): [string, string][] =>
  raw.flatMap((name, i) => (i % 2 === 0 ? [[name, raw[i + 1] as string] as [string, string]] : []));

const stated = (one: Seen | undefined): string | undefined =>
  one?.headers.find(([name]) => name.toLowerCase() === 'x-amz-content-sha256')?.[1];

for (const algorithm of ['sigv4', 'sigv4a'] as const) {
  t.test(`${algorithm}: objects are put and got, whatever their keys and however they are sent`, async (t) => {
    const { client, seen, problems, path, origin } = await setUp(t, { algorithm });
    const names = [
      'plain',
      'with space',
      'a+b',
      'caf\u00e9/\u1234',
      'a//b',
      '/leading',
      'a%2Fb',
      'a/../b',
      './a',
      "it's(1)!*",
      'x=1&y;z',
      'q?x#y',
      'a\\b',
      '100%',
    ];
    for (const Key of names) {
      const Body = Buffer.from(`content of ${Key}`);
      await client.send(new PutObjectCommand({ Bucket: 'b', Key, Body, ContentType: 'text/plain', Metadata: { note: 'a   b' } }));
      const { Body: got } = await client.send(new GetObjectCommand({ Bucket: 'b', Key }));
      t.equal(await got?.transformToString(), Body.toString(), Key);
    }
    const large = randomBytes(3 * 1024 * 1024);
    const parts = Array.from({ length: 48 }, (_, i) => large.subarray(i * 65_536, (i + 1) * 65_536));
    await client.send(new PutObjectCommand({ Bucket: 'b', Key: 'stream', Body: Readable.from(parts), ContentLength: large.length }));
    t.equal(stated(seen.at(-1)), 'STREAMING-UNSIGNED-PAYLOAD-TRAILER', 'a stream goes up in chunks with its checksum behind it');
    t.ok(seen.at(-1)?.verdict.content.equals(large));
    await client.send(new ListObjectsV2Command({ Bucket: 'b', Prefix: 'a b+c/;\u00e9', Delimiter: '/' }));
    await client.send(new CopyObjectCommand({ Bucket: 'b', Key: 'copy', CopySource: 'b/with%20space' }));
    t.strictSame(problems, []);
    t.equal(seen.length, names.length * 2 + 3);
    for (const { method, url, verdict } of seen) t.strictSame(verdict.problems, [], `${method} ${url}`);
    t.notMatch(origin.raw().join(), /PLACEHOLDER|placeholder/, 'nothing of the placeholder keys leaves the pod');
    t.notOk(JSON.stringify([path.events, path.logs]).includes(keys.secretAccessKey));
  });
}

interface Plain {
  readonly method?: string;
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer;
}

const exchange = (agent: Agent, { method = 'GET', url, headers = {}, body }: Plain): Promise<{ status: number; text: string }> =>
  new Promise((resolve, reject) => {
    const outgoing = startRequest({ agent, host, method, path: url, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => (text += part));
      response.on('end', () => resolve({ status: response.statusCode as number, text }));
    });
    outgoing.on('error', reject);
    outgoing.end(body);
  });

t.test('a URL that was signed with placeholder keys is signed anew, and its own parameters stay', async (t) => {
  const { agent, seen, problems } = await setUp(t);
  const signer = new SignatureV4({ credentials: placeholder, region: 'us-east-1', service: 's3', sha256: Sha256, uriEscapePath: false });
  for (const path of ['/b/key', '/b/a%20b//c', '/b/a%2Fb']) {
    const { query = {} } = await signer.presign(
      { method: 'GET', protocol: 'https:', hostname: host, path, headers: { host }, query: { versionId: 'v 1+2' } },
      { expiresIn: 3600 },
    );
    const parameters = Object.entries(query).map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`);
    t.equal((await exchange(agent, { url: `${path}?${parameters.join('&')}` })).status, 200);
    const last = seen.at(-1);
    t.strictSame(last?.verdict.problems, [], path);
    t.match(last, { url: /versionId=v%201%2B2/, verdict: { form: 'query' } });
    t.equal(last?.url.split('?')[0], path);
  }
  t.strictSame(problems, []);
});

t.test('an upload whose chunks were signed with placeholder keys is signed anew chunk by chunk', async (t) => {
  const { agent, seen, problems } = await setUp(t);
  const content = randomBytes(2 * 1024 * 1024 + 17);
  const signature = 'f'.repeat(64);
  const chunks: Buffer[] = [];
  for (let at = 0; at < content.length; at += 131_072) {
    const data = content.subarray(at, at + 131_072);
    chunks.push(Buffer.from(`${data.length.toString(16)};chunk-signature=${signature}\r\n`), data, Buffer.from('\r\n'));
  }
  chunks.push(
    Buffer.from(`0;chunk-signature=${signature}\r\nx-amz-checksum-crc32c:AAAAAA==\r\nx-amz-trailer-signature:${signature}\r\n\r\n`),
  );
  const body = Buffer.concat(chunks);
  const headers = {
    Authorization: `AWS4-HMAC-SHA256 Credential=${placeholder.accessKeyId}/20261122/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=${signature}`,
    'X-Amz-Date': '20261122T083000Z',
    'X-Amz-Content-Sha256': 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER',
    'X-Amz-Trailer': 'x-amz-checksum-crc32c',
    'X-Amz-Decoded-Content-Length': String(content.length),
    'Content-Encoding': 'aws-chunked',
    'Content-Length': String(body.length),
  };
  t.equal((await exchange(agent, { method: 'PUT', url: '/b/chunks', headers, body })).status, 200);
  t.strictSame(problems, []);
  t.strictSame(seen.at(-1)?.verdict.problems, []);
  t.ok(seen.at(-1)?.verdict.content.equals(content));

  const { 'Content-Length': _, ...unannounced } = headers;
  const chunked = { ...unannounced, 'Transfer-Encoding': 'chunked' };
  t.equal((await exchange(agent, { method: 'PUT', url: '/b/chunks', headers: chunked, body })).status, 200);
  t.strictSame(seen.at(-1)?.verdict.problems, [], 'also where the whole is not announced');
  t.ok(seen.at(-1)?.verdict.content.equals(content));

  const broken = Buffer.concat([body.subarray(0, 300_000), Buffer.from('x'), body.subarray(300_000, -1)]);
  await exchange(agent, { method: 'PUT', url: '/b/broken', headers, body: broken }).then(
    ({ status, text }) => t.match({ status, text }, { status: 400, text: /framing_invalid/ }),
    (error: NodeJS.ErrnoException) => t.match(error.code, /ECONNRESET|EPIPE/, 'or the connection is broken'),
  );
  t.equal(seen.length, 2, 'what is not soundly framed never arrives whole');
});

t.test('rules about paths allow no key that could be read as another', async (t) => {
  const rules = [{ ...allowAll, paths: ['/b/public/**'] }];
  const { agent, seen } = await setUp(t, { rules });
  t.equal((await exchange(agent, { url: '/b/public/key' })).status, 200);
  t.equal((await exchange(agent, { url: '/b/public/%6bey' })).status, 200);
  t.equal(seen.at(-1)?.url, '/b/public/key', 'an unambiguous path is sent in the spelling that was judged');
  for (const url of [
    '/b/public/../private',
    '/b/public//key',
    '/b/public/%2e%2e/private',
    '/b/public%2f..%2fprivate',
    '/b/public/a;b',
    '/b/private',
  ]) {
    const { status, text } = await exchange(agent, { url });
    t.equal(status, 403, url);
    t.match(JSON.parse(text), { code: 'policy_denied' });
  }
  t.equal(seen.length, 2);
});

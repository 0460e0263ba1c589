/** Signatures against what AWS publishes: its test suites for version 4 and 4a, its examples of chunked uploads, and its SDKs' endpoints. */
import { verify } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { createBudget } from '../../src/core/budget.ts';
import type { HeaderList } from '../../src/core/headers.ts';
import { canonicalRequest, sha256, signedFields } from '../../src/proxy/inject/aws-sigv4/canonical.ts';
import { signChunks } from '../../src/proxy/inject/aws-sigv4/chunks.ts';
import { endpointOf } from '../../src/proxy/inject/aws-sigv4/endpoint.ts';
import { credentialScope, keyringOf, type Scope, spelled } from '../../src/proxy/inject/aws-sigv4/keyring.ts';
import { publicKeyOf } from '../support/aws-verifier.ts';

const vectors = (name: string): unknown =>
  JSON.parse(readFileSync(fileURLToPath(new URL(`../vectors/aws/${name}`, import.meta.url)), 'utf8'));

/** The keys of AWS' examples, in pieces: they are no secret and yet look like one. */
const example = {
  suite: {
    id: 'AKIDEXAMPLE',
    secret: ['wJalrXUtnFEMI', 'K7MDENG+bPxRfiCY', 'EXAMPLEKEY'].map((part, i) => (i === 1 ? `/${part}` : part)).join(''),
  },
  s3: { id: ['AKIA', 'IOSFODNN7', 'EXAMPLE'].join(''), secret: ['wJalrXUtnFEMI', 'K7MDENG', 'bPxRfiCY'].join('/').concat('EXAMPLEKEY') },
  token: ['6e86291e8372ff2a', '2260956d9b8aae1d', '763fbf315fa00fa3', '1553b73ebf194267'].join(''),
};

interface SuiteCase {
  readonly name: string;
  readonly method?: string;
  readonly path: string;
  readonly query: string;
  readonly headers: HeaderList;
  readonly body?: string;
  readonly canonical?: string;
  readonly stringToSign?: string;
  readonly signature: string;
}

const { v4, v4a } = vectors('signatures.json') as { v4: readonly SuiteCase[]; v4a: readonly SuiteCase[] };
const time = '20150830T123600Z';
/** The suite's files are UTF-8; on the wire a character is a byte. */
const onTheWire = (text: string): string => Buffer.from(text, 'utf8').toString('latin1');

const textToSign = (one: SuiteCase, scope: Scope, headers: HeaderList) => {
  const parameters = onTheWire(one.query)
    .slice(1)
    .split('&')
    .filter((parameter) => parameter !== '');
  const canonical = canonicalRequest({
    method: one.method ?? 'GET',
    path: onTheWire(one.path),
    parameters,
    fields: signedFields(headers, () => true),
    payload: sha256(Buffer.from(one.body ?? '', 'utf8')),
    service: scope.service,
  });
  return { canonical, text: [spelled[scope.algorithm], scope.time, credentialScope(scope), sha256(canonical)].join('\n') };
};

t.test('version 4: every case of the published suite is reproduced, from the canonical request to the signature', async (t) => {
  t.ok(v4.length >= 30, `${v4.length} cases`);
  const { id, secret } = example.suite;
  for (const one of v4) {
    const isWithToken = one.canonical?.includes('{token}');
    const keyring = keyringOf(id, secret, '');
    const scope: Scope = { algorithm: 'sigv4', time, region: 'us-east-1', service: 'service' };
    const headers: HeaderList = [...one.headers, ...(isWithToken ? [['X-Amz-Security-Token', example.token] as const] : [])];
    const { canonical, text } = textToSign(one, scope, headers);
    t.equal(canonical, one.canonical?.replace('{token}', example.token), `${one.name}: canonical request`);
    t.equal(text, one.stringToSign, `${one.name}: string to sign`);
    t.equal(keyring.sign(scope, text), one.signature, `${one.name}: signature`);
  }
});

t.test('version 4a: the signatures that AWS publishes are over what we would sign, under the key that we derive', async (t) => {
  const { id, secret } = example.suite;
  const publicKey = await publicKeyOf({ accessKeyId: id, secretAccessKey: secret, sessionToken: '' });
  const keyring = keyringOf(id, secret, '');
  const scope: Scope = { algorithm: 'sigv4a', time, region: 'us-east-1', service: 'service' };
  for (const one of v4a) {
    const headers: HeaderList = [
      ...one.headers,
      ['X-Amz-Date', time],
      ['X-Amz-Region-Set', 'us-east-1'],
      ...(one.name.includes('token') ? [['X-Amz-Security-Token', example.token] as const] : []),
    ];
    const { text } = textToSign(one, scope, headers);
    const isTheirs = verify(
      'sha256',
      Buffer.from(text, 'latin1'),
      { key: publicKey, dsaEncoding: 'der' },
      Buffer.from(one.signature, 'hex'),
    );
    t.ok(isTheirs, `${one.name}: their signature`);
    const ours = Buffer.from(keyring.sign(scope, text), 'hex');
    t.ok(verify('sha256', Buffer.from(text, 'latin1'), { key: publicKey, dsaEncoding: 'der' }, ours), `${one.name}: ours`);
  }
});

// Chunked uploads: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html and sigv4-streaming-trailers.html ------------------

const uploadTime = '20130524T000000Z';
const upload: Scope = { algorithm: 'sigv4', time: uploadTime, region: 'us-east-1', service: 's3' };
const zeros = '0'.repeat(64);
const from = async function* (...parts: string[]) {
  for (const part of parts) yield Buffer.from(part, 'latin1');
};
const all = async (body: AsyncIterable<Uint8Array>): Promise<string> => {
  const parts: Uint8Array[] = [];
  for await (const part of body) parts.push(part);
  return Buffer.concat(parts).toString('latin1');
};

const seedOf = (payload: string, fields: HeaderList): string => {
  const canonical = canonicalRequest({
    method: 'PUT',
    path: '/examplebucket/chunkObject.txt',
    parameters: [],
    fields: signedFields(
      [
        ['Host', 's3.amazonaws.com'],
        ['x-amz-date', uploadTime],
        ['x-amz-storage-class', 'REDUCED_REDUNDANCY'],
        ['Content-Encoding', 'aws-chunked'],
        ['x-amz-decoded-content-length', '66560'],
        ['x-amz-content-sha256', payload],
        ...fields,
      ],
      () => true,
    ),
    payload,
    service: 's3',
  });
  const keyring = keyringOf(example.s3.id, example.s3.secret, '');
  return keyring.sign(upload, [spelled.sigv4, uploadTime, credentialScope(upload), sha256(canonical)].join('\n'));
};

const chunkTerms = (seed: string, hasTrailer: boolean) => {
  const keyring = keyringOf(example.s3.id, example.s3.secret, '');
  const budget = createBudget(1_000_000);
  return { scope: upload, sign: (text: string) => keyring.sign(upload, text), seed, hasTrailer, decodedLength: 66_560, budget };
};

t.test('chunks: the published example of a signed upload is reproduced', async (t) => {
  const seed = seedOf('STREAMING-AWS4-HMAC-SHA256-PAYLOAD', [['Content-Length', '66824']]);
  t.equal(seed, '4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9');
  const sent = (first: string, second: string, last: string): string =>
    `10000;chunk-signature=${first}\r\n${'a'.repeat(65_536)}\r\n400;chunk-signature=${second}\r\n${'a'.repeat(1_024)}\r\n0;chunk-signature=${last}\r\n\r\n`;
  const terms = chunkTerms(seed, false);
  t.equal(
    await all(signChunks(from(sent(zeros, zeros, zeros)), terms)),
    sent(
      'ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648',
      '0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497',
      'b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9',
    ),
  );
  t.equal(terms.budget.used(), 0, 'nothing is held any more');
});

t.test('chunks: the published example with a trailer is reproduced', async (t) => {
  const seed = seedOf('STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER', [['x-amz-trailer', 'x-amz-checksum-crc32c']]);
  t.equal(seed, '106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e');
  const sent = (first: string, second: string, last: string, trailer: string): string =>
    `10000;chunk-signature=${first}\r\n${'a'.repeat(65_536)}\r\n400;chunk-signature=${second}\r\n${'a'.repeat(1_024)}\r\n0;chunk-signature=${last}\r\n` +
    `x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:${trailer}\r\n\r\n`;
  const whole = sent(zeros, zeros, zeros, zeros);
  const pieces = [whole.slice(0, 5), whole.slice(5, 85), whole.slice(85, 65_700), ...whole.slice(65_700).split(/(?<=.)/s)];
  t.equal(
    await all(signChunks(from(...pieces), chunkTerms(seed, true))),
    sent(
      'b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2',
      '1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7',
      '2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992',
      'd81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435',
    ),
    'however the body is cut into reads',
  );
});

t.test('service and region are read from every published form of a host', async (t) => {
  const { rows } = vectors('endpoints.json') as { rows: readonly (readonly [string, string, string])[] };
  t.ok(rows.length > 500, `${rows.length} hosts`);
  for (const [host, service, region] of rows) {
    const found = endpointOf(host);
    if (found?.service !== service || found.region !== region) t.same(found, { service, region }, host);
  }
  t.equal(new Set(rows.map(([, service]) => service)).size > 250, true, 'of hundreds of services');
});

t.test('service and region are read from forms that no SDK publishes', async (t) => {
  const rows: readonly (readonly [host: string, service: string, region: string | undefined])[] = [
    ['search-logs-abc123.eu-west-1.es.amazonaws.com', 'es', 'eu-west-1'],
    ['a1b2c3.us-east-1.aoss.amazonaws.com', 'aoss', 'us-east-1'],
    ['doc-movies.us-east-2.cloudsearch.amazonaws.com', 'cloudsearch', 'us-east-2'],
    ['eu-west-1.queue.amazonaws.com', 'sqs', 'eu-west-1'],
    ['a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com', 'execute-api', 'eu-central-1'],
    ['a1b2c3d4e5-vpce-0a1b.execute-api.eu-central-1.amazonaws.com', 'execute-api', 'eu-central-1'],
    ['abcdefgh.lambda-url.us-west-2.on.aws', 'lambda', 'us-west-2'],
    ['abcdefgh.appsync-api.us-west-2.amazonaws.com', 'appsync', 'us-west-2'],
    ['a1b2-ats.iot.eu-west-1.amazonaws.com', 'iotdata', 'eu-west-1'],
    ['my.dotted.bucket.s3.eu-north-1.amazonaws.com', 's3', 'eu-north-1'],
    ['eu-west-1.s3.amazonaws.com', 's3', 'us-east-1'],
    ['s3-eu-west-1.amazonaws.com', 's3', 'eu-west-1'],
    ['bucket.s3-us-west-2.amazonaws.com', 's3', 'us-west-2'],
    ['bucket.s3-accelerate.amazonaws.com', 's3', undefined],
    ['alias.mrap.accesspoint.s3-global.amazonaws.com', 's3', '*'],
    ['point-123456789012.s3-accesspoint.cn-north-1.amazonaws.com.cn', 's3', 'cn-north-1'],
    ['bucket.vpce-1a2b.s3.us-east-1.vpce.amazonaws.com', 's3', 'us-east-1'],
    ['bucket.bucket.vpce-1a2b.s3.us-east-1.vpce.amazonaws.com', 's3', 'us-east-1'],
    ['vpce-1a2b-us-east-1a.sqs.us-east-1.vpce.amazonaws.com', 'sqs', 'us-east-1'],
    ['vpce-1a2b.runtime.sagemaker.us-east-1.vpce.amazonaws.com', 'sagemaker', 'us-east-1'],
    ['email-smtp.eu-west-1.amazonaws.com', 'ses', 'eu-west-1'],
    ['sts.amazonaws.com', 'sts', 'us-east-1'],
    ['iam.amazonaws.com', 'iam', 'us-east-1'],
    ['iam.us-gov.amazonaws.com', 'iam', 'us-gov-west-1'],
    ['route53.amazonaws.com.cn', 'route53', 'cn-northwest-1'],
    ['globalaccelerator.amazonaws.com', 'globalaccelerator', 'us-west-2'],
  ];
  for (const [host, service, region] of rows) t.same(endpointOf(host), { service, region }, host);
  for (const host of [
    'api.example.com',
    'amazonaws.com',
    's3.amazonaws.com.example.com',
    '10.0.0.1',
    'eu-west-1.amazonaws.com',
    'evilamazonaws.com',
  ])
    t.equal(endpointOf(host), undefined, host);
});

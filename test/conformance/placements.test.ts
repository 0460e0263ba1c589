/** What every placement keeps to, whatever its kind, in what a target receives. A new kind: a row here. */
import { createHmac, generateKeyPairSync } from 'node:crypto';
import { decodeJwt } from 'jose';
import t, { type Test } from 'tap';
import { awsKeysText } from '../../src/core/aws-keys.ts';
import { boundTokenText } from '../../src/core/bound-token.ts';
import { formOf, type PlacedCredential, type Placement } from '../../src/core/grant.ts';
import { limits } from '../../src/core/limits.ts';
import { grantBytes, grantOf as readGrant } from '../../src/rpc/wire.ts';
import { field, type RecordedRequest, startRecorder } from '../fakes/recorder.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { directoryOf } from '../support/directory.ts';
import { credential } from '../support/injection.ts';
import { dial, exchange, grantOf, startPath, target, wholeResponse } from '../support/path.ts';

t.setTimeout(120_000);

type Written = Exclude<Placement['kind'], 'client_certificate'>;

interface Row {
  readonly placement: Placement;
  readonly value: string;
  /** What the program sends, its own value in the place: "theirs", in several spellings where there are any. */
  readonly target?: string;
  readonly headers?: string;
  readonly body?: string;
  /** What the target finds in the place; undefined where it is not as it should be. */
  readonly placed: (request: RecordedRequest) => unknown;
  readonly wanted: unknown;
  /** What of the value is sent. */
  readonly isSecretSent: boolean;
}

const secret = 'canary-credential';
const mintedKey = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
const path = '/v1/theirs/list?page=2';
const urlOf = (request: RecordedRequest): string => `http://${field(request, 'host').join()}${request.url.split('?')[0]}`;
const jsonType = 'Content-Type: application/json\r\n';

const rows: { readonly [K in Written]: Row } = {
  bearer: {
    placement: { kind: 'bearer' },
    value: secret,
    headers: 'AUTHORIZATION: Bearer theirs\r\nauthorization: theirs\r\n',
    placed: (request) => field(request, 'authorization'),
    wanted: [`Bearer ${secret}`],
    isSecretSent: true,
  },
  basic: {
    placement: { kind: 'basic', username: 'outrider' },
    value: secret,
    headers: 'Authorization: Basic theirs\r\n',
    placed: (request) => field(request, 'authorization').map((value) => Buffer.from(value.slice(6), 'base64').toString()),
    wanted: [`outrider:${secret}`],
    isSecretSent: true,
  },
  header: {
    placement: { kind: 'header', name: 'X-Api-Key', template: 'Key {credential}' },
    value: secret,
    headers: 'X-API-KEY: theirs\r\nx_api_key: theirs\r\n',
    placed: (request) => field(request, 'x-api-key'),
    wanted: [`Key ${secret}`],
    isSecretSent: true,
  },
  query: {
    placement: { kind: 'query', name: 'api_key' },
    value: secret,
    target: '/v1/things?api_key=theirs&page=2&API%5fKEY=theirs',
    placed: ({ url }) => url,
    wanted: `/v1/things?page=2&api_key=${secret}`,
    isSecretSent: true,
  },
  cookie: {
    placement: { kind: 'cookie', name: 'session' },
    value: secret,
    headers: 'Cookie: theme=dark; SESSION=theirs\r\ncookie: session=theirs; lang=de\r\n',
    placed: (request) => field(request, 'cookie'),
    wanted: [`session=${secret}; theme=dark; lang=de`],
    isSecretSent: true,
  },
  path_segment: {
    placement: { kind: 'path_segment', segment: 2, template: '{credential}' },
    value: secret,
    placed: ({ url }) => url,
    wanted: `/v1/${secret}/list?page=2`,
    isSecretSent: true,
  },
  body_field: {
    placement: { kind: 'body_field', format: 'json', field: '/auth/key' },
    value: secret,
    headers: jsonType,
    body: '{ "n": 1.0, "auth": {"key" : "theirs"} }',
    placed: ({ body }) => body,
    wanted: `{ "n": 1.0, "auth": {"key" : "${secret}"} }`,
    isSecretSent: true,
  },
  hmac: {
    placement: {
      kind: 'hmac',
      algorithm: 'sha256',
      message: '{method} {host} {path} {query} {timestamp} {body}',
      encoding: 'hex',
      name: 'X-Signature',
      template: 'v1={signature}',
      timestampName: 'X-Time',
      nonceName: '',
    },
    value: secret,
    headers: 'X-Signature: theirs\r\nx_time: theirs\r\n',
    // Over what has arrived: the parts are signed as they are sent.
    placed: (request) => {
      const [path, query] = request.url.split('?');
      const time = field(request, 'x-time').join();
      const message = [request.method, field(request, 'host').join(), path, query, time, request.body].join(' ');
      return field(request, 'x-signature').join() === `v1=${createHmac('sha256', secret).update(message).digest('hex')}`;
    },
    wanted: true,
    isSecretSent: false,
  },
  aws_sigv4: {
    placement: { kind: 'aws_sigv4', algorithm: 'sigv4', service: 'execute-api', region: 'eu-west-1' },
    value: awsKeysText({ accessKeyId: 'EXAMPLE_ACCESS_KEY_1', secretAccessKey: secret, sessionToken: '', expiresAtMs: undefined }),
    placed: (request) =>
      /^AWS4-HMAC-SHA256 Credential=EXAMPLE_ACCESS_KEY_1\/\d{8}\/eu-west-1\/execute-api\//.test(field(request, 'authorization').join()),
    wanted: true,
    isSecretSent: false,
  },
  dpop: {
    placement: { kind: 'dpop' },
    value: boundTokenText({ accessToken: secret, privateKeyPem: mintedKey }),
    headers: 'Authorization: Bearer theirs\r\nDPOP: theirs\r\n',
    placed: (request) => {
      const [proof, ...others] = field(request, 'dpop').map((one) => decodeJwt(one));
      return [field(request, 'authorization'), others.length, proof?.['htm'] === request.method, proof?.['htu'] === urlOf(request)];
    },
    wanted: [[`DPoP ${secret}`], 0, true, true],
    isSecretSent: true,
  },
};

const authority = createTestAuthority();
const api = target('api');

const setUp = async (t: Test, credentials: readonly PlacedCredential[]) => {
  const origin = await startRecorder(authority.serverFor('api.outrider.test'));
  t.teardown(() => origin.close());
  const way = await startPath({
    dir: directoryOf(t),
    targets: [api],
    pins: [{ host: 'api.outrider.test', port: 80, address: '127.0.0.1', addressPort: origin.httpPort }],
    trustPem: authority.pem,
    grants: { get: () => grantOf(api, { credentials }) },
  });
  t.teardown(() => way.close());
  return { origin, way };
};

type Framing = 'length' | 'chunks' | 'none';

const requestOf = ({ target = path, headers = '', body = 'some body' }: Row, framing: Framing): string => {
  const chunked = `Transfer-Encoding: chunked\r\n\r\n3\r\n${body.slice(0, 3)}\r\n${(body.length - 3).toString(16)}\r\n${body.slice(3)}\r\n0\r\n\r\n`;
  const framed = { length: `Content-Length: ${body.length}\r\n\r\n${body}`, chunks: chunked, none: '\r\n' }[framing];
  const method = framing === 'none' ? 'GET' : 'POST';
  return `${method} http://api.outrider.test${target} HTTP/1.1\r\nHost: api.outrider.test\r\nX-Mine: 1\r\n${headers}${framed}`;
};

for (const [kind, row] of Object.entries(rows)) {
  for (const framing of ['length', 'chunks', 'none'] as const) {
    if (framing === 'none' && kind === 'body_field') continue;
    t.test(`${kind}: set in its place, what the program wrote there gone, the rest as it was (body: ${framing})`, async (t) => {
      const { origin, way } = await setUp(t, [credential(row.placement, row.value)]);
      const answer = await exchange(await dial(way.port), requestOf(row, framing), wholeResponse);
      t.match(answer, /^HTTP\/1\.1 200 /);
      t.equal(origin.requests.length, 1);
      const [request] = origin.requests as [RecordedRequest];
      t.strictSame(row.placed(request), row.wanted);
      if (kind !== 'path_segment' && kind !== 'query') t.equal(request.url, path);
      if (kind !== 'body_field') t.equal(request.body, framing === 'none' ? '' : 'some body');
      t.strictSame(field(request, 'x-mine'), ['1']);
      t.strictSame(field(request, 'host'), ['api.outrider.test']);
      const lengths = field(request, 'content-length');
      if (lengths.length > 0) t.equal(lengths.join(), String(request.body.length), 'the length is what was sent');
      const raw = origin.raw().join('');
      const theirs = kind === 'path_segment' ? raw : raw.replace(path, '');
      t.notMatch(theirs, 'theirs');
      if (!row.isSecretSent) t.notMatch(raw, secret, 'a key that signs stays here');
    });
  }

  t.test(`${kind}: no event, log line or metric has the credential, and the event has what was judged`, async (t) => {
    const { way } = await setUp(t, [credential(row.placement, row.value)]);
    await exchange(await dial(way.port), requestOf(row, 'length'), wholeResponse);
    const told = JSON.stringify(way.events) + way.logs.join('\n') + (await way.metrics());
    t.notMatch(told, secret);
    t.notMatch(told, Buffer.from(`outrider:${secret}`).toString('base64'));
    t.strictSame(
      way.events.map(({ kind: event, path: judged, credentials: [used] }) => [event, judged, used?.placement]),
      ['intent', 'outcome'].map((event) => [event, (row.target ?? path).split('?')[0], kind]),
    );
  });

  t.test(`${kind}: a credential that could end its place early, or that is none, is refused before anything is sent`, async (t) => {
    const values = ['', ...['\r\nX-Injected: 1', '\n', '\0'].map((end) => `canary${end}`)];
    for (const value of values) {
      // Any text is a key, and none of it is sent.
      if (kind === 'hmac' && value !== '') continue;
      const { origin, way } = await setUp(t, [credential(row.placement, value)]);
      t.match(await exchange(await dial(way.port), requestOf(row, 'length'), wholeResponse), 'credential_invalid', JSON.stringify(value));
      t.equal(origin.raw().join(''), '');
      t.notMatch(way.logs.join(), 'canary');
    }
  });

  t.test(`${kind}: comes over the wire as it went, and its value only in its form`, async (t) => {
    const grant = grantOf(api, { credentials: [credential(row.placement, row.value)] });
    const [read] = readGrant(grantBytes(grant)).credentials;
    t.strictSame(read?.placement, row.placement);
    t.equal(read?.value.reveal(), row.value);
    const isAnyText = formOf(row.placement) === 'text';
    const wrong = grantBytes({ ...grant, credentials: [credential(row.placement, 'just text')] });
    if (isAnyText) t.equal(readGrant(wrong).credentials[0]?.value.reveal(), 'just text');
    else t.throws(() => readGrant(wrong), { code: 'credential_invalid' });
  });
}

t.test('a trailer of the name of a field that is written, or of one that signs, does not arrive', async (t) => {
  const twins: Readonly<Partial<Record<Written, readonly string[]>>> = {
    bearer: ['Authorization'],
    header: ['X-Api-Key', 'x_api_key'],
    cookie: ['Cookie'],
    hmac: ['X-Signature', 'x_signature', 'X-Time'],
    aws_sigv4: ['Authorization', 'X-Amz-Date'],
    dpop: ['DPoP', 'Authorization'],
  };
  for (const [kind, names] of Object.entries(twins)) {
    const row = rows[kind as Written];
    const { origin, way } = await setUp(t, [credential(row.placement, row.value)]);
    const trailers = names.map((name) => `${name}: twin\r\n`).join('');
    const request = requestOf(row, 'chunks').replace(/0\r\n\r\n$/, `0\r\nX-Sum: kept\r\n${trailers}\r\n`);
    t.match(await exchange(await dial(way.port), request, wholeResponse), /^HTTP\/1\.1 200 /, kind);
    const raw = origin.raw().join('');
    t.notMatch(raw, 'twin', kind);
    // What holds a body whole may announce its length, and then there are no trailers.
    if (/transfer-encoding: chunked/i.test(raw)) t.match(raw, 'X-Sum: kept', `${kind}: other trailers do`);
    t.equal(origin.requests.length, 1);
  }
});

t.test('a body that is too large to be held is refused before anything is sent', async (t) => {
  const { origin, way } = await setUp(t, [credential(rows.body_field.placement, secret)]);
  const body = `{"x":"${'x'.repeat(limits.heldBodyBytesMax)}"}`;
  const answer = await exchange(await dial(way.port), requestOf({ ...rows.body_field, body }, 'length'), wholeResponse);
  t.match(answer, /^HTTP\/1\.1 413 [^]*body_too_large/);
  t.equal(origin.raw().join(''), '');
});

t.test('all that write in different places, and a signature over them, stand in one request', async (t) => {
  const together = ['bearer', 'header', 'query', 'cookie', 'path_segment', 'body_field', 'hmac'] as const;
  const { origin, way } = await setUp(
    t,
    together.toReversed().map((kind) => credential(rows[kind].placement, rows[kind].value)),
  );
  const { headers = '', body = '' } = rows.body_field;
  const asked: Row = {
    ...rows.body_field,
    target: `${path}&api_key=theirs`,
    headers: `Cookie: theme=dark; session=theirs; lang=de\r\n${headers}`,
    body,
  };
  t.match(await exchange(await dial(way.port), requestOf(asked, 'length'), wholeResponse), /^HTTP\/1\.1 200 /);
  const [request] = origin.requests as [RecordedRequest];
  for (const kind of ['bearer', 'header', 'cookie', 'body_field', 'hmac'] as const)
    t.strictSame(rows[kind].placed(request), rows[kind].wanted, kind);
  t.equal(request.url, `/v1/${secret}/list?page=2&api_key=${secret}`);
});

/** Placeholders: shown where the credential goes, or refused; and never sent, wherever else they stand. */
import { generateKeyPairSync } from 'node:crypto';
import t, { type Test } from 'tap';
import { boundTokenText } from '../../src/core/bound-token.ts';
import type { Placement } from '../../src/core/grant.ts';
import type { HeaderList } from '../../src/core/headers.ts';
import { requirePlaceholder } from '../../src/proxy/inject/placeholder.ts';
import type { Draft } from '../../src/proxy/inject.ts';
import { field, startRecorder } from '../fakes/recorder.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { directoryOf } from '../support/directory.ts';
import { type Asked, asking, credential, injected, refusal, textOf } from '../support/injection.ts';
import { dial, exchange, grantOf, startPath, target, wholeResponse } from '../support/path.ts';

const mark = 'OUTRIDER-placeholder_1';
const base64 = (text: string): string => Buffer.from(text).toString('base64');

interface Row {
  readonly placement: Placement;
  readonly value?: string;
  /** The program's request with this text in the place of the credential. */
  readonly asked: (shown: string) => Asked;
  /** Other ways of showing it. */
  readonly also?: readonly Asked[];
  /** What stands there, and is not it. */
  readonly not: readonly Asked[];
}

const header = (name: string, ...values: readonly string[]): Asked => ({ headers: values.map((value) => [name, value]) });
const json = (body: string): Asked => ({ method: 'POST', body, headers: [['content-type', 'application/json']] });
const form = (body: string): Asked => ({ method: 'POST', body, headers: [['content-type', 'application/x-www-form-urlencoded']] });
const boundToken = boundTokenText({
  accessToken: 'the-credential',
  privateKeyPem: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
});

const rows: { readonly [K in Exclude<Placement['kind'], 'aws_sigv4' | 'client_certificate'>]: Row } = {
  bearer: {
    placement: { kind: 'bearer' },
    asked: (shown) => header('Authorization', `Bearer ${shown}`),
    also: [header('AUTHORIZATION', `bearer  ${mark}`)],
    not: [
      header('Authorization', mark),
      header('Authorization', `Basic ${mark}`),
      header('Authorization', `Bearer ${mark}`, 'Bearer other'),
      header('X-Token', mark),
    ],
  },
  basic: {
    placement: { kind: 'basic', username: 'outrider' },
    asked: (shown) => header('Authorization', `Basic ${base64(`me:${shown}`)}`),
    also: [header('authorization', `basic ${base64(`:${mark}`)}`)],
    not: [header('Authorization', `Basic ${base64(`${mark}:x`)}`), header('Authorization', `Bearer ${mark}`)],
  },
  header: {
    placement: { kind: 'header', name: 'X-Api-Key', template: 'Key {credential}' },
    asked: (shown) => header('x-api-key', `Key ${shown}`),
    also: [header('X_API_KEY', `Key ${mark}`)],
    not: [header('X-Api-Key', mark), header('X-Api-Key', `Key ${mark}`, `Key ${mark}`), header('X-Api', `Key ${mark}`)],
  },
  query: {
    placement: { kind: 'query', name: 'api_key' },
    asked: (shown) => ({ query: `?a=1&api_key=${shown}` }),
    also: [{ query: `?API%5Fkey=${mark.replace('O', '%4F')}` }],
    not: [{ query: `?key=${mark}` }, { query: `?api_key=${mark}&api_key=x` }, { query: `?api_key=x${mark}` }],
  },
  cookie: {
    placement: { kind: 'cookie', name: 'session' },
    asked: (shown) => header('Cookie', `a=1; session=${shown}`),
    also: [header('cookie', `session=${mark}; b=2`)],
    not: [header('Cookie', `other=${mark}`), header('Cookie', `session=${mark}; Session=x`)],
  },
  path_segment: {
    placement: { kind: 'path_segment', segment: 1, template: 'bot{credential}' },
    asked: (shown) => ({ path: `/bot${shown}/send` }),
    not: [{ path: `/bot${mark}x/send` }],
  },
  body_field: {
    placement: { kind: 'body_field', format: 'json', field: '/auth/key' },
    asked: (shown) => json(`{"auth":{"key":"${shown}"}}`),
    also: [json(`{"auth":{"key":"\\u004f${mark.slice(1)}"}}`)],
    not: [json('{"auth":{}}'), json(`{"auth":{"key":["${mark}"]}}`), json(`{"auth":{"key":"x"},"key":"${mark}"}`)],
  },
  hmac: {
    placement: {
      kind: 'hmac',
      algorithm: 'sha256',
      message: '{path}',
      encoding: 'hex',
      name: 'X-Signature',
      template: 'v1={signature}',
      timestampName: '',
      nonceName: '',
    },
    asked: (shown) => header('X-Signature', shown),
    also: [header('x_signature', `v1=${mark}`)],
    not: [header('X-Signature', 'v1=0123'), header('X-Sig', mark)],
  },
  dpop: {
    placement: { kind: 'dpop' },
    value: boundToken,
    asked: (shown) => header('Authorization', `DPoP ${shown}`),
    also: [header('Authorization', `Bearer ${mark}`)],
    not: [header('DPoP', mark), header('Authorization', `Token ${mark}`)],
  },
};

const inForm: Row = {
  placement: { kind: 'body_field', format: 'form', field: 'client_secret' },
  asked: (shown) => form(`a=1&client_secret=${shown}`),
  also: [form(`client%5Fsecret=${mark}`)],
  not: [form('a=1'), form(`client_secret=${mark}&client_secret=x`), form(`secret=${mark}`)],
};

const withMark = (asked: Asked): Asked => ({ ...asked, target: { placeholder: mark } });
const grant = ({ placement, value = 'the-credential' }: Row) => [credential(placement, value)];

/** Everything of a request that would be sent. */
const wire = async (asked: Asked, row: Row): Promise<string> => {
  const { method, path, headers, body } = injected(asked, grant(row));
  return JSON.stringify([method, path, headers, await textOf(body)]);
};

const misplaced: Record<string, (asked: Asked) => Asked> = {
  'a header': (asked) => ({ ...asked, headers: [...(asked.headers ?? []), ['X-Other', `a ${mark}`]] }),
  'a header in capitals': (asked) => ({ ...asked, headers: [...(asked.headers ?? []), ['X-Other', mark.toUpperCase()]] }),
  'a header in base64': (asked) => ({ ...asked, headers: [...(asked.headers ?? []), ['X-Other', base64(`a:${mark}:b`)]] }),
  'the name of a header': (asked) => ({ ...asked, headers: [...(asked.headers ?? []), [`x-${mark}`, '1']] }),
  'another cookie': (asked) => ({ ...asked, headers: [...(asked.headers ?? []), ['cookie', `other=${mark}`]] }),
  'the query': (asked) => ({ ...asked, query: `${asked.query ?? '?'}&other=${mark}` }),
  'the query, percent-encoded': (asked) => ({ ...asked, query: `${asked.query ?? '?'}&other=%4f${mark.slice(1)}` }),
  'the path': (asked) => ({ ...asked, path: `${asked.path ?? '/v1'}/${mark}` }),
};

for (const [name, row] of [...Object.entries(rows), ['body_field (form)', inForm] as const]) {
  t.test(`${name}: the placeholder in its place is replaced and goes nowhere`, async (t) => {
    for (const asked of [row.asked(mark), ...(row.also ?? [])]) {
      const sent = await wire(withMark(asked), row);
      t.notMatch(sent.toLowerCase(), mark.toLowerCase(), JSON.stringify(asked));
      t.notMatch(sent, base64(`me:${mark}`).slice(4, 20));
      if (name !== 'hmac' && name !== 'basic') t.match(sent, 'the-credential');
    }
  });

  t.test(`${name}: without it the request is refused`, async (t) => {
    for (const asked of [row.asked('a-credential-of-its-own'), row.asked(mark.toLowerCase()), ...row.not])
      t.equal(
        refusal(() => injected(withMark(asked), grant(row))),
        'placeholder_missing',
        JSON.stringify(asked),
      );
  });

  for (const [where, add] of Object.entries(misplaced)) {
    t.test(`${name}: in ${where} besides, nothing is sent`, async (t) => {
      t.equal(
        refusal(() => injected(withMark(add(row.asked(mark))), grant(row))),
        'placeholder_misplaced',
      );
    });
  }

  t.test(`${name}: a target without a placeholder asks for none and minds none`, async (t) => {
    for (const add of Object.values(misplaced))
      t.equal(
        refusal(() => injected(add(row.asked('x')), grant(row))),
        'none',
      );
  });
}

t.test('a body that is held is searched before anything is sent, its trailers too', async (t) => {
  const { body_field: row } = rows;
  const asked = (body: string, trailers: HeaderList = []): Asked => ({ ...withMark(json(body)), trailers });
  const sound = `{"auth":{"key":"${mark}"}}`;
  t.equal(
    refusal(() => injected(asked(sound), grant(row))),
    'none',
  );
  for (const other of [mark, mark.toLowerCase(), `\\u004f${mark.slice(1)}`, base64(`x${mark}`)])
    t.equal(
      refusal(() => injected(asked(`{"other":"${other}",${sound.slice(1)}`), grant(row))),
      'placeholder_misplaced',
      other,
    );
  t.equal(
    refusal(() => injected(asked(sound, [['x-sum', mark]]), grant(row))),
    'placeholder_misplaced',
  );
});

t.test('AWS: the access key id is the placeholder, in the header or in the query', async (t) => {
  const aws: Placement = { kind: 'aws_sigv4', algorithm: 'sigv4', service: '', region: '' };
  const asks = (asked: Asked): string => {
    const { headers, path, method, destination, grant, route } = asking(withMark(asked), credential(aws, 'x'));
    const draft: Draft = { method, destination, path: path.path, query: path.query, headers, body: undefined };
    return refusal(() => route.kind === 'target' && requirePlaceholder(draft, grant, route.target));
  };
  const signed = (id: string): string =>
    `AWS4-HMAC-SHA256 Credential=${id}/20261122/eu-west-1/s3/aws4_request, SignedHeaders=host, Signature=00`;
  t.equal(asks(header('Authorization', signed(mark))), 'none');
  t.equal(asks({ query: `?X-Amz-Credential=${mark}%2F20261122%2Feu-west-1%2Fs3%2Faws4_request` }), 'none');
  t.equal(asks(header('Authorization', signed('EXAMPLE_ACCESS_KEY_1'))), 'placeholder_missing');
  t.equal(asks(header('Authorization', signed(`${mark}x`))), 'placeholder_missing');
  t.equal(asks({}), 'placeholder_missing');
  t.equal(asks({ ...header('Authorization', signed(mark)), query: '?X-Amz-Credential=OTHER%2F1' }), 'placeholder_missing');
});

t.test('of two credentials each place must show it', async (t) => {
  const two = [credential({ kind: 'bearer' }, 'one'), credential({ kind: 'header', name: 'X-Key', template: '{credential}' }, 'two')];
  const asked = (...headers: HeaderList): Asked => withMark({ headers });
  t.equal(
    refusal(() => injected(asked(['authorization', `Bearer ${mark}`], ['x-key', mark]), two)),
    'none',
  );
  t.equal(
    refusal(() => injected(asked(['authorization', `Bearer ${mark}`]), two)),
    'placeholder_missing',
  );
  t.equal(
    refusal(() => injected(asked(['x-key', mark]), two)),
    'placeholder_missing',
  );
});

// Over sockets ------------------------------------------------------------------------------------------------------

const authority = createTestAuthority();
const guarded = target('echo', { placeholder: mark });

const setUp = async (t: Test, placement: Placement = { kind: 'bearer' }) => {
  const origin = await startRecorder(authority.serverFor('echo.outrider.test'));
  t.teardown(() => origin.close());
  const path = await startPath({
    dir: directoryOf(t),
    targets: [guarded],
    pins: [{ host: 'echo.outrider.test', port: 80, address: '127.0.0.1', addressPort: origin.httpPort }],
    trustPem: authority.pem,
    grants: { get: () => grantOf(guarded, { credentials: [credential(placement, 'the-credential')] }) },
  });
  t.teardown(() => path.close());
  const send = async (head: string, body = '', target = '/upload'): Promise<string> =>
    exchange(
      await dial(path.port),
      `POST http://echo.outrider.test${target} HTTP/1.1\r\nHost: echo.outrider.test\r\n${head}\r\n${body}`,
      wholeResponse,
    );
  return { origin, path, send };
};

const authorization = `Authorization: Bearer ${mark}\r\n`;
const chunked = (...chunks: readonly string[]): string =>
  `${chunks.map((chunk) => `${chunk.length.toString(16)}\r\n${chunk}\r\n`).join('')}0\r\n`;

t.test('a streamed body that holds it is broken off before the target has all of it, across chunks too', async (t) => {
  const bodies: Record<string, [string, string]> = {
    'in one chunk': ['Transfer-Encoding: chunked\r\n', `${chunked(`before ${mark} after`)}\r\n`],
    'across chunks': ['Transfer-Encoding: chunked\r\n', `${chunked('before ', mark.slice(0, 9), mark.slice(9), ' after')}\r\n`],
    'at the very end': ['Transfer-Encoding: chunked\r\n', `${chunked('before ', mark)}\r\n`],
    'in base64': ['Transfer-Encoding: chunked\r\n', `${chunked(base64(`me:${mark}`))}\r\n`],
    'with a length': [`Content-Length: ${mark.length}\r\n`, mark],
    'in the trailers': ['Transfer-Encoding: chunked\r\n', `${chunked('sound')}X-Sum: ${mark}\r\n\r\n`],
  };
  for (const [name, [head, body]] of Object.entries(bodies)) {
    const { origin, path, send } = await setUp(t);
    const answer = await send(authorization + head, body);
    t.match(answer, /^HTTP\/1\.1 400 /, name);
    t.match(answer, 'placeholder_misplaced', name);
    const raw = origin.raw().join('');
    t.notMatch(raw, mark, `${name}: the target never has it`);
    t.notMatch(raw, /\r\n0\r\n\r\n$/, `${name}: nor a body that looks whole`);
    t.equal(path.events.at(-1)?.outcome?.fault, 'placeholder_misplaced', name);
  }
});

t.test('a body without it arrives byte for byte, also when it ends in the beginning of one', async (t) => {
  const { origin, send } = await setUp(t);
  const body = `${mark.slice(0, -1)} ${'x'.repeat(70_000)} ${mark.slice(0, 12)}`;
  const answer = await send(`${authorization}Content-Length: ${body.length}\r\n`, body);
  t.match(answer, /^HTTP\/1\.1 200 /);
  t.equal(origin.requests[0]?.body, body);
  t.strictSame(field(origin.requests[0] as never, 'authorization'), ['Bearer the-credential']);
});

t.test('what is sound arrives with its trailers', async (t) => {
  const { origin, send } = await setUp(t);
  t.match(await send(`${authorization}Transfer-Encoding: chunked\r\n`, `${chunked('one ', 'two')}X-Sum: 7\r\n\r\n`), /^HTTP\/1\.1 200 /);
  t.equal(origin.requests[0]?.body, 'one two');
  t.match(origin.raw().join(''), /\r\n0\r\nX-Sum: 7\r\n\r\n$/i);
});

t.test('what is refused beforehand was never intended: the event is a refusal without credentials', async (t) => {
  const { origin, path, send } = await setUp(t);
  t.match(await send('Content-Length: 0\r\n'), 'placeholder_missing');
  t.match(await send(`${authorization}X-Copy: ${mark}\r\nContent-Length: 0\r\n`), 'placeholder_misplaced');
  t.equal(origin.requests.length, 0);
  t.strictSame(
    path.events.map(({ kind, outcome, credentials }) => [kind, outcome?.fault, credentials.length]),
    [
      ['refusal', 'placeholder_missing', 0],
      ['refusal', 'placeholder_misplaced', 0],
    ],
  );
});

t.test('a credential in the path is in no event and in no line of the log', async (t) => {
  const { origin, path, send } = await setUp(t, { kind: 'path_segment', segment: 1, template: 'bot{credential}' });
  t.match(await send('Content-Length: 0\r\n', '', `/bot${mark}/send`), /^HTTP\/1\.1 200 /);
  t.equal(origin.requests[0]?.url, '/botthe-credential/send');
  t.equal(path.events.length, 2);
  t.notMatch(JSON.stringify(path.events) + path.logs.join() + (await path.metrics()), 'the-credential');
  t.equal(path.events[0]?.path, `/bot${mark}/send`, 'the event has the path as it was judged');
});

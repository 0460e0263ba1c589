import { generateKeyPairSync } from 'node:crypto';
import { createServer as createHttp2Server } from 'node:http2';
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import t, { type Test } from 'tap';
import { boundTokenText } from '../../src/core/bound-token.ts';
import { Fault } from '../../src/core/fault.ts';
import type { Grant } from '../../src/core/grant.ts';
import { limits } from '../../src/core/limits.ts';
import { Secret } from '../../src/core/secret.ts';
import { systemClock } from '../../src/ops/clock.ts';
import { createGrantCache } from '../../src/proxy/grant/cache.ts';
import type { GrantSource } from '../../src/proxy/grant.ts';
import {
  between,
  type Conversation,
  h2Over,
  host,
  httpTarget,
  outcomeOf,
  program,
  rawTarget,
  talk,
  tunnel,
  until,
} from '../support/between.ts';
import { allowAll, bearer, grantOf, type PathOptions, target } from '../support/path.ts';

t.setTimeout(60_000);

/** A target whose credentials change under the proxy's feet. */
interface Broker {
  /** What the n-th grant is; throws to refuse. */
  readonly grant?: (call: number, rejectedGrantId: string | undefined) => Grant | Promise<Grant>;
}

const grantNumber = (call: number, rest: Partial<Grant> = {}): Grant =>
  grantOf(target('echo'), { id: `g${call}`, credentials: [{ ...bearer(`credential-number-${call}`), fingerprint: `f${call}` }], ...rest });

const brokerOf = ({ grant = (call) => grantNumber(call) }: Broker = {}) => {
  const calls: (string | undefined)[] = [];
  const grants: GrantSource = createGrantCache({
    fetch: async (_key, rejected) => {
      calls.push(rejected);
      return grant(calls.length, rejected);
    },
    clock: systemClock,
    random: () => 0.5,
  });
  return { calls, grants };
};

interface Seen {
  readonly authorization: string | undefined;
  readonly body: string;
  readonly trailers: NodeJS.Dict<string>;
}

/** Reads each request whole, and answers by `accepts` with what came or 401. */
const origin = (accepts: (authorization: string | undefined) => boolean) => {
  const seen: Seen[] = [];
  const answer: RequestListener = (request: IncomingMessage, response: ServerResponse) => {
    let body = '';
    request.setEncoding('latin1');
    request.on('data', (chunk: string) => (body += chunk));
    request.on('end', () => {
      const { authorization } = request.headers;
      seen.push({ authorization, body, trailers: request.trailers });
      if (accepts(authorization)) response.end(`welcome ${body.length}`);
      else response.writeHead(401, { 'www-authenticate': 'Bearer error="invalid_token"', 'x-from': 'target' }).end('who are you?');
    });
  };
  return { seen, answer };
};

const accepting =
  (...numbers: readonly number[]) =>
  (authorization: string | undefined): boolean =>
    numbers.some((one) => authorization === `Bearer credential-number-${one}`);

const setUp = async (
  t: Test,
  accepts: (authorization: string | undefined) => boolean,
  broker: Broker = {},
  rest: Partial<PathOptions> = {},
) => {
  const { seen, answer } = origin(accepts);
  const { calls, grants } = brokerOf(broker);
  const { path } = await between(t, httpTarget(answer), { grants, ...rest });
  return { seen, calls, path };
};

const head = (method: string, fields = ''): string =>
  `${method} http://${host}/a HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n${fields}\r\n`;

const ask = async (path: { port: number } & Parameters<typeof program>[0], ...parts: string[]): Promise<string> => {
  const client = await program(path);
  for (const part of parts) client.say(part);
  await client.end;
  return client.text();
};

const attempts = (path: { events: readonly { kind: string; attempt: number; outcome: unknown; grantId: string }[] }): unknown[] =>
  path.events.map(({ kind, attempt, grantId, outcome }) => [kind, attempt, grantId, (outcome as { status: number } | undefined)?.status]);

t.test('a credential that was changed at the target is renewed, and the program sees no 401', async (t) => {
  const { seen, calls, path } = await setUp(t, accepting(2));
  const text = await ask(path, head('GET'));
  t.match(text, /^HTTP\/1\.1 200 OK\r\n[^]*welcome 0/);
  t.notMatch(text, /who are you/);
  t.same(
    seen.map(({ authorization }) => authorization),
    ['Bearer credential-number-1', 'Bearer credential-number-2'],
  );
  t.same(calls, [undefined, 'g1']);
  await outcomeOf(path, 2);
  t.same(attempts(path), [
    ['intent', 1, 'g1', undefined],
    ['outcome', 1, 'g1', 401],
    ['intent', 2, 'g2', undefined],
    ['outcome', 2, 'g2', 200],
  ]);
  t.equal(new Set(path.events.map(({ requestId }) => requestId)).size, 1);
  t.match(await ask(path, head('GET')), /^HTTP\/1\.1 200 /);
  t.equal(seen.length, 3, 'the next request goes with the new one at once');
  t.match(await path.metrics(), /outrider_proxy_credential_retries_total\{target="echo",result="accepted"\} 1/);
});

t.test('the intent of the second attempt is recorded before its first byte', async (t) => {
  const { seen, answer } = origin(accepting(2));
  const order: string[] = [];
  const { grants } = brokerOf();
  const { path } = await between(
    t,
    httpTarget((request, response) => {
      order.push('request');
      answer(request, response);
    }),
    { grants, onIntent: ({ attempt }) => order.push(`intent ${attempt}`) },
  );
  await ask(path, head('GET'));
  t.same(order, ['intent 1', 'request', 'intent 2', 'request']);
  t.equal(seen.length, 2);
});

t.test('a target that always says 401 is asked twice at most, and its own answer is what the program sees', async (t) => {
  const { seen, calls, path } = await setUp(t, () => false);
  const first = await ask(path, head('GET'));
  t.match(first, /^HTTP\/1\.1 401 Unauthorized\r\n[^]*x-from: target\r\n[^]*who are you\?/);
  t.equal(seen.length, 2);
  for (let i = 0; i < 20; i += 1) t.match(await ask(path, head('GET')), /^HTTP\/1\.1 401 [^]*who are you\?/);
  t.equal(seen.length, 22, 'afterwards once for each request');
  t.equal(calls.length, 2, 'and the broker is left alone');
  const text = await path.metrics();
  t.match(text, /credential_retries_total\{target="echo",result="rejected"\} 1/);
  t.match(text, /credential_retries_total\{target="echo",result="unchanged"\} 20/);
});

t.test('a grant with the same credential is not tried', async (t) => {
  const { seen, path } = await setUp(t, () => false, { grant: () => grantNumber(1) });
  t.match(await ask(path, head('GET')), /^HTTP\/1\.1 401 [^]*who are you\?/);
  t.equal(seen.length, 1);
  t.same(
    path.events.map(({ kind }) => kind),
    ['intent', 'outcome'],
  );
});

t.test('bodies up to the bound are sent again byte for byte, longer ones are not kept', async (t) => {
  const sizes: [number, boolean][] = [
    [0, true],
    [1, true],
    [limits.replayBodyBytesMax, true],
    [limits.replayBodyBytesMax + 1, false],
    [1024 * 1024, false],
  ];
  for (const framing of ['length', 'chunked'] as const) {
    for (const [size, isRepeated] of sizes) {
      const { seen, path } = await setUp(t, accepting(2));
      const body = Array.from({ length: size }, (_, i) => String.fromCharCode(33 + ((i * 7) % 90))).join('');
      const chunks = (body.match(/[^]{1,10000}/g) ?? []).map((chunk) => `${chunk.length.toString(16)}\r\n${chunk}\r\n`).join('');
      const text =
        framing === 'length'
          ? await ask(path, head('POST', `Content-Length: ${size}\r\n`), body)
          : await ask(path, head('POST', 'Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n'), `${chunks}0\r\nX-Sum: 7\r\n\r\n`);
      t.match(
        text,
        isRepeated ? new RegExp(`^HTTP/1\\.1 200 [^]*welcome ${size}`) : /^HTTP\/1\.1 401 [^]*who are you/,
        `${framing} ${size}`,
      );
      t.equal(seen.length, isRepeated ? 2 : 1);
      t.ok(
        seen.every((one) => one.body === body),
        'the same bytes',
      );
      if (framing === 'chunked' && isRepeated) t.match(seen[1]?.trailers, { 'x-sum': '7' });
      const outcome = await outcomeOf(path, isRepeated ? 2 : 1);
      t.equal(outcome.outcome?.requestBodyBytes, size);
      if (!isRepeated) t.match(await path.metrics(), /credential_retries_total\{target="echo",result="unrepeatable"\} 1/);
    }
  }
});

t.test('a 401 before the whole body came is not repeated, and nobody waits for the rest', async (t) => {
  const server = rawTarget(async (target) => {
    await target.until(/hel$/);
    target.say('HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\nConnection: close\r\n\r\nearly');
  });
  const { calls, grants } = brokerOf();
  const { path } = await between(t, server, { grants });
  const client = await program(path);
  client.say(`${head('POST', 'Content-Length: 5\r\n')}hel`);
  await client.until(/^HTTP\/1\.1 401 [^]*early$/);
  t.equal(calls.length, 1);
  client.socket.destroy();
});

t.test('a body that waits for 100 is not sent to a target that says 401 instead', async (t) => {
  const server = rawTarget(async (target) => {
    await target.until(/\r\n\r\n$/);
    target.say('HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno');
  });
  const { calls, grants } = brokerOf();
  const { path } = await between(t, server, { grants });
  const client = await program(path);
  client.say(head('POST', 'Content-Length: 5\r\nExpect: 100-continue\r\n'));
  await client.until(/^HTTP\/1\.1 401 [^]*no$/);
  t.equal(calls.length, 1);
  client.socket.destroy();
});

t.test('an upgrade is never tried again', async (t) => {
  const { seen, calls, path } = await setUp(t, () => false);
  const text = await ask(path, `GET http://${host}/ HTTP/1.1\r\nHost: ${host}\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n`);
  t.match(text, /^HTTP\/1\.1 401 /);
  t.same([seen.length, calls.length], [1, 1]);
});

t.test('when the broker cannot be reached the 401 is what the program gets, whole', async (t) => {
  const { seen, path } = await setUp(t, () => false, {
    grant: (call) => {
      if (call > 1) throw new Fault('broker_unavailable');
      return grantNumber(call);
    },
  });
  t.match(await ask(path, head('GET')), /^HTTP\/1\.1 401 Unauthorized\r\n[^]*x-from: target[^]*who are you\?/);
  t.equal(seen.length, 1);
  t.match((await outcomeOf(path)).outcome, { status: 401, fault: '' });
  t.match(await path.metrics(), /credential_retries_total\{target="echo",result="unavailable"\} 1/);
});

t.test('when the workload may not use the target any more, that is the answer', async (t) => {
  const decision = { verdict: 'deny' as const, policy: 'p', policyVersion: 'v2', rule: 'left', reason: 'gone' };
  const { seen, path } = await setUp(t, () => false, {
    grant: (call) => {
      if (call > 1) throw new Fault('policy_denied', { decision });
      return grantNumber(call);
    },
  });
  t.match(await ask(path, head('GET')), /^HTTP\/1\.1 403 [^]*"code":"policy_denied"[^]*"rule":"left"/);
  t.equal(seen.length, 1);
  await outcomeOf(path, 2);
  t.same(attempts(path), [
    ['intent', 1, 'g1', undefined],
    ['outcome', 1, 'g1', 401],
    ['refusal', 2, '', 403],
  ]);
});

t.test('the new grant is judged like the first', async (t) => {
  const denied = { ...allowAll, name: 'closed', effect: 'deny' as const, paths: ['/a'] };
  const { seen, path } = await setUp(t, () => false, { grant: (call) => grantNumber(call, call > 1 ? { rules: [denied, allowAll] } : {}) });
  t.match(await ask(path, head('GET')), /^HTTP\/1\.1 403 [^]*"rule":"closed"/);
  t.equal(seen.length, 1);
  await outcomeOf(path, 2);
  t.same(
    path.events.map(({ kind, attempt, credentials }) => [kind, attempt, credentials.length]),
    [
      ['intent', 1, 1],
      ['outcome', 1, 1],
      ['refusal', 2, 0],
    ],
  );
});

t.test('a thousand requests that are refused together make one renewal', async (t) => {
  const { seen, calls, path } = await setUp(t, accepting(2));
  const clients = await Promise.all(Array.from({ length: 50 }, () => program(path)));
  const one = `GET http://${host}/a HTTP/1.1\r\nHost: ${host}\r\n\r\n`;
  for (const client of clients) client.say(one.repeat(20));
  const welcomes = (text: string): number => text.split('welcome 0').length - 1;
  await until(() => clients.every((client) => welcomes(client.text()) === 20));
  t.notOk(clients.some((client) => client.text().includes(' 401 ')));
  t.equal(calls.length, 2);
  t.ok(seen.length <= 2_000);
  for (const client of clients) client.socket.destroy();
});

t.test('a program that leaves while the credential is renewed ends it, and nothing is sent again', async (t) => {
  const gates: (() => void)[] = [];
  let open = 0;
  const { seen, path } = await setUp(
    t,
    () => false,
    { grant: (call) => (call === 1 ? grantNumber(1) : new Promise((resolve) => gates.push(() => resolve(grantNumber(2))))) },
    { onConnections: (_kind, delta) => (open += delta) },
  );
  const client = await program(path);
  client.say(head('GET'));
  await until(() => gates.length > 0);
  client.socket.destroy();
  await until(() => open === 0);
  gates[0]?.();
  t.match((await outcomeOf(path)).outcome, { fault: 'client_closed' });
  t.equal(seen.length, 1);
});

t.test('a long 401 waits without being read whole, and then comes whole', async (t) => {
  const long = 'z'.repeat(8 * 1024 * 1024);
  let written = 0;
  const gates: (() => void)[] = [];
  const server = rawTarget(async (targetEnd) => {
    await targetEnd.until(/\r\n\r\n$/);
    targetEnd.say(`HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: ${long.length}\r\n\r\n`);
    for (let at = 0; at < long.length; at += 65_536) {
      if (!targetEnd.socket.write(long.slice(at, at + 65_536))) await new Promise((resolve) => targetEnd.socket.once('drain', resolve));
      written = at;
    }
  });
  const { grants } = brokerOf({
    grant: (call) => (call === 1 ? grantNumber(1) : new Promise((resolve) => gates.push(() => resolve(grantNumber(1))))),
  });
  const { path } = await between(t, server, { grants });
  const client = await program(path);
  client.say(head('GET'));
  await until(() => gates.length > 0);
  // It stands still when nothing has moved for a thousand turns.
  let [before, turns] = [-1, 0];
  await until(() => {
    turns = before === written ? turns + 1 : 0;
    before = written;
    return turns > 1_000;
  });
  t.ok(written < long.length - 65_536, `the target waits after ${written} bytes`);
  t.equal(client.text(), '');
  gates[0]?.();
  await client.end;
  t.equal(client.text().length - client.text().indexOf('\r\n\r\n') - 4, long.length);
});

t.test('the answer to the second attempt streams', async (t) => {
  let conversation: Conversation | undefined;
  const server = rawTarget(async (targetEnd) => {
    for (;;) {
      const text = await targetEnd.until(/\r\n\r\n$/);
      if (text.includes('number-2')) break;
      targetEnd.say('HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n');
      await targetEnd.until(/number-2[^]*\r\n\r\n$/);
    }
    conversation = targetEnd;
    targetEnd.say('HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n');
  });
  // A broker takes a moment; by then the whole 401 is here and its connection is free.
  const moment = (): Promise<void> => {
    let turns = 0;
    return until(() => (turns += 1) > 200);
  };
  const { grants } = brokerOf({ grant: (call) => moment().then(() => grantNumber(call)) });
  const { path, origin: opened } = await between(t, server, { grants });
  const client = await program(path);
  client.say(head('GET'));
  await client.until(/^HTTP\/1\.1 200 [^]*data: 1\n\n/);
  conversation?.say('data: 2\n\n');
  await client.until(/data: 2\n\n/);
  conversation?.socket.end();
  await client.end;
  t.equal(opened.accepted(), 1, 'on the connection of the first');
});

t.test('a nonce that the target asks for in proofs is given at once, without another credential, and remembered', async (t) => {
  const { privateKey } = generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  });
  const value = new Secret(boundTokenText({ accessToken: 'bound-token-of-the-test', privateKeyPem: privateKey }));
  const { calls, grants } = brokerOf({
    grant: (call) => grantNumber(call, { credentials: [{ ...bearer(''), placement: { kind: 'dpop' }, value, fingerprint: 'bound' }] }),
  });
  const nonces: (string | undefined)[] = [];
  let wanted = 'first';
  const server = httpTarget((request, response) => {
    const payload = String(request.headers['dpop']).split('.')[1] as string;
    const { nonce } = JSON.parse(Buffer.from(payload, 'base64url').toString()) as { nonce?: string };
    nonces.push(nonce);
    if (nonce === wanted) return void response.end('welcome');
    response.writeHead(401, { 'www-authenticate': 'DPoP error="use_dpop_nonce"', 'dpop-nonce': wanted }).end();
  });
  const { path } = await between(t, server, { grants });
  t.match(await ask(path, head('POST', 'Content-Length: 4\r\n'), 'body'), /^HTTP\/1\.1 200 /);
  t.match(await ask(path, head('GET')), /^HTTP\/1\.1 200 /);
  wanted = 'second';
  t.match(await ask(path, head('GET')), /^HTTP\/1\.1 200 /);
  t.same(nonces, [undefined, 'first', 'first', 'first', 'second']);
  t.equal(calls.length, 1, 'the broker has nothing to do with it');
  await outcomeOf(path, 5);
  t.same(
    path.events.filter(({ kind }) => kind === 'outcome').map(({ attempt, grantId }) => [attempt, grantId]),
    [
      [1, 'g1'],
      [2, 'g1'],
      [1, 'g1'],
      [1, 'g1'],
      [2, 'g1'],
    ],
  );
});

t.test('HTTP/2 at both ends: the body goes twice, the answer once', async (t) => {
  const seen: string[] = [];
  const server = createHttp2Server();
  server.on('stream', (stream, headers) => {
    let body = '';
    stream.setEncoding('latin1');
    stream.on('data', (chunk: string) => (body += chunk));
    stream.on('end', () => {
      seen.push(`${headers.authorization} ${body}`);
      stream.respond({ ':status': accepting(2)(headers.authorization) ? 200 : 401 });
      stream.end('answer');
    });
  });
  const { grants } = brokerOf();
  const { path } = await between(t, server, { grants, target: { protocol: 'h2' } });
  const session = h2Over(t, await tunnel(path, `${host}:80`));
  const stream = session.request({ ':path': '/', ':authority': host, ':scheme': 'http', ':method': 'POST' }, { endStream: false });
  let status: unknown;
  stream.on('response', (headers) => (status = headers[':status']));
  stream.write('one ');
  stream.end('two');
  stream.setEncoding('latin1');
  let text = '';
  for await (const chunk of stream) text += chunk as string;
  t.same([status, text], [200, 'answer']);
  t.same(seen, ['Bearer credential-number-1 one two', 'Bearer credential-number-2 one two']);
});

t.test('what was kept of bodies is given back, however the request ends', async (t) => {
  const { path } = await setUp(t, accepting(2));
  for (let i = 0; i < 3; i += 1) await ask(path, head('POST', 'Content-Length: 1000\r\n'), 'x'.repeat(1_000));
  const gone = talk((await program(path)).socket);
  gone.say(`${head('POST', 'Content-Length: 1000\r\n')}xx`);
  gone.socket.destroy();
  await until(() => path.buffers.used() === 0 && path.events.filter(({ kind }) => kind === 'outcome').length >= 4);
  t.equal(path.buffers.used(), 0);
});

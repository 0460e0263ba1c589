import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import t, { type Test } from 'tap';
import { limits } from '../../src/core/limits.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { directoryOf } from '../support/directory.ts';
import { dial, type Path, startPath, target } from '../support/path.ts';
import { parseRequests, parseResponses, type ResponseMessage } from './messages.ts';

/**
 * Targets that mean harm, script by script (THREATS F-7, F-10), and targets that break off after each byte (F-11). Whatever one sends, the
 * program sees exactly one sound answer, or a broken connection; and the next request is answered by its own answer.
 */
t.setTimeout(180_000);

const host = 'echo.outrider.test';
const authority = createTestAuthority();

type After = 'keep' | 'fin' | 'rst';

interface Hostile {
  readonly path: Path;
  /** What requests for a target get, once; others get `own <target>`. */
  readonly given: Map<string, { readonly bytes: string; readonly after: After }>;
  readonly open: () => number;
  /** What was asked, over all connections. */
  readonly asked: string[];
}

const startHostile = async (t: Test): Promise<Hostile> => {
  const sockets = new Set<Socket>();
  const asked: string[] = [];
  const given: Hostile['given'] = new Map();
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    let text = '';
    socket.on('error', () => undefined);
    socket.once('close', () => sockets.delete(socket));
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
      const { messages } = parseRequests(text);
      for (const { target: at, isComplete, end } of messages) {
        if (!isComplete) return;
        text = text.slice(end);
        asked.push(at);
        const one = given.get(at);
        given.delete(at);
        const body = `own ${at}`;
        socket.write(one?.bytes ?? `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`, 'latin1', () => {
          if (one?.after === 'fin') socket.end();
          if (one?.after === 'rst') socket.resetAndDestroy();
        });
      }
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const path = await startPath({
    dir: directoryOf(t),
    targets: [target('echo', { protocol: 'http1' })],
    pins: [{ host, port: 80, address: '127.0.0.1', addressPort: (server.address() as AddressInfo).port }],
    trustPem: authority.pem,
  });
  t.teardown(async () => {
    await path.close();
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { path, given, open: () => sockets.size, asked };
};

interface Answered {
  readonly messages: readonly ResponseMessage[];
  readonly problem: string | undefined;
  readonly isClosed: boolean;
}

/** Sends a request, and another one after it on the same connection; reads until both are answered, the connection ends, or all is quiet. */
const askTwice = async ({ path }: Hostile, method: string, isPatient: boolean): Promise<Answered> => {
  const socket = await dial(path.port);
  let text = '';
  let isClosed = false;
  const fields = `Host: ${host}\r\n${method === 'POST' ? 'Content-Length: 2\r\n\r\nhi' : '\r\n'}`;
  const parsed = () => parseResponses(text, [method, 'GET'], isClosed);
  await new Promise<void>((resolve) => {
    // An answer that has no end is none, and a program gives up on it.
    const timer = setTimeout(resolve, isPatient ? 10_000 : 150);
    const done = (): void => {
      clearTimeout(timer);
      resolve();
    };
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
      if (parsed().messages.filter(({ isComplete }) => isComplete).length >= 2) done();
    });
    socket.once('end', () => {
      isClosed = true;
      done();
    });
    socket.on('error', done);
    socket.once('close', done);
    socket.write(`${method} http://${host}/first HTTP/1.1\r\n${fields}GET http://${host}/second HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
  });
  socket.destroy();
  return { ...parsed(), isClosed };
};

const many = (count: number): string => Array.from({ length: count }, (_, i) => `X-${i}: y\r\n`).join('');
const ok = 'HTTP/1.1 200 OK\r\n';
const forged = `${ok}Content-Length: 6\r\n\r\nforged`;

interface Script {
  readonly bytes: string;
  readonly method?: string;
  readonly after?: After;
  /** What the program is answered; undefined for a broken or endless answer that is never whole. */
  readonly status: number | undefined;
  readonly body?: string;
}

const fault = { status: 502 } as const;
const never = { status: undefined } as const;
const scripts: Readonly<Record<string, Script>> = {
  'two answers at once': { bytes: `${ok}Content-Length: 2\r\n\r\nok${forged}`, status: 200, body: 'ok' },
  'an answer ahead of the next request': { bytes: `${ok}Content-Length: 0\r\n\r\n${forged}${forged}`, status: 200, body: '' },
  'bytes after a chunked body': { bytes: `${ok}Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n${forged}`, status: 200, body: 'ok' },
  'bytes after 204': { bytes: `HTTP/1.1 204 No Content\r\n\r\n${forged}`, status: 204 },
  '204 with a length and a body': { bytes: 'HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\nforged', status: 204 },
  '204 with chunks': { bytes: 'HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nforged\r\n0\r\n\r\n', status: 204 },
  '304 with a body': { bytes: 'HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\nforged', status: 304 },
  'a body after HEAD': { bytes: `${ok}Content-Length: 6\r\n\r\nforged`, method: 'HEAD', status: 200 },
  'an answer in the body after HEAD': { bytes: `${ok}Content-Length: ${forged.length}\r\n\r\n${forged}`, method: 'HEAD', status: 200 },
  'chunks after HEAD': { bytes: `${ok}Transfer-Encoding: chunked\r\n\r\n6\r\nforged\r\n0\r\n\r\n`, method: 'HEAD', status: 200 },
  'length and chunks': { bytes: `${ok}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${forged}`, ...fault },
  'chunks and length': { bytes: `${ok}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n${forged}`, ...fault },
  'two lengths': { bytes: `${ok}Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!`, ...fault },
  'the same length twice': { bytes: `${ok}Content-Length: 2\r\nContent-Length: 2\r\n\r\nok`, ...fault },
  'a list of lengths': { bytes: `${ok}Content-Length: 2, 2\r\n\r\nok`, ...fault },
  'a signed length': { bytes: `${ok}Content-Length: +2\r\n\r\nok`, ...fault },
  'a negative length': { bytes: `${ok}Content-Length: -2\r\n\r\nok`, ...fault },
  'a length beyond all numbers': { bytes: `${ok}Content-Length: 99999999999999999999\r\n\r\nok`, ...fault },
  'a length in hexadecimal': { bytes: `${ok}Content-Length: 0x2\r\n\r\nok`, ...fault },
  'a chunk size beyond all numbers': { bytes: `${ok}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n${forged}`, ...never },
  'a chunk size that is none': { bytes: `${ok}Transfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n`, ...never },
  'a negative chunk size': { bytes: `${ok}Transfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n`, ...never },
  'a chunk longer than it says': { bytes: `${ok}Transfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n`, ...never },
  'chunks that end nowhere': { bytes: `${ok}Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n`, after: 'fin', ...never },
  'a length that is not reached': { bytes: `${ok}Content-Length: 10\r\n\r\nhalf`, after: 'fin', ...never },
  'a length that is not reached, and a reset': { bytes: `${ok}Content-Length: 10\r\n\r\nhalf`, after: 'rst', ...never },
  'a body to the end of the connection, and a reset': { bytes: `${ok}\r\nhalf`, after: 'rst', ...never },
  'a body to the end of the connection': { bytes: `${ok}\r\n${forged}`, after: 'fin', status: 200, body: forged },
  'a head that breaks off': { bytes: `${ok}Content-Le`, after: 'fin', ...fault },
  'no head': { bytes: '', after: 'fin', ...fault },
  'a reset instead of a head': { bytes: '', after: 'rst', ...fault },
  'another protocol': { bytes: 'SSH-2.0-OpenSSH_9.9\r\n', ...fault },
  'HTTP/0.9': { bytes: '<html>hello</html>', ...fault },
  'a line folded': { bytes: `${ok}X: a\r\n b\r\nContent-Length: 2\r\n\r\nok`, ...fault },
  'a blank before the colon': { bytes: `${ok}Content-Length : 2\r\n\r\nok`, ...fault },
  'a lone CR in a field': { bytes: `${ok}X: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok`, ...fault },
  'a zero in a field': { bytes: `${ok}X: a\u0000b\r\nContent-Length: 2\r\n\r\nok`, ...fault },
  'interim answers up to the bound': {
    bytes: `${'HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n'.repeat(limits.informationalResponsesMax)}${ok}Content-Length: 2\r\n\r\nok`,
    status: 200,
    body: 'ok',
  },
  'one interim answer more': {
    bytes: `${'HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(limits.informationalResponsesMax + 1)}${ok}Content-Length: 2\r\n\r\nok`,
    ...fault,
  },
  'interim answers without an end': { bytes: 'HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(5_000), ...fault },
  'interim answers with a body': {
    bytes: `HTTP/1.1 103 Early Hints\r\nContent-Length: ${forged.length}\r\n\r\n${ok}Content-Length: 2\r\n\r\nok`,
    status: 200,
    body: 'ok',
  },
  'a protocol changed unasked': { bytes: 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n', ...fault },
  'a status of two digits': { bytes: 'HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok', ...fault },
  'a status beyond 599': { bytes: 'HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nok', status: 999, body: 'ok' },
  '100 fields': { bytes: `${ok}${many(99)}Content-Length: 2\r\n\r\nok`, status: 200, body: 'ok' },
  '101 fields': { bytes: `${ok}${many(100)}Content-Length: 2\r\n\r\nok`, ...fault },
  '1,001 fields': { bytes: `${ok}${many(1_000)}Content-Length: 2\r\n\r\nok`, ...fault },
  '2,500 fields': { bytes: `${ok}${many(2_499)}Content-Length: 2\r\n\r\nok`, ...fault },
  '2,500 fields, the length behind them': { bytes: `${ok}${many(2_500)}Content-Length: 2\r\n\r\nok${forged}`, method: 'POST', ...fault },
  'a field of 40,000 bytes': { bytes: `${ok}X: ${'y'.repeat(40_000)}\r\nContent-Length: 2\r\n\r\nok`, ...fault },
  'an answer before the question is through': {
    bytes: `${ok}Content-Length: 2\r\nConnection: close\r\n\r\nok`,
    method: 'POST',
    after: 'fin',
    status: 200,
    body: 'ok',
  },
};

t.test('each script ends in one sound answer or none, and the next request in its own', async (t) => {
  t.ok(Object.keys(scripts).length >= 40, `${Object.keys(scripts).length} scripts`);
  const hostile = await startHostile(t);
  for (const [what, { bytes, method = 'GET', after = 'keep', status, body }] of Object.entries(scripts)) {
    hostile.given.set('/first', { bytes, after });
    hostile.path.events.length = 0;
    hostile.asked.length = 0;
    const { messages, problem, isClosed } = await askTwice(hostile, method, status !== undefined);
    hostile.given.clear();
    const [first, second, ...more] = messages;
    t.equal(problem, undefined, `${what}: nothing but HTTP/1.1`);
    t.same(more, [], `${what}: no third answer`);
    t.notMatch(JSON.stringify(messages.slice(1)), /forged/, what);
    if (status === undefined) {
      t.not(first?.isComplete, true, `${what}: half an answer does not look whole`);
      t.equal(second, undefined, `${what}: and nothing follows it`);
      continue;
    }
    t.match(first, { status, isComplete: true }, what);
    if (body !== undefined) t.equal(first?.body, body, what);
    // Whether the connection to the program survives is the proxy's choice; whose answer comes is not.
    if (second?.isComplete) t.match(second, { status: 200, body: 'own /second' }, what);
    else t.ok(isClosed, `${what}: closed`);
    const outcomes = hostile.path.events.filter(({ kind }) => kind === 'outcome');
    t.equal(outcomes.length, hostile.path.events.filter(({ kind }) => kind === 'intent').length, `${what}: an outcome for each intent`);
    t.ok(hostile.asked.filter((at) => at === '/first').length <= 1, `${what}: asked once`);
  }
});

const answers: Readonly<Record<string, string>> = {
  length: `${ok}Content-Type: text/plain\r\n${many(20)}Content-Length: 900\r\n\r\n${'x'.repeat(900)}`,
  chunked: `${ok}${many(10)}Transfer-Encoding: chunked\r\n\r\n20\r\n${'y'.repeat(32)}\r\n${`a\r\n${'z'.repeat(10)}\r\n`.repeat(55)}0\r\nX-T: 1\r\n\r\n`,
};

/** Requests under way at a time. */
const width = 6;

for (const [framing, after] of [
  ['length', 'fin'],
  ['chunked', 'rst'],
] as const) {
  t.test(
    `${framing}, ${after}: an answer that breaks off after any of its first 1,000 bytes never looks whole, nor does it hang`,
    async (t) => {
      const whole = answers[framing] as string;
      const hostile = await startHostile(t);
      const last = 1_000;
      t.ok(whole.length > last);
      let slowestMs = 0;
      let next = 0;
      const cutAt = async (bytes: number): Promise<void> => {
        hostile.given.set(`/${bytes}`, { bytes: whole.slice(0, bytes), after });
        const socket = await dial(hostile.path.port);
        let text = '';
        socket.on('data', (chunk: Buffer) => {
          text += chunk.toString('latin1');
        });
        socket.on('error', () => undefined);
        const startedAt = performance.now();
        socket.write(`GET http://${host}/${bytes} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
        await once(socket, 'close');
        slowestMs = Math.max(slowestMs, performance.now() - startedAt);
        const { messages, problem } = parseResponses(text, ['GET'], false);
        const [answer] = messages;
        const isProblem = answer?.status === 502 && answer.isComplete;
        if (problem !== undefined || messages.length > 1 || (answer?.isComplete && !isProblem))
          t.fail(`after ${bytes} bytes: ${JSON.stringify(text.slice(0, 300))}`);
        // A reset may overtake the head.
        const isInBody = bytes >= whole.indexOf('\r\n\r\n') + 4;
        if (isProblem ? isInBody && after === 'fin' : !isInBody)
          t.fail(`after ${bytes} bytes: ${isInBody ? 'a head was taken back' : 'no 502'}`);
      };
      await Promise.all(
        Array.from({ length: width }, async () => {
          while (next <= last) await cutAt(next++);
        }),
      );
      const faults = hostile.path.events.flatMap(({ kind, outcome }) => (kind === 'outcome' ? [outcome?.fault] : []));
      t.equal(faults.length, last + 1, 'an outcome for each');
      t.strictSame(new Set(faults), new Set(['target_closed', 'target_truncated']));
      t.ok(slowestMs < 5_000, `${last + 1} cuts, the slowest ${Math.round(slowestMs)} ms`);
      while (hostile.open() > 0) await new Promise(setImmediate);
      t.equal(hostile.open(), 0, 'no connection to the target is left');
    },
  );
}

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { type ClientHttp2Session, type ClientHttp2Stream, constants } from 'node:http2';
import t, { type Test } from 'tap';
import { systemClock } from '../../src/ops/clock.ts';
import { startListener } from '../../src/proxy/listener.ts';
import { grantOf, target } from '../support/path.ts';
import { eventually } from '../support/stack.ts';
import {
  between,
  type Between,
  type Conversation,
  h2Over,
  host,
  httpTarget,
  outcomeOf,
  program,
  talk,
  tlsTunnel,
  tunnel,
  until,
  whole,
} from '../support/between.ts';

/** A program that leaves takes the target's request with it, and no socket stays behind (THREATS F-11, I9; LESSONS 24, 30). */
const request = (line: string, ...fields: readonly string[]): string =>
  [`${line} HTTP/1.1`, `Host: ${host}`, ...fields, '', ''].join('\r\n');
const leaving: Record<string, (socket: Socket) => void> = {
  FIN: (socket) => void socket.end(),
  RST: (socket) => void socket.resetAndDestroy(),
};

for (const [how, leave] of Object.entries(leaving)) {
  t.test(`a program that leaves (${how}) ends the target's request: before the head, in the body, in the answer`, async (t) => {
    const gone: string[] = [];
    let arrived = '';
    const both = await between(
      t,
      httpTarget((incoming, response) => {
        arrived = incoming.url as string;
        incoming.on('error', () => undefined);
        response.once('close', () => gone.push(arrived));
        if (arrived === '/answering') response.write('begun\n');
      }),
    );
    const bodies = {
      '/waiting': '',
      '/chunked': 'Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n',
      '/length': 'Content-Length: 100\r\n\r\nhalf',
      '/answering': '',
    };
    for (const [path, rest] of Object.entries(bodies)) {
      const client = await program(both.path);
      client.say(rest === '' ? request(`GET http://${host}${path}`) : `POST http://${host}${path} HTTP/1.1\r\nHost: ${host}\r\n${rest}`);
      await until(() => arrived === path);
      if (path === '/answering') await client.until(/begun/);
      leave(client.socket);
      await until(() => gone.includes(path));
    }
    await outcomeOf(both.path, 4);
    t.same(
      both.path.events.filter(({ kind }) => kind === 'outcome').map(({ outcome }) => outcome?.fault),
      ['client_closed', 'client_closed', 'client_closed', 'client_closed'],
    );
    await until(() => both.origin.sockets.size === 0);
  });

  t.test(`a program that leaves (${how}) while its grant is fetched is never heard of by the target`, async (t) => {
    let give: (() => void) | undefined;
    let open = 0;
    const echo = target('echo');
    const both = await between(
      t,
      httpTarget((_request, response) => response.end('ok')),
      {
        grants: { get: () => new Promise((resolve) => (give = () => resolve(grantOf(echo)))) },
        onConnections: (_kind, delta) => (open += delta),
      },
    );
    // A connection to the target is there already, so that only a decision keeps the request from it.
    const first = await program(both.path);
    first.say(request(`GET http://${host}/first`));
    await until(() => give !== undefined);
    give?.();
    await first.until(whole(200, 'ok'));
    for (const upgrade of [[], ['Connection: Upgrade', 'Upgrade: tcp']]) {
      const client = await program(both.path);
      give = undefined;
      client.say(request(`GET http://${host}/second`, ...upgrade));
      await until(() => give !== undefined);
      leave(client.socket);
      await until(() => open === 1);
      (give as unknown as () => void)();
      t.match((await outcomeOf(both.path, upgrade.length === 0 ? 2 : 3)).outcome, { fault: 'client_closed' });
    }
    t.equal(both.origin.accepted(), 1);
  });
}

t.test('a body that breaks off never ends well, whoever reads it, and whether or not anybody has begun to', async (t) => {
  let body: Promise<string> | undefined;
  let begin: Promise<unknown> = Promise.resolve();
  const listener = await startListener({
    host: '127.0.0.1',
    port: 0,
    clock: systemClock,
    routes: [{ listen: { host: '127.0.0.1', port: 0 }, to: { scheme: 'http', host, port: 80 } }],
    handlers: {
      request: async ({ body: source, sink }) => {
        const read = async (): Promise<string> => {
          await begin;
          let text = '';
          for await (const chunk of source?.chunks ?? []) text += Buffer.from(chunk).toString();
          return text;
        };
        body = read();
        await body.catch(() => undefined);
        sink.abort();
      },
      tunnel: () => Promise.resolve(),
      refused: () => undefined,
    },
  });
  t.teardown(() => listener.drain(0));
  const port = listener.routes[0]?.port as number;
  const h2Departures: Record<string, (stream: ClientHttp2Stream, session: ClientHttp2Session, socket: Socket) => void> = {
    CANCEL: (stream) => stream.close(constants.NGHTTP2_CANCEL),
    NO_ERROR: (stream) => stream.close(constants.NGHTTP2_NO_ERROR),
    FIN: (_stream, _session, socket) => void socket.end(),
    RST: (_stream, session) => session.destroy(),
  };
  for (const isLate of [false, true]) {
    for (const [how, leave] of Object.entries(leaving)) {
      for (const framing of ['Content-Length: 100\r\n\r\nhalf', 'Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n']) {
        const { socket, say } = await program({ port } as Between['path']);
        body = undefined;
        begin = isLate ? new Promise((resolve) => socket.once('close', () => setTimeout(resolve, 20))) : Promise.resolve();
        say(`POST / HTTP/1.1\r\nHost: ${host}\r\n${framing}`);
        await until(() => body !== undefined);
        leave(socket);
        await t.rejects(
          body as unknown as Promise<string>,
          { code: 'client_closed' },
          `HTTP/1.1, ${how}, ${framing.slice(0, 16)}, late ${isLate}`,
        );
      }
    }
    for (const [how, leave] of Object.entries(h2Departures)) {
      const { socket } = await program({ port } as Between['path']);
      const session = h2Over(t, socket);
      const stream = session.request({ ':method': 'POST', ':path': '/', ':authority': host, ':scheme': 'http' }, { waitForTrailers: true });
      stream.on('error', () => undefined);
      stream.write('half');
      body = undefined;
      begin = isLate ? new Promise((resolve) => stream.once('close', () => setTimeout(resolve, 20))) : Promise.resolve();
      await until(() => body !== undefined);
      leave(stream, session, socket);
      await t.rejects(body as unknown as Promise<string>, { code: 'client_closed' }, `HTTP/2, ${how}, late ${isLate}`);
      session.destroy();
    }
  }
});

// Counting ------------------------------------------------------------------------------------------------------------

const webSocketAnswer = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n';

/** Does what the path says, on both ports of the target. */
const misbehaving = (incoming: IncomingMessage, response: ServerResponse): void => {
  incoming.on('error', () => undefined);
  response.on('error', () => undefined);
  const { socket } = incoming;
  const acts: Record<string, () => void> = {
    '/ok': () => void incoming.resume().once('end', () => response.end('ok')),
    '/wait': () => void incoming.resume(),
    '/early': () => void response.writeHead(413).end('no'),
    '/close': () => void socket.destroy(),
    '/reset': () => void socket.resetAndDestroy(),
    '/half': () => {
      response.writeHead(200, { 'Content-Length': 100 });
      response.write('half', () => socket.resetAndDestroy());
    },
    '/stream': () => {
      response.write('begun\n');
      response.flushHeaders();
    },
  };
  acts[incoming.url as string]?.();
};

type Exchange = (both: Between, t: Test) => Promise<unknown>;

const h1 =
  (line: string, { until: pattern, how = 'FIN', rest = '' }: { until?: RegExp; how?: string; rest?: string } = {}): Exchange =>
  async ({ path }) => {
    const client = await program(path);
    client.say(`${request(line.replace(' /', ` http://${host}/`), ...(rest === '' ? [] : ['Content-Length: 100']))}${rest}`);
    if (pattern) await client.until(pattern);
    leaving[how]?.(client.socket);
    await client.end;
    client.socket.destroy();
  };
const h2 =
  (path: string, after: (stream: ReturnType<ReturnType<typeof h2Over>['request']>) => Promise<unknown> | void): Exchange =>
  async (both, t) => {
    const session = h2Over(t, await tunnel(both.path, `${host}:80`));
    const stream = session.request({ ':method': 'POST', ':path': path, ':authority': host, ':scheme': 'http' });
    stream.on('error', () => undefined);
    stream.resume();
    stream.write('part');
    await after(stream);
    session.destroy();
  };
const ended = (stream: { end: () => void; once: (event: 'close', then: () => void) => unknown }): Promise<void> =>
  new Promise((resolve) => {
    stream.once('close', resolve);
    stream.end();
  });
const inTunnel =
  (authority: string, then: (client: Conversation) => Promise<unknown> | void): Exchange =>
  async ({ path }) => {
    const client = talk(await tunnel(path, authority));
    await then(client);
    client.socket.destroy();
  };

const exchanges: Record<string, Exchange> = {
  'an ordinary request': h1('GET /ok', { until: /ok$/ }),
  'an upload': h1('POST /ok', { rest: 'a'.repeat(100), until: /ok$/ }),
  'a program that leaves before the head (FIN)': h1('GET /wait'),
  'a program that leaves before the head (RST)': h1('GET /wait', { how: 'RST' }),
  'a program that leaves in its body': h1('POST /wait', { rest: 'half' }),
  'a program that leaves in the answer': h1('GET /stream', { until: /begun/, how: 'RST' }),
  'an early answer': h1('POST /early', { rest: 'half', until: /no\r\n0\r\n\r\n$/ }),
  'a target that closes': h1('GET /close', { until: /\}\n$/ }),
  'a target that resets': h1('GET /reset', { until: /\}\n$/ }),
  'a truncated answer': async ({ path }) => {
    const client = await program(path);
    client.say(request(`GET http://${host}/half`));
    await client.end;
  },
  'a refused authority': async ({ path }) => {
    const client = await program(path);
    client.say(request('GET http://other.outrider.test/'));
    await client.end;
  },
  'bytes that are no HTTP': async ({ path }) => {
    const client = await program(path);
    client.say('\u0016\u0003\u0001garbage\r\n\r\n');
    await client.end;
    client.socket.destroy();
  },
  'CONNECT and nothing': inTunnel(`${host}:443`, () => undefined),
  'CONNECT and garbage': inTunnel(`${host}:443`, async (client) => {
    client.say('SSH-2.0-x\r\n');
    await client.end;
  }),
  'CONNECT and half a handshake': inTunnel(`${host}:443`, (client) => client.say(Buffer.from([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]))),
  'CONNECT and a request in clear text': inTunnel(`${host}:80`, async (client) => {
    client.say(request('GET /ok'));
    await client.until(/ok$/);
  }),
  'CONNECT and TLS, left without a goodbye': async ({ path }) => void (await tlsTunnel(path, ['http/1.1'])).destroy(),
  'CONNECT and TLS to a target that speaks none': async ({ path }) => {
    const client = talk(await tlsTunnel(path, ['http/1.1']));
    client.say(request('GET /ok'));
    await client.until(/\}\n$/);
    client.socket.destroy();
  },
  'an upgrade, ended by the program': async ({ path }) => {
    const client = await program(path);
    client.say(request(`GET http://${host}/upgrade`, 'Connection: Upgrade', 'Upgrade: tcp'));
    await client.until(/101[^]*welcome$/);
    client.socket.resetAndDestroy();
  },
  'HTTP/2: a request': h2('/ok', ended),
  'HTTP/2: given up': h2('/wait', (stream) => stream.close(constants.NGHTTP2_CANCEL)),
  'HTTP/2: left': h2('/stream', (stream) => once(stream, 'response')),
  'HTTP/2: truncated': h2('/half', ended),
  'an untouched tunnel, ended by the program': inTunnel('elsewhere.outrider.test:1', async (client) => {
    client.say('echo');
    await client.until(/echo$/);
  }),
  'an untouched tunnel, ended by the target': inTunnel('elsewhere.outrider.test:1', async (client) => {
    client.say('bye');
    await client.end;
  }),
  'a tunnel that is refused': async ({ path }) => {
    const client = await program(path);
    client.say('CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n');
    await client.end;
  },
};
const activeSockets = (): number =>
  process.getActiveResourcesInfo().filter((one) => /^(?:TCPSocketWrap|TLSWrap|TCPWrap|TCPConnectWrap)$/.test(one)).length;

t.test('no socket stays behind, on either hop, after some hundred exchanges of every kind, failures included', async (t) => {
  const server = httpTarget(misbehaving);
  server.on('upgrade', (_request, socket) => {
    socket.on('error', () => undefined);
    socket.write(`${webSocketAnswer}welcome`);
  });
  const echo = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.on('data', (data) => (String(data) === 'bye' ? socket.end() : socket.write(data)));
  });
  echo.listen(0, '127.0.0.1');
  await once(echo, 'listening');
  t.teardown(() => echo.close());
  const open = { client: 0, tunnel: 0 };
  const both = await between(t, server, {
    morePins: [{ host: 'elsewhere.outrider.test', port: 1, address: '127.0.0.1', addressPort: (echo.address() as AddressInfo).port }],
    patience: { keepAliveMs: 20, sessionIdleMs: 20 },
    onConnections: (kind, delta) => (open[kind] += delta),
  });
  const before = activeSockets();
  const rounds = 12;
  for (let round = 0; round < rounds; round += 1) {
    await Promise.all(
      Object.entries(exchanges).map(async ([name, exchange]) => {
        try {
          await exchange(both, t);
        } catch (error) {
          t.fail(`${name}: ${String(error)}`);
        }
      }),
    );
  }
  await eventually(() => both.origin.sockets.size === 0 && open.client === 0 && open.tunnel === 0 && activeSockets() <= before);
  t.pass(`${rounds * Object.keys(exchanges).length} exchanges, ${both.origin.accepted()} connections to the target`);
  t.ok(both.origin.accepted() > rounds * 10);
  t.notMatch(both.path.logs.join('\n'), /"code":"internal"/);
  await outcomeOf(both.path);
  const intended = both.path.events.filter(({ kind }) => kind === 'intent').length;
  await eventually(() => both.path.events.filter(({ kind }) => kind === 'outcome').length === intended);
});

t.test('small parts are not held back on either hop: nobody waits for the acknowledgement of the part before', async (t) => {
  const { path } = await between(
    t,
    httpTarget((incoming, response) => {
      incoming.on('data', () => response.write('a'));
      incoming.on('end', () => response.end('b'));
    }),
  );
  const client = await program(path);
  const rounds = 50;
  const startedAt = performance.now();
  for (let i = 1; i <= rounds; i += 1) {
    client.say(`POST http://${host}/ HTTP/1.1\r\nHost: ${host}\r\nTransfer-Encoding: chunked\r\n\r\n`);
    await new Promise(setImmediate);
    client.say('1\r\nx\r\n');
    await new Promise(setImmediate);
    client.say('0\r\n\r\n');
    await until(() => client.text().split('1\r\nb\r\n0\r\n\r\n').length > i);
  }
  // Nagle's algorithm with delayed acknowledgements costs 40 ms each time (LESSONS 14).
  const each = (performance.now() - startedAt) / rounds;
  t.ok(each < 20, `${each.toFixed(1)} ms each`);
});

t.test('running out of descriptors refuses connections for as long as it lasts, and no longer', async (t) => {
  const script = `
    import { startListener } from ${JSON.stringify(new URL('../../src/proxy/listener.ts', import.meta.url).href)};
    import { systemClock } from ${JSON.stringify(new URL('../../src/ops/clock.ts', import.meta.url).href)};
    const handlers = {
      request: async ({ sink }) => { sink.head(204, '', []); sink.end(); },
      tunnel: async () => undefined,
      refused: () => undefined,
    };
    const listener = await startListener({ host: '127.0.0.1', port: 0, clock: systemClock, handlers });
    console.log(listener.address.port);`;
  const child = spawn('sh', ['-c', 'ulimit -n 48; exec "$0" "$@"', process.execPath, '--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => child.kill());
  const port = Number(String((await once(child.stdout, 'data'))[0]));
  const path = { port } as Between['path'];
  const many = await Promise.all(Array.from({ length: 100 }, () => program(path)));
  // Some are closed by the proxy, which has no descriptor for them.
  await Promise.race(many.map(({ end }) => end));
  for (const { socket } of many) socket.destroy();
  for (;;) {
    const client = await program(path);
    client.say(request(`GET http://${host}/`, 'Connection: close'));
    await client.end;
    client.socket.destroy();
    if (client.text().startsWith('HTTP/1.1 204 ')) break;
  }
  t.equal(child.exitCode, null);
});

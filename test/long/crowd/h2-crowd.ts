/**
 * A process that holds many HTTP/2 connections to a proxy, each with many streams, and opens each anew when it is closed: `node h2-crowd.ts
 * PORT COUNT KIND BUNDLE`. Says how many are open, as crowd.ts does.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type ClientHttp2Session, connect as connectH2 } from 'node:http2';
import { connect as connectTls } from 'node:tls';
import { tunnelTo } from '../../support/path.ts';

const [, , port = '0', count = '0', kind = '', bundle = ''] = process.argv;
const host = 'slow.outrider.test';
const ca = readFileSync(bundle, 'utf8');
const isOver = (session: ClientHttp2Session): boolean => session.destroyed || session.closed;

const ask = (session: ClientHttp2Session, times: number, method: string, path: string): void => {
  for (let i = 0; i < times && !isOver(session); i += 1) {
    const stream = session.request({ ':method': method, ':path': path }, { endStream: method === 'GET' });
    stream.on('error', () => undefined);
    if (method === 'POST') stream.write(Buffer.alloc(256 * 1024));
  }
};

const manners: Readonly<Record<string, (session: ClientHttp2Session) => void>> = {
  /** Answers that nobody reads. */
  unread: (session) => ask(session, 256, 'GET', '/big'),
  /** To a target that does not read. */
  uploads: (session) => ask(session, 100, 'POST', '/stall'),
  /** Streams that are opened and reset, and settings, as fast as they go. */
  resets: (session) => {
    if (isOver(session)) return;
    for (let i = 0; i < 50 && !isOver(session); i += 1) {
      const stream = session.request({ ':path': '/' });
      stream.on('error', () => undefined);
      stream.close(8);
      if (!session.destroyed) session.settings({ initialWindowSize: 65_535 + i }, () => undefined);
    }
    setImmediate(() => manners['resets']?.(session));
  },
};

const counts = { open: 0, opened: 0, closed: 0, refused: 0 };
const keepOpen = async (): Promise<void> => {
  for (;;) {
    const { socket, refusal } = await tunnelTo(Number(port), `${host}:443`).catch(() => ({ socket: undefined, refusal: '' }));
    if (socket === undefined || refusal !== undefined) {
      counts.refused += 1;
      await new Promise((resolve) => setTimeout(resolve, 200));
      continue;
    }
    const secured = connectTls({ socket, ca, servername: host, ALPNProtocols: ['h2'] });
    secured.on('error', () => undefined);
    const session = connectH2(`https://${host}`, { createConnection: () => secured });
    session.on('error', () => undefined);
    session.once('connect', () => manners[kind]?.(session));
    counts.open += 1;
    counts.opened += 1;
    await once(session, 'close').catch(() => undefined);
    counts.open -= 1;
    counts.closed += 1;
  }
};

for (let i = 0; i < Number(count); i += 1) void keepOpen();
setInterval(() => process.stdout.write(`${JSON.stringify(counts)}\n`), 500);

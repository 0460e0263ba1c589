/**
 * A process that holds many slow connections to a proxy and opens each anew when it is closed: `node crowd.ts PORT COUNT KINDS
 * RETRY_MS`. Says how many are open, a line of JSON twice a second. Its own process, so that its descriptors are not the proxy's and its work
 * is not the test's.
 */
import { connect, type Socket } from 'node:net';

const [, , port = '0', count = '0', kinds = '', retryMs = '5000'] = process.argv;
const host = 'slow.outrider.test';

/** What a slow program does once it is connected. */
const manners: Readonly<Record<string, (socket: Socket) => void>> = {
  silent: () => undefined,
  head: (socket) => {
    socket.write(`GET http://${host}/ HTTP/1.1\r\nHost: ${host}\r\nX-Slow: `);
    trickle(socket, 'a');
  },
  'head-bomb': (socket) => {
    socket.write(`GET http://${host}/ HTTP/1.1\r\nHost: ${host}\r\n`);
    for (let i = 0; i < 90; i += 1) socket.write(`X-${i}: ${'b'.repeat(330)}\r\n`);
    trickle(socket, 'a');
  },
  body: (socket) => {
    socket.write(`POST http://${host}/sink HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 1000000\r\n\r\n`);
    trickle(socket, 'a');
  },
  /** As much as it may, to a target that does not read. */
  upload: (socket) => {
    socket.write(`POST http://${host}/stall HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 1000000000\r\n\r\n`);
    const block = Buffer.alloc(64 * 1024);
    const more = (): void => {
      while (!socket.destroyed && socket.write(block));
      socket.once('drain', more);
    };
    more();
  },
  /** Most of a body that is read whole before it is sent on. */
  held: (socket) => {
    socket.write(`POST http://${host}/sink HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n`);
    socket.write(Buffer.alloc(990_000, '['));
    trickle(socket, '[');
  },
  reader: (socket) => {
    socket.write(`GET http://${host}/big HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
    socket.pause();
  },
  kept: (socket) => void socket.write(`GET http://${host}/ HTTP/1.1\r\nHost: ${host}\r\n\r\n`),
  handshake: (socket) => {
    socket.write(`CONNECT ${host}:443 HTTP/1.1\r\nHost: ${host}:443\r\n\r\n`);
    // The beginning of a ClientHello, and no more.
    socket.once('data', () => socket.write(Buffer.from([22, 3, 1, 2, 0, 1, 0, 1])));
  },
};

const trickle = (socket: Socket, byte: string): void => {
  const timer = setInterval(() => void socket.write(byte), 2_000);
  socket.once('close', () => clearInterval(timer));
};

const chosen = kinds.split(',').map((kind) => manners[kind] as (socket: Socket) => void);
const counts = { open: 0, opened: 0, closed: 0, refused: 0 };
const open = (i: number): void => {
  // A range of addresses: one has not ports enough for what was closed a moment ago.
  const socket = connect({ host: '127.0.0.1', port: Number(port), localAddress: `127.0.0.${2 + (i % 100)}` });
  let isOpen = false;
  socket.on('error', () => undefined);
  socket.once('connect', () => {
    isOpen = true;
    counts.open += 1;
    counts.opened += 1;
    chosen[i % chosen.length]?.(socket);
  });
  if (chosen[i % chosen.length] !== manners['reader'])
    socket.on('data', (chunk: Buffer) => {
      if (chunk.length < 4_096 && chunk.includes('HTTP/1.1 503')) counts.refused += 1;
    });
  socket.once('close', () => {
    if (isOpen) {
      counts.open -= 1;
      counts.closed += 1;
    }
    setTimeout(() => open(i), Number(retryMs) * (0.5 + Math.random()));
  });
};
let begun = 0;
const begin = (): void => {
  for (let i = 0; i < 100 && begun < Number(count); i += 1) open(begun++);
  if (begun < Number(count)) setTimeout(begin, 200);
};
begin();
setInterval(() => process.stdout.write(`${JSON.stringify(counts)}\n`), 500);

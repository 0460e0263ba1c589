/** WebSocket at the origin: every message comes back, of its own kind; `bye` closes with a code and a reason. */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocketServer } from 'ws';
import type { Arrival } from '../origin.ts';

type Upgrade = (request: IncomingMessage, socket: Duplex, head: Buffer) => void;

export const closeCode = 4321;

export const createWebSocketEcho = (
  arrived: (arrival: Arrival) => boolean,
  valuesIn: (raw: readonly string[], name: string) => string[],
): Upgrade => {
  const server = new WebSocketServer({ noServer: true });
  return (request, socket, head) => {
    const { method = '', url: path = '', headers } = request;
    const authorization = valuesIn(request.rawHeaders, 'authorization');
    const isKnown = arrived({ protocol: 'websocket', method, path, authorization, expect: headers.expect });
    if (!isKnown) return void socket.end('HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
    server.handleUpgrade(request, socket, head, (peer) => {
      peer.on('message', (data, isBinary) => {
        if (!isBinary && data.toString() === 'bye') return peer.close(closeCode, 'told to');
        peer.send(data, { binary: isBinary });
      });
    });
  };
};

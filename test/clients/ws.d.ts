/** The part of ws (which ships no types) that the origin uses. */
declare module 'ws' {
  import type { IncomingMessage } from 'node:http';
  import type { Duplex } from 'node:stream';

  export interface Peer {
    on(event: 'message', listener: (data: Buffer, isBinary: boolean) => void): this;
    send(data: Buffer, options: { readonly binary: boolean }): void;
    close(code: number, reason: string): void;
  }

  export class WebSocketServer {
    constructor(options: { readonly noServer: true });
    handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer, done: (peer: Peer) => void): void;
  }
}

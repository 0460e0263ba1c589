// An echo over WebSocket: `websocket.mjs ws|ws-alone|built-in URL`. Text, a mebibyte of bytes, a close with a code; prints a JSON line.
import { createHash } from 'node:crypto';
import https from 'node:https';
import http from 'node:http';
import WebSocketOfWs from 'ws';

const [, , client, url] = process.argv;

// `ws` asks no proxy of its own: it is given an agent that does (Node 24.5 and later).
const agent = () => new (url.startsWith('wss:') ? https : http).Agent({ proxyEnv: process.env });
const sockets = {
  ws: () => new WebSocketOfWs(url, { agent: agent() }),
  'ws-alone': () => new WebSocketOfWs(url),
  'built-in': () => new WebSocket(url),
};
const socket = sockets[client]();
socket.binaryType = 'arraybuffer';

const next = (event) =>
  new Promise((resolve, reject) => {
    socket.addEventListener(event, resolve, { once: true });
    socket.addEventListener('error', (error) => reject(new Error(error.message || 'the WebSocket failed', { cause: error.error })), {
      once: true,
    });
  });
const hash = (bytes) => createHash('sha256').update(new Uint8Array(bytes)).digest('hex');

await next('open');
socket.send('hello');
const text = (await next('message')).data;
const sent = new Uint8Array(1_048_576).map((_, i) => (i * 31) & 255);
socket.send(sent);
const isWhole = hash((await next('message')).data) === hash(sent);
socket.send('bye');
const { code, reason } = await next('close');
console.log(JSON.stringify({ text, isWhole, code, reason }));

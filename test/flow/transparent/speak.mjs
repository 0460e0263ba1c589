/**
 * A program that knows of no proxy, for tests of transparent mode. One command on its command line, one JSON object on standard output:
 *   get URL ADDRESS CA whole|segments|records  an https request whose ClientHello is sent at once, byte by byte, or in many TLS records
 *   exchange HOST PORT BYTES [HEX]             sends HEX and then BYTES pseudo-random bytes, half-closes, and reads to the end
 *   listen HOST PORT BYTES                     sends nothing before it has been sent BYTES bytes; then "QUIT", and reads to the end
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { Duplex } from 'node:stream';
import { connect as connectTls } from 'node:tls';

const [command, ...args] = process.argv.slice(2);
const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);
const fail = (error) => {
  say({ error: error.code ?? error.message });
  process.exit(1);
};

/** The first record again, as records of `size` bytes. */
const inRecords = (record, size) => {
  const pieces = [];
  for (let at = 5; at < record.length; at += size) {
    const piece = record.subarray(at, at + size);
    pieces.push(Buffer.concat([record.subarray(0, 3), Buffer.from([0, piece.length]), piece]));
  }
  return Buffer.concat(pieces);
};

/** The socket, with what is written first cut up as asked. */
const cut = (socket, how) => {
  let isFirst = true;
  const stream = new Duplex({
    write: (chunk, _encoding, done) => {
      const first = isFirst;
      isFirst = false;
      if (!first || how === 'whole') return socket.write(chunk, done);
      if (how === 'records') return socket.write(inRecords(chunk, 7), done);
      for (const byte of chunk.subarray(0, -1)) socket.write(Buffer.from([byte]));
      return socket.write(chunk.subarray(-1), done);
    },
    read: () => socket.resume(),
    final: (done) => socket.end(done),
    destroy: (error, done) => {
      socket.destroy();
      done(error);
    },
  });
  socket.on('data', (chunk) => stream.push(chunk) || socket.pause());
  socket.on('end', () => stream.push(null));
  socket.on('error', (error) => stream.destroy(error));
  return stream;
};

const readAll = (stream, done) => {
  const chunks = [];
  stream.on('data', (chunk) => chunks.push(chunk));
  stream.on('end', () => done(Buffer.concat(chunks)));
};

const commands = {
  get: (url, address, ca, how) => {
    const { hostname, port, pathname } = new URL(url);
    const socket = connect({ host: address, port: Number(port || 443), noDelay: true });
    const secured = connectTls({ socket: cut(socket, how), servername: hostname, ca: readFileSync(ca) });
    secured.on('error', fail);
    readAll(secured, (answer) => say({ answer: answer.toString(), issuer: issuer.CN }));
    let issuer;
    secured.once('secureConnect', () => {
      issuer = secured.getPeerCertificate().issuer;
      secured.write(`GET ${pathname} HTTP/1.1\r\nHost: ${hostname}\r\nConnection: close\r\n\r\n`);
    });
  },
  exchange: (host, port, bytes, hex = '') => {
    const socket = connect({ host, port: Number(port), allowHalfOpen: true });
    socket.on('error', fail);
    const sent = createHash('sha256');
    const write = (chunk) => {
      sent.update(chunk);
      return socket.write(chunk);
    };
    readAll(socket, (answer) => say({ sent: sent.digest('hex'), got: createHash('sha256').update(answer).digest('hex') }));
    write(Buffer.from(hex, 'hex'));
    let left = Number(bytes);
    let block = Buffer.alloc(32);
    const more = () => {
      while (left > 0) {
        block = createHash('sha256').update(block).digest();
        const chunk = Buffer.concat(Array.from({ length: 512 }, () => block)).subarray(0, left);
        left -= chunk.length;
        if (!write(chunk)) return socket.once('drain', more);
      }
      return socket.end();
    };
    more();
  },
  listen: (host, port, bytes) => {
    const socket = connect({ host, port: Number(port), allowHalfOpen: true });
    socket.on('error', fail);
    let got = '';
    let asked = false;
    socket.setEncoding('latin1');
    socket.on('data', (chunk) => {
      got += chunk;
      if (asked || got.length < Number(bytes)) return;
      asked = true;
      socket.write('QUIT\r\n');
    });
    socket.on('end', () => {
      say({ got });
      socket.end();
    });
  },
};

commands[command](...args);

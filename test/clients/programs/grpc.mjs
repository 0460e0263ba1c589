// One gRPC call of each kind with @grpc/grpc-js: `grpc.mjs HOST:PORT [clear]`. Prints a JSON line for each.
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { StringValueSchema } from '@bufbuild/protobuf/wkt';
import { Client, credentials, Metadata, status } from '@grpc/grpc-js';

const [, , address, mode] = process.argv;
const write = (value) => Buffer.from(toBinary(StringValueSchema, { $typeName: 'google.protobuf.StringValue', value }));
const read = (bytes) => fromBinary(StringValueSchema, bytes).value;
const method = (name) => `/outrider.test.Echo/${name}`;

// Without an argument createSsl reads GRPC_DEFAULT_SSL_ROOTS_FILE_PATH.
const client = new Client(address, mode === 'clear' ? credentials.createInsecure() : credentials.createSsl());
const deadline = (ms) => ({ deadline: Date.now() + ms });
const metadata = () => {
  const own = new Metadata();
  own.set('authorization', 'Bearer mine');
  return own;
};

/** Prints how a call ended, once its status is known. */
const report = (name, call, messages, start = () => undefined) =>
  new Promise((resolve) => {
    call.on('data', (message) => messages.push(message));
    call.on('error', () => undefined);
    call.on('status', ({ code, details, metadata: trailers }) => {
      // Not connected: no later call would be.
      if (code === status.UNAVAILABLE) throw new Error(details);
      console.log(JSON.stringify({ call: name, code, details, messages, trailer: trailers.get('x-outrider-trailer')[0] ?? '' }));
      resolve();
    });
    start();
  });

const unary = (name, text, ms = 20_000) => {
  const messages = [];
  const call = client.makeUnaryRequest(method(name), write, read, text, metadata(), deadline(ms), (_, message) => {
    if (message !== undefined) messages.push(message);
  });
  return report(name, call, messages);
};

await unary('Unary', 'hello');
await report('ServerStream', client.makeServerStreamRequest(method('ServerStream'), write, read, '3', metadata(), deadline(20_000)), []);

const joined = [];
const up = client.makeClientStreamRequest(method('ClientStream'), write, read, metadata(), deadline(20_000), (_, message) =>
  joined.push(message),
);
await report('ClientStream', up, joined, () => {
  for (const part of ['a', 'b', 'c']) up.write(part);
  up.end();
});

// Each message waits for the answer to the one before: neither direction may be held back for the other.
const both = client.makeBidiStreamRequest(method('Bidi'), write, read, metadata(), deadline(20_000));
const answers = [];
await report('Bidi', both, answers, () => {
  both.on('data', () => (answers.length < 3 ? both.write(String(answers.length + 1)) : both.end()));
  both.write('1');
});

await unary('Fails', 'hello');
await unary('Silent', 'hello', 400);

const endless = client.makeServerStreamRequest(method('ServerStream'), write, read, '0', metadata(), deadline(20_000));
await report('Cancel', endless, [], () => endless.once('data', () => endless.cancel()));

await unary('Forbidden', 'hello');
client.close();

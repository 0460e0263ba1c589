/**
 * One end of a gRPC measurement, a process of its own: `server CERT KEY` prints its port; `client URL CA KIND CONCURRENCY SECONDS` prints
 * how many messages were answered in a second. Messages of 100 bytes. KIND is unary, or stream: one call for all messages of a
 * worker, each sent when the last was answered.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import * as grpc from '@grpc/grpc-js';

const same = (bytes: Buffer): Buffer => bytes;
const method = (name: string, streams: boolean) => ({
  path: `/bench.Echo/${name}`,
  requestStream: streams,
  responseStream: streams,
  requestSerialize: same,
  requestDeserialize: same,
  responseSerialize: same,
  responseDeserialize: same,
});
const service = { unary: method('Unary', false), stream: method('Stream', true) } as const;
const message = Buffer.alloc(100, 'x');
const say = (line: string): void => void process.stdout.write(`${line}\n`);

/** What carries no credential is refused, so that each answer says that it was there; a direct client brings its own. */
const isCredentialed = (metadata: grpc.Metadata): boolean => String(metadata.get('authorization')[0]).startsWith('Bearer ');

const serve = async (certFile: string, keyFile: string): Promise<void> => {
  const server = new grpc.Server();
  server.addService(service, {
    unary: (call: grpc.ServerUnaryCall<Buffer, Buffer>, done: grpc.sendUnaryData<Buffer>) => {
      if (!isCredentialed(call.metadata)) return done({ code: grpc.status.UNAUTHENTICATED });
      done(null, call.request);
    },
    stream: (call: grpc.ServerDuplexStream<Buffer, Buffer>) => {
      if (!isCredentialed(call.metadata)) return call.destroy(Object.assign(new Error(), { code: grpc.status.UNAUTHENTICATED }));
      call.on('data', (bytes: Buffer) => call.write(bytes));
      call.on('end', () => call.end());
    },
  });
  const pair = { private_key: readFileSync(keyFile), cert_chain: readFileSync(certFile) };
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createSsl(null, [pair]), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  say(String(port));
};

const ask = async (address: string, caFile: string, name: string, kind: string, concurrency: number, seconds: number): Promise<void> => {
  const credentials = caFile === '' ? grpc.credentials.createInsecure() : grpc.credentials.createSsl(readFileSync(caFile));
  const client = new grpc.Client(
    address,
    credentials,
    caFile === '' ? {} : { 'grpc.ssl_target_name_override': name, 'grpc.default_authority': name },
  );
  const metadata = new grpc.Metadata();
  if (caFile !== '') metadata.set('authorization', 'Bearer direct');
  let answered = 0;
  let failed = 0;
  let ends = Number.POSITIVE_INFINITY;
  let first = '';
  const wrong = (error: Error): void => {
    failed += 1;
    first ||= error.message;
  };
  const unary = (): Promise<void> =>
    new Promise((resolve) => {
      client.makeUnaryRequest(service.unary.path, same, same, message, metadata, (error, value) => {
        if (error) wrong(error);
        else if (value?.length === message.length) answered += 1;
        resolve();
      });
    });
  const unaryWorker = async (): Promise<void> => {
    while (performance.now() < ends && failed < 100) await unary();
  };
  const streamWorker = (): Promise<void> =>
    new Promise((resolve) => {
      const call = client.makeBidiStreamRequest(service.stream.path, same, same, metadata);
      call.on('data', (bytes: Buffer) => {
        if (bytes.length === message.length) answered += 1;
        if (performance.now() < ends) call.write(message);
        else call.end();
      });
      call.on('error', (error) => {
        wrong(error);
        resolve();
      });
      call.on('end', resolve);
      call.write(message);
    });
  await unary();
  if (failed > 0) throw new Error(first);
  const worker = kind === 'unary' ? unaryWorker : streamWorker;
  say('ready');
  await once(process.stdin, 'data');
  process.stdin.destroy();
  answered = 0;
  const begun = performance.now();
  ends = begun + seconds * 1_000;
  await Promise.all(Array.from({ length: concurrency }, worker));
  const took = (performance.now() - begun) / 1_000;
  client.close();
  say(JSON.stringify({ perSecond: answered / took, answered, failed, first }));
};

const [mode = '', ...args] = process.argv.slice(2);
if (mode === 'server') await serve(args[0] as string, args[1] as string);
else await ask(args[0] as string, args[1] as string, args[2] as string, args[3] as string, Number(args[4]), Number(args[5]));

import { once } from 'node:events';
import type { ClientHttp2Session } from 'node:http2';
import * as grpc from '@grpc/grpc-js';
import t, { type Test } from 'tap';
import { Fault, type FaultCode } from '../../src/core/fault.ts';
import { directoryOf } from '../support/directory.ts';
import { allowAll, grantOf, type Path, type PathOptions, startPath, target } from '../support/path.ts';
import { authority, files, h2Over, host, outcomeOf, talk, tlsTunnel, until } from '../support/between.ts';

/** gRPC by the real client and server, through CONNECT and through a reverse route; what is refused is a status that a stub understands. */
const bytes = (text: string): Buffer => Buffer.from(text);
const text = (buffer: Buffer): string => buffer.toString();
const method = (name: string, requestStream: boolean, responseStream: boolean) => ({
  path: `/echo.Echo/${name}`,
  requestStream,
  responseStream,
  requestSerialize: bytes,
  requestDeserialize: text,
  responseSerialize: bytes,
  responseDeserialize: text,
});
const service = {
  unary: method('Unary', false, false),
  collect: method('Collect', true, false),
  spread: method('Spread', false, true),
  chat: method('Chat', true, true),
} as const;

/** What the server was asked, and how it went. */
interface Heard {
  readonly authorizations: string[];
  readonly log: string[];
}

/** What all kinds of calls have in common. */
interface Call {
  readonly metadata: grpc.Metadata;
  readonly on: (event: 'cancelled', listener: () => void) => unknown;
}

const startServer = async (t: Test): Promise<Heard & { port: number }> => {
  const heard: Heard = { authorizations: [], log: [] };
  const note = (call: Call): void => {
    heard.authorizations.push(...call.metadata.get('authorization').map(String));
    call.on('cancelled', () => heard.log.push('cancelled'));
  };
  const trailers = new grpc.Metadata();
  trailers.set('x-sum', '7');
  trailers.set('x-blob-bin', Buffer.from([0, 1, 255]));
  const server = new grpc.Server();
  server.addService(service, {
    unary: (call: grpc.ServerUnaryCall<string, string>, done: grpc.sendUnaryData<string>) => {
      note(call);
      const { request } = call;
      if (request === 'fail') return done({ code: grpc.status.NOT_FOUND, details: 'no such echo: 100 %', metadata: trailers });
      if (request === 'wait')
        return void heard.log.push(`deadline ${call.getDeadline() instanceof Date || Number.isFinite(call.getDeadline())}`);
      return done(null, `echo ${request}`, trailers);
    },
    collect: (call: grpc.ServerReadableStream<string, string>, done: grpc.sendUnaryData<string>) => {
      note(call);
      const parts: string[] = [];
      call.on('data', (part: string) => {
        parts.push(part);
        // An answer long before the end of the request.
        if (part === 'enough') done({ code: grpc.status.RESOURCE_EXHAUSTED, details: 'enough' });
      });
      call.on('end', () => done(null, parts.join('+'), trailers));
    },
    spread: (call: grpc.ServerWritableStream<string, string>) => {
      note(call);
      for (const part of call.request.split(' ')) call.write(part);
      call.end(trailers);
    },
    chat: (call: grpc.ServerDuplexStream<string, string>) => {
      note(call);
      call.on('data', (part: string) => call.write(`heard ${part}`));
      call.on('end', () => call.end(trailers));
    },
  });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync(
      '127.0.0.1:0',
      grpc.ServerCredentials.createSsl(null, [{ cert_chain: bytes(files.cert), private_key: bytes(files.key) }]),
      (error, bound) => (error ? reject(error) : resolve(bound)),
    ),
  );
  t.teardown(() => server.forceShutdown());
  return { ...heard, port };
};

const Echo = grpc.makeGenericClientConstructor(service, 'Echo') as unknown as new (
  address: string,
  credentials: grpc.ChannelCredentials,
  options?: grpc.ChannelOptions,
) => grpc.Client & {
  readonly unary: (request: string, options: grpc.CallOptions, done: grpc.requestCallback<string>) => grpc.ClientUnaryCall;
  readonly collect: (options: grpc.CallOptions, done: grpc.requestCallback<string>) => grpc.ClientWritableStream<string>;
  readonly spread: (request: string) => grpc.ClientReadableStream<string>;
  readonly chat: () => grpc.ClientDuplexStream<string, string>;
};
type Stub = InstanceType<typeof Echo>;

const setUp = async (t: Test, port: number, options: Partial<PathOptions> = {}): Promise<Path> => {
  const path = await startPath({
    dir: directoryOf(t),
    targets: [target('echo')],
    pins: [{ host, port: 443, address: '127.0.0.1', addressPort: port }],
    trustPem: authority.pem,
    routes: [{ listen: { host: '127.0.0.1', port: 0 }, to: { scheme: 'https', host, port: 443 } }],
    ...options,
  });
  t.teardown(() => path.close());
  return path;
};

/** How a stub is brought to the proxy. */
const ways: Record<string, (t: Test, path: Path) => Stub> = {
  'CONNECT (grpc_proxy)': (t, path) => {
    process.env['grpc_proxy'] = `http://127.0.0.1:${path.port}`;
    const stub = new Echo(`${host}:443`, grpc.credentials.createSsl(bytes(path.bundle)));
    t.teardown(() => {
      stub.close();
      delete process.env['grpc_proxy'];
    });
    return stub;
  },
  'a reverse route, in clear text': (t, path) => {
    const stub = new Echo(`localhost:${path.routes[0]}`, grpc.credentials.createInsecure());
    t.teardown(() => stub.close());
    return stub;
  },
};

const soon = (): grpc.CallOptions => ({ deadline: Date.now() + 10_000 });
interface Ended {
  readonly code: number;
  readonly details: string;
  readonly value: string | undefined;
  readonly trailers: grpc.Metadata;
}
const unary = (
  stub: Stub,
  request: string,
  options = soon(),
  started: (call: grpc.ClientUnaryCall) => void = () => undefined,
): Promise<Ended> =>
  new Promise((resolve) => {
    let trailers = new grpc.Metadata();
    const call = stub.unary(request, options, (error, value) =>
      setImmediate(() => resolve({ code: error?.code ?? 0, details: error?.details ?? '', value, trailers })),
    );
    call.on('status', ({ metadata }: grpc.StatusObject) => (trailers = metadata));
    started(call);
  });

for (const [way, stubFor] of Object.entries(ways))
  t.test(`${way}: unary and all kinds of streams, with the credential, the status and the trailers of the server`, async (t) => {
    const server = await startServer(t);
    const path = await setUp(t, server.port);
    const stub = stubFor(t, path);
    const answer = await unary(stub, 'hi');
    t.match(answer, { code: 0, value: 'echo hi' });
    t.same(answer.trailers.get('x-sum'), ['7']);
    t.same(answer.trailers.get('x-blob-bin'), [Buffer.from([0, 1, 255])]);

    const failed = await unary(stub, 'fail');
    t.match(failed, { code: grpc.status.NOT_FOUND, details: 'no such echo: 100 %' });
    t.same(failed.trailers.get('x-sum'), ['7']);

    const collected = await new Promise((resolve) => {
      const call = stub.collect(soon(), (error, value) => resolve(error ?? value));
      for (const part of ['a', 'b', 'c']) call.write(part);
      call.end();
    });
    t.equal(collected, 'a+b+c');

    const spread: string[] = [];
    const spreading = stub.spread('x y z');
    spreading.on('data', (part: string) => spread.push(part));
    const [{ code, metadata }] = (await once(spreading, 'status')) as [grpc.StatusObject];
    t.same([spread, code, metadata.get('x-sum')], [['x', 'y', 'z'], 0, ['7']]);

    const chat = stub.chat();
    for (const word of ['one', 'two']) {
      const heard = once(chat, 'data');
      chat.write(word);
      t.same(await heard, [`heard ${word}`], 'each message as it comes');
    }
    chat.end();
    chat.resume();
    t.match(await once(chat, 'status'), [{ code: 0 }]);

    const large = 'x'.repeat(3_000_000);
    t.equal((await unary(stub, large)).value?.length, large.length + 5, 'a message larger than any window');
    t.same(new Set(server.authorizations), new Set(['Bearer credential-for-echo']));
    await outcomeOf(path, 6);
    t.same(
      path.events.filter(({ kind }) => kind === 'outcome').map(({ outcome }) => [outcome?.status, outcome?.fault]),
      Array.from({ length: 6 }, () => [200, '']),
    );
  });

t.test('an answer before the end of a stream of requests is an answer, with its status', async (t) => {
  const server = await startServer(t);
  const stub = (ways['CONNECT (grpc_proxy)'] as (typeof ways)[string])(t, await setUp(t, server.port));
  const failure = await new Promise<grpc.ServiceError | null>((resolve) => {
    const call = stub.collect(soon(), (error) => resolve(error));
    call.on('error', () => undefined);
    call.write('a');
    call.write('enough');
  });
  t.match(failure, { code: grpc.status.RESOURCE_EXHAUSTED, details: 'enough' });
});

t.test('deadlines and cancellation reach the server', async (t) => {
  const server = await startServer(t);
  const path = await setUp(t, server.port);
  const stub = (ways['CONNECT (grpc_proxy)'] as (typeof ways)[string])(t, path);
  t.match(await unary(stub, 'wait', { deadline: Date.now() + 200 }), { code: grpc.status.DEADLINE_EXCEEDED });
  await until(() => server.log.includes('cancelled'));
  t.same(server.log, ['deadline true', 'cancelled']);
  server.log.length = 0;
  let call: grpc.ClientUnaryCall | undefined;
  const cancelled = unary(stub, 'wait', soon(), (one) => (call = one));
  await until(() => server.log.length > 0);
  call?.cancel();
  t.match(await cancelled, { code: grpc.status.CANCELLED });
  await until(() => server.log.includes('cancelled'));
  await outcomeOf(path, 2);
  t.same(
    path.events.filter(({ kind }) => kind === 'outcome').map(({ outcome }) => outcome?.fault),
    ['client_closed', 'client_closed'],
  );
});

// Refused calls -------------------------------------------------------------------------------------------------------

const deny = { ...allowAll, name: 'no-echo', effect: 'deny' as const, paths: ['/echo.Echo/*'] };
const refusals: readonly [FaultCode, number, Partial<PathOptions>][] = [
  ['policy_denied', grpc.status.PERMISSION_DENIED, { grants: { get: () => grantOf(target('echo'), { rules: [deny, allowAll] }) } }],
  ['broker_unavailable', grpc.status.UNAVAILABLE, { grants: { get: () => Promise.reject(new Fault('broker_unavailable')) } }],
  [
    'credential_unavailable',
    grpc.status.FAILED_PRECONDITION,
    { grants: { get: () => Promise.reject(new Fault('credential_unavailable', { detail: 'Vault says "no": 100 % sealed – ask.' })) } },
  ],
  ['not_ready', grpc.status.UNAVAILABLE, { grants: { get: () => Promise.reject(new Fault('not_ready')) } }],
];

for (const [way, stubFor] of Object.entries(ways))
  t.test(`${way}: a refused call ends with the fault's status and its code in the message`, async (t) => {
    const server = await startServer(t);
    for (const [code, status, options] of refusals) {
      await t.test(code, async (t) => {
        const path = await setUp(t, server.port, options);
        const refused = await unary(stubFor(t, path), 'hi');
        t.equal(refused.code, status);
        t.match(refused.details, new RegExp(`^${code}: `));
        if (code === 'policy_denied') t.match(refused.details, /policy p, rule no-echo/);
        if (code === 'credential_unavailable') t.match(refused.details, 'Vault says "no": 100 % sealed – ask.');
        t.match((await outcomeOf(path)).outcome, { status: 200, fault: code });
      });
    }
    await t.test('a target that is down', async (t) => {
      const path = await setUp(t, 1);
      t.match(await unary(stubFor(t, path), 'hi'), { code: grpc.status.UNAVAILABLE, details: /^target_refused: / });
    });
    t.equal(server.authorizations.length, 0);
  });

t.test('a call whose authority is another one is refused as a call', async (t) => {
  const server = await startServer(t);
  const path = await setUp(t, server.port);
  const session: ClientHttp2Session = h2Over(t, await tlsTunnel(path, ['h2']));
  const stream = session.request({
    ':method': 'POST',
    ':path': '/echo.Echo/Unary',
    ':authority': 'attacker.test',
    'content-type': 'application/grpc+proto',
    te: 'trailers',
  });
  let isEndOfStream = false;
  stream.on('response', (_headers, flags) => (isEndOfStream = (flags & 1) === 1));
  const [headers] = (await once(stream, 'response')) as [Record<string, string>];
  t.match(headers, {
    ':status': 200,
    'content-type': 'application/grpc+proto',
    'grpc-status': '3',
    'grpc-message': /^authority_mismatch: /,
  });
  t.ok(isEndOfStream, 'trailers only: one frame, which ends the stream');
  t.equal(server.authorizations.length, 0);
});

t.test('gRPC-Web over HTTP/1.1 is refused in its own words too', async (t) => {
  const server = await startServer(t);
  const path = await setUp(t, server.port, refusals[0]?.[2]);
  const client = talk(await tlsTunnel(path, ['http/1.1']));
  for (const [sent, answered] of [
    ['application/grpc-web+proto', 'application/grpc-web\\+proto'],
    ['application/grpc-web-text; charset=utf-8', 'application/grpc-web-text'],
    ['application/grpc', 'application/grpc'],
  ]) {
    client.say(`POST /echo.Echo/Unary HTTP/1.1\r\nHost: ${host}\r\nContent-Type: ${sent}\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0`);
    t.match(
      await client.until(new RegExp(`content-type: ${answered}\r\n[^]*\r\n\r\n$`)),
      /^HTTP\/1\.1 200 OK\r\n[^]*grpc-status: 7\r\ngrpc-message: policy_denied: /,
    );
  }
  client.say(
    `POST /echo.Echo/Unary HTTP/1.1\r\nHost: attacker.test\r\nContent-Type: application/grpc-web\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0`,
  );
  await client.end;
  t.match(client.text(), /grpc-message: authority_mismatch: [^]*connection: close\r\n/);
  const other = talk(await tlsTunnel(path, ['http/1.1']));
  other.say(`POST /echo.Echo/Unary HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/grpc-evil\r\nContent-Length: 0\r\n\r\n`);
  t.match(await other.until(/\}\n$/), /^HTTP\/1\.1 403 [^]*application\/problem\+json/);
});

t.test('a call that the target answers over HTTP/1.1 alone says so', async (t) => {
  const server = await startServer(t);
  const path = await setUp(t, server.port, { targets: [target('echo', { protocol: 'http1' })] });
  const stub = (ways['CONNECT (grpc_proxy)'] as (typeof ways)[string])(t, path);
  t.match(await unary(stub, 'hi'), { code: grpc.status.FAILED_PRECONDITION, details: /^target_protocol: / });
});

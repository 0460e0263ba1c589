import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import t, { type Test } from 'tap';
import type { AccessEventDraft } from '../../src/core/access-event.ts';
import { type Destination, hostPort } from '../../src/core/destination.ts';
import { Fault } from '../../src/core/fault.ts';
import type { Target } from '../../src/core/target.ts';
import type { DialAddress } from '../../src/net/dial.ts';
import { readSockaddr } from '../../src/net/original-destination.ts';
import { systemClock } from '../../src/ops/clock.ts';
import { createLog } from '../../src/ops/log.ts';
import { createMetrics } from '../../src/ops/metrics.ts';
import type { Purpose } from '../../src/proxy/listener.ts';
import { splice } from '../../src/proxy/listener/splice.ts';
import { type FirstBytes, type SteeredConnection, startTransparentListener } from '../../src/proxy/listener/transparent.ts';
import { type RoutingTable, routingTable } from '../../src/proxy/route.ts';
import { createSteeredHandler } from '../../src/proxy/transparent.ts';
import type { TunnelParts } from '../../src/proxy/tunnel.ts';
import { createFakeClock } from '../fakes/clock.ts';

const target = (name: string, host: string, ports: readonly number[], cleartextAllowed = false): Target => ({
  name,
  hosts: [host],
  ports,
  cleartextAllowed,
  trustBundlePem: '',
  protocol: 'auto',
  tlsVersionMin: 'TLSv1.2',
  echo: 'redact',
  paths: 'canonical',
  placeholder: '',
});

const table = routingTable({
  configurationVersion: 'v1',
  targets: [
    target('api', 'api.example.com', [443, 8443]),
    target('old', 'old.example.com', [80], true),
    target('box', '203.0.114.7', [443]),
  ],
});

interface Steered {
  /** What was done with it, in words. */
  readonly done: readonly string[];
  readonly events: readonly AccessEventDraft[];
}

interface Case {
  readonly original?: DialAddress;
  /** 'never': looking at it at all is wrong. */
  readonly seen: FirstBytes | 'never';
  readonly onUnmatched?: 'tunnel' | 'refuse';
  readonly privateAllowed?: boolean;
  readonly table?: () => RoutingTable;
  readonly dialFault?: Fault;
}

/** Steers one connection with everything around the decision standing still. */
const steer = async ({
  original = { address: '203.0.114.1', port: 443 },
  seen,
  onUnmatched,
  privateAllowed,
  dialFault,
  ...rest
}: Case): Promise<Steered> => {
  const done: string[] = [];
  const events: AccessEventDraft[] = [];
  const parts: TunnelParts = {
    table: rest.table ?? (() => table),
    routePolicy: { onUnmatched: onUnmatched ?? 'tunnel' },
    unmatchedPrivateAllowed: privateAllowed ?? false,
    interception: { permit: () => undefined, contextFor: (host) => ({ context: host }) },
    dialer: {
      open: (destination: Destination, _policy, tls, fixed) => {
        done.push(
          `dialled ${hostPort(destination)} at ${fixed ? `${fixed.address} ${fixed.port}` : 'wherever it is'}${tls ? ' with TLS' : ''}`,
        );
        return dialFault ? Promise.reject(dialFault) : Promise.resolve({ socket: {} as Socket, alpn: '' });
      },
    },
    events: {
      intent: () => undefined,
      record: (draft) => void events.push(draft),
      waiting: () => 0,
      flush: () => Promise.resolve(0),
      close: () => undefined,
    },
    metrics: createMetrics('proxy'),
    clock: createFakeClock(),
    log: createLog({ role: 'proxy', level: 'error', write: () => undefined }),
  };
  const connection: SteeredConnection = {
    id: 'an id',
    acceptedAtMs: 0,
    acceptedAtMonotonic: 0,
    original,
    look: () => (seen === 'never' ? Promise.reject(new Error('it was looked at')) : Promise.resolve(seen)),
    serve: ({ connect, schemes, tls }) => {
      const leaf = tls ? ` with a leaf for ${tls.secureContext.context}` : '';
      done.push(`served as ${connect ?? 'what its requests name'}, ${schemes.tls} or ${schemes.clear}${leaf}`);
    },
    splice: () => {
      done.push('joined');
      return Promise.resolve({ fromClientBytes: 3, fromTargetBytes: 4 });
    },
    refuse: ({ code }) => void done.push(`refused: ${code}`),
  };
  await createSteeredHandler(parts)(connection);
  return { done, events };
};

const passedTo = (name: string, address = '203.0.114.1 443'): readonly string[] => [`dialled ${name} at ${address}`, 'joined'];

t.test('the first bytes decide what a steered connection is for, and only on a port that a target names', async (t) => {
  for (const [what, given, done] of [
    [
      'TLS to a target',
      { seen: { kind: 'tls', name: 'api.example.com' } },
      ['served as api.example.com:443, https or http with a leaf for api.example.com'],
    ],
    [
      'HTTP to a target',
      { original: { address: '203.0.114.1', port: 80 }, seen: { kind: 'http1', name: 'old.example.com' } },
      ['served as old.example.com:80, https or http with a leaf for old.example.com'],
    ],
    ['TLS to another name', { seen: { kind: 'tls', name: 'other.example.com' } }, passedTo('other.example.com:443')],
    [
      'TLS to a target’s name on another target’s port',
      { original: { address: '203.0.114.1', port: 80 }, seen: { kind: 'tls', name: 'api.example.com' } },
      passedTo('api.example.com:80', '203.0.114.1 80'),
    ],
    ['TLS without a name', { seen: { kind: 'tls', name: undefined } }, passedTo('203.0.114.1:443')],
    [
      'TLS without a name to a target that is an address',
      { original: { address: '203.0.114.7', port: 443 }, seen: { kind: 'tls', name: undefined } },
      ['served as 203.0.114.7:443, https or http with a leaf for 203.0.114.7'],
    ],
    [
      'another name at the address of a target',
      { original: { address: '203.0.114.7', port: 443 }, seen: { kind: 'tls', name: 'other.example.com' } },
      passedTo('other.example.com:443', '203.0.114.7 443'),
    ],
    ['another protocol, or none yet', { seen: { kind: 'other' } }, passedTo('203.0.114.1:443')],
    [
      'HTTP/2 in clear text where a target takes it',
      { original: { address: '203.0.114.1', port: 80 }, seen: { kind: 'h2' } },
      ['served as what its requests name, https or http'],
    ],
    ['HTTP/2 in clear text where no target takes it', { seen: { kind: 'h2' } }, passedTo('203.0.114.1:443')],
    [
      'a port that no target names',
      { original: { address: '203.0.114.1', port: 25 }, seen: 'never' },
      passedTo('203.0.114.1:25', '203.0.114.1 25'),
    ],
    ['the same over IPv6', { original: { address: '2600::1', port: 25 }, seen: 'never' }, passedTo('[2600::1]:25', '2600::1 25')],
  ] as const satisfies readonly (readonly [string, Case, readonly string[]])[]) {
    t.strictSame((await steer(given)).done, done, what);
  }
});

t.test('what must not pass is refused before anything is dialled', async (t) => {
  const elsewhere: Case = { original: { address: '203.0.114.1', port: 25 }, seen: 'never' };
  const notReady = (): never => {
    throw new Fault('not_ready');
  };
  for (const [what, given, code] of [
    ['before the proxy knows its targets', { ...elsewhere, table: notReady }, 'not_ready'],
    ['where nothing else may pass', { ...elsewhere, onUnmatched: 'refuse' }, 'destination_unmatched'],
    ['where no other name may pass', { seen: { kind: 'tls', name: 'other.example.com' }, onUnmatched: 'refuse' }, 'destination_unmatched'],
    [
      'to a metadata service',
      { ...elsewhere, original: { address: '169.254.169.254', port: 25 }, privateAllowed: true },
      'destination_prohibited',
    ],
    ['to a link', { ...elsewhere, original: { address: 'fe80::1', port: 25 }, privateAllowed: true }, 'destination_prohibited'],
    ['to loopback', { ...elsewhere, original: { address: '127.0.0.1', port: 25 }, privateAllowed: true }, 'destination_prohibited'],
    ['to a private address', { ...elsewhere, original: { address: '10.0.0.1', port: 25 } }, 'destination_prohibited'],
    [
      'of requests that would pass to a metadata service',
      { original: { address: '169.254.169.254', port: 80 }, seen: { kind: 'h2' } },
      'destination_prohibited',
    ],
  ] as const satisfies readonly (readonly [string, Case, string])[]) {
    const { done, events } = await steer(given);
    t.strictSame(done, [`refused: ${code}`], what);
    t.match(events, [{ kind: 'refusal', scheme: 'tunnel', method: '', outcome: { fault: code } }]);
  }
  t.strictSame(
    (await steer({ original: { address: '10.0.0.1', port: 25 }, seen: 'never', privateAllowed: true })).done,
    passedTo('10.0.0.1:25', '10.0.0.1 25'),
  );
});

t.test('a target’s name is served wherever the program was sent, and its address asked nobody', async (t) => {
  for (const address of ['10.0.0.1', '169.254.169.254', '127.0.0.1']) {
    const { done } = await steer({ original: { address, port: 443 }, seen: { kind: 'tls', name: 'api.example.com' } });
    t.strictSame(done, ['served as api.example.com:443, https or http with a leaf for api.example.com']);
  }
});

t.test('what passed is recorded with its bytes, and what could not be reached with its fault', async (t) => {
  const { events } = await steer({ seen: { kind: 'tls', name: 'other.example.com' } });
  t.match(events, [
    {
      kind: 'pass',
      scheme: 'tunnel',
      method: '',
      destination: 'other.example.com:443',
      target: '',
      outcome: { status: 200, fault: '', requestBodyBytes: 3, responseBodyBytes: 4 },
    },
  ]);
  const failed = await steer({ seen: { kind: 'other' }, dialFault: new Fault('target_refused') });
  t.equal(failed.done.at(-1), 'refused: target_refused');
  t.match(failed.events, [{ kind: 'refusal', destination: '203.0.114.1:443', outcome: { fault: 'target_refused' } }]);
});

t.test('the kernel’s answer is read for both families', async (t) => {
  const family = (number: number): Buffer => Buffer.from(Uint16Array.of(number).buffer);
  const v4 = Buffer.concat([family(2), Buffer.from('01bbc0000207', 'hex'), Buffer.alloc(8)]);
  const v6 = (address: string): Buffer =>
    Buffer.concat([family(10), Buffer.from('01bb00000000', 'hex'), Buffer.from(address, 'hex'), Buffer.alloc(4)]);
  t.strictSame(readSockaddr(v4), { address: '192.0.2.7', port: 443 });
  t.strictSame(readSockaddr(v6('20010db8000000000000000000000001')), { address: '2001:db8::1', port: 443 });
  t.strictSame(readSockaddr(v6('00000000000000000000ffffc0000207')), { address: '192.0.2.7', port: 443 });
  for (const bytes of [
    Buffer.alloc(0),
    v4.subarray(0, 7),
    v6('20010db8000000000000000000000001').subarray(0, 23),
    Buffer.concat([family(1), Buffer.alloc(26)]),
  ])
    t.equal(readSockaddr(bytes), undefined);
});

// The listener, with real sockets on loopback, where nothing is steered: `originalOf` stands in for the kernel.

interface Heard {
  readonly port: number;
  readonly connections: SteeredConnection[];
  readonly served: (Purpose & { readonly head: string })[];
  readonly faults: Fault[];
  readonly next: () => Promise<SteeredConnection>;
}

const startListening = async (t: Test, original: DialAddress | undefined): Promise<Heard> => {
  const [connections, served, faults]: [SteeredConnection[], Heard['served'], Fault[]] = [[], [], []];
  let arrived = Promise.withResolvers<SteeredConnection>();
  const listener = await startTransparentListener({
    port: 0,
    clock: systemClock,
    listener: {
      serve: (_socket, head, purpose) => {
        served.push({ ...purpose, head: head.toString() });
        return Promise.resolve();
      },
      track: (socket) => {
        t.teardown(() => socket.destroy());
        return true;
      },
      join: splice,
    },
    handler: (connection) => {
      connections.push(connection);
      arrived.resolve(connection);
      return Promise.resolve();
    },
    refused: (fault) => void faults.push(fault),
    originalOf: () => original,
  });
  t.teardown(() => listener.close());
  t.strictSame(
    listener.addresses.map(({ address, port }) => [address, port === listener.addresses[0]?.port]),
    [
      ['127.0.0.1', true],
      ['::1', true],
    ],
    'both loopback addresses, one port',
  );
  const next = async (): Promise<SteeredConnection> => {
    const connection = await arrived.promise;
    arrived = Promise.withResolvers();
    return connection;
  };
  return { port: listener.addresses[0]?.port as number, connections, served, faults, next };
};

const program = (t: Test, port: number, host = '127.0.0.1'): Socket => {
  const socket = connect({ port, host, allowHalfOpen: true, noDelay: true });
  socket.on('error', () => undefined);
  t.teardown(() => socket.destroy());
  return socket;
};

const far: DialAddress = { address: '203.0.114.1', port: 443 };

t.test('a connection that was not steered is closed and counted, over IPv4 and IPv6', async (t) => {
  const heard = await startListening(t, undefined);
  for (const host of ['127.0.0.1', '::1']) {
    const socket = program(t, heard.port, host);
    socket.resume();
    await new Promise((resolve) => socket.once('close', resolve));
  }
  t.strictSame(heard.connections, []);
  t.match(heard.faults, [{ code: 'authority_invalid' }, { code: 'authority_invalid' }]);
});

t.test('first bytes are told for what they are, and served with all of them', async (t) => {
  const heard = await startListening(t, far);
  for (const [bytes, seen] of [
    ['GET / HTTP/1.1\r\nHost: api.example.com:8080\r\n\r\n', { kind: 'http1', name: 'api.example.com' }],
    ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', { kind: 'h2' }],
    ['\x16\x03\x01\x00\x04\x01\x00\x00\x00', { kind: 'tls', name: undefined }],
    ['\x16\x03\x01\x00\x04\x02\x00\x00\x00', { kind: 'other' }],
    ['anything\r\n', { kind: 'other' }],
  ] as const) {
    program(t, heard.port).write(Buffer.from(bytes, 'latin1'));
    const connection = await heard.next();
    t.strictSame(connection.original, far);
    t.strictSame(await connection.look(), seen, JSON.stringify(bytes));
    connection.serve({ connect: 'api.example.com:443', schemes: { tls: 'https', clear: 'http' }, tls: undefined });
  }
  t.match(heard.served.at(-1), { connect: 'api.example.com:443', originalAddress: far, head: '' }, 'they are in the socket again');
});

t.test('a silent program, and one that has closed its side, wait for the server and are passed', async (t) => {
  const heard = await startListening(t, far);
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    let got = '';
    socket.write('220 hello ');
    socket.on('data', (chunk) => (got += chunk.toString()));
    socket.on('end', () => socket.end(`got ${JSON.stringify(got)}`));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  for (const bytes of ['', 'GE']) {
    for (const closes of ['before', 'after']) {
      const socket = program(t, heard.port);
      if (closes === 'before') socket.end(bytes);
      const connection = await heard.next();
      t.strictSame(await connection.look(), { kind: 'other' });
      const joined = connection.splice(program(t, (server.address() as AddressInfo).port));
      if (closes === 'after') socket.end(bytes);
      let answer = '';
      for await (const chunk of socket) answer += String(chunk);
      t.equal(answer, `220 hello got ${JSON.stringify(bytes)}`);
      t.strictSame(await joined, { fromClientBytes: bytes.length, fromTargetBytes: answer.length });
    }
  }
});

t.test('an answer that is still on its way when the far end is gone is delivered whole', async (t) => {
  let got = '';
  let deliver: () => void = () => t.fail('nothing was written');
  const client = new Duplex({
    read: () => undefined,
    write: (chunk, _encoding, done) => {
      deliver = () => {
        got += String(chunk);
        done();
      };
    },
  });
  const target = new Duplex({ read: () => undefined, write: (_chunk, _encoding, done) => done() });
  const joined = splice(client, target, Buffer.alloc(0));
  client.push(null);
  target.push('an answer');
  target.push(null);
  await once(target, 'close');
  deliver();
  await joined;
  t.equal(got, 'an answer');
  t.ok(client.writableFinished, 'it ended, rather than broke off');
});

t.test('a refusal says why in the program’s protocol, and resets where it has none', async (t) => {
  const heard = await startListening(t, far);
  const refusedAfter = async (bytes: Buffer): Promise<Buffer | string> => {
    const socket = program(t, heard.port);
    socket.write(bytes);
    const connection = await heard.next();
    await connection.look();
    connection.refuse(new Fault('destination_unmatched'));
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of socket) chunks.push(chunk as Buffer);
    } catch (error) {
      return (error as NodeJS.ErrnoException).code as string;
    }
    socket.end();
    await once(socket, 'close');
    return Buffer.concat(chunks);
  };
  t.match(
    String(await refusedAfter(Buffer.from('GET / HTTP/1.1\r\nHost: a.example\r\n\r\n'))),
    /^HTTP\/1\.1 403 [^]*"code":"destination_unmatched"/,
  );
  t.strictSame(
    await refusedAfter(Buffer.from('16030100040100000000', 'hex')),
    Buffer.from('15030100020231', 'hex'),
    'the alert access_denied',
  );
  t.equal(await refusedAfter(Buffer.from('anything\r\n')), 'ECONNRESET');
});

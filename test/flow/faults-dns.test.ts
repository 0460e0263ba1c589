import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { isIPv4 } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import t, { type Test } from 'tap';
import { podsArePossible, startPod } from '../support/namespace.ts';

/**
 * A name server that is not there, slow, silent, garbled or lying, asked by the system's own resolver in a pod whose name server it is: each
 * name ends in its fault within the bound or leads where it may, and the next one is right.
 */
t.setTimeout(120_000);

/** An address of the public kind: it is named, and never dialled here. */
const right = '8.8.8.8';
const types = { a: 1, cname: 5, aaaa: 28 } as const;

interface Query {
  readonly id: number;
  readonly name: string;
  readonly type: number;
  /** The question as it came, to be repeated. */
  readonly question: Buffer;
}

const readQuery = (packet: Buffer): Query => {
  const labels: string[] = [];
  let at = 12;
  for (let length = packet[at] as number; length > 0; length = packet[at] as number) {
    labels.push(packet.toString('latin1', at + 1, at + 1 + length));
    at += 1 + length;
  }
  return {
    id: packet.readUInt16BE(0),
    name: labels.join('.').toLowerCase(),
    type: packet.readUInt16BE(at + 1),
    question: packet.subarray(12, at + 5),
  };
};

const nameBytes = (name: string): Buffer =>
  Buffer.concat([...name.split('.').map((label) => Buffer.concat([Buffer.from([label.length]), Buffer.from(label)])), Buffer.from([0])]);

const addressBytes = (address: string): Buffer => {
  if (isIPv4(address)) return Buffer.from(address.split('.').map(Number));
  const [left = '', tail] = address.split('::');
  const groups = (text: string): string[] => (text === '' ? [] : text.split(':'));
  const after = groups(tail ?? '');
  const all = [...groups(left), ...Array.from({ length: 8 - groups(left).length - after.length }, () => '0'), ...after];
  return Buffer.from(all.map((group) => group.padStart(4, '0')).join(''), 'hex');
};

const recordOf = (name: string, type: number, data: Buffer): Buffer => {
  const head = Buffer.alloc(10);
  head.writeUInt16BE(type, 0);
  head.writeUInt16BE(1, 2);
  head.writeUInt16BE(data.length, 8);
  return Buffer.concat([nameBytes(name), head, data]);
};

const answerTo = ({ id, question }: Query, records: readonly Buffer[] = [], { flags = 0x8180, asked = question } = {}): Buffer => {
  const head = Buffer.alloc(12);
  head.writeUInt16BE(id, 0);
  head.writeUInt16BE(flags, 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt16BE(records.length, 6);
  return Buffer.concat([head, asked, ...records]);
};

/** Those of the addresses that are of the type asked for. */
const addresses = (query: Query, ...all: readonly string[]): Buffer =>
  answerTo(
    query,
    all
      .filter((address) => (query.type === types.a) === isIPv4(address))
      .map((address) => recordOf(query.name, query.type, addressBytes(address))),
  );

type Behaviour = (query: Query, reply: (packet: Buffer) => void) => void;
const say =
  (make: (query: Query) => Buffer): Behaviour =>
  (query, reply) =>
    reply(make(query));
const failing = (code: number): Behaviour => say((query) => answerTo(query, [], { flags: 0x8180 | code }));

const unresolved = 'target_unresolved';
const prohibited = 'destination_prohibited';

/** [what, behaviour, what a name ends in] */
const scenarios: readonly (readonly [string, Behaviour, string])[] = [
  ['it knows no such name', failing(3), unresolved],
  ['it fails', failing(2), unresolved],
  ['it refuses', failing(5), unresolved],
  ['it knows the name and no address', say((query) => answerTo(query)), unresolved],
  ['it is silent', () => undefined, unresolved],
  ['it answers when nobody waits any more', (query, reply) => void setTimeout(() => reply(addresses(query, right)), 4_000), unresolved],
  ['it is slow', (query, reply) => void setTimeout(() => reply(addresses(query, right)), 300), right],
  ['garbage', say(() => Buffer.from('garbage that is longer than a head of twelve bytes')), unresolved],
  ['half an answer', say((query) => addresses(query, right).subarray(0, 20)), unresolved],
  ['another id', say((query) => addresses({ ...query, id: query.id ^ 1 }, '10.0.0.1')), unresolved],
  [
    'an answer to another question',
    say((query) =>
      answerTo(query, [recordOf('other.test', query.type, addressBytes(right))], {
        asked: Buffer.concat([nameBytes('other.test'), query.question.subarray(-4)]),
      }),
    ),
    unresolved,
  ],
  [
    'an address for another name',
    say((query) => answerTo(query, query.type === types.a ? [recordOf('other.test', types.a, addressBytes('10.0.0.1'))] : [])),
    unresolved,
  ],
  [
    'a name that is an alias of itself',
    say((query) => answerTo(query, [recordOf(query.name, types.cname, nameBytes(query.name))])),
    unresolved,
  ],
  [
    'an alias that leads to a metadata service',
    say((query) =>
      answerTo(query, [
        recordOf(query.name, types.cname, nameBytes('metadata.internal')),
        ...(query.type === types.a ? [recordOf('metadata.internal', types.a, addressBytes('169.254.169.254'))] : []),
      ]),
    ),
    prohibited,
  ],
  [
    'an alias that leads to a good address',
    say((query) =>
      answerTo(query, [
        recordOf(query.name, types.cname, nameBytes('cdn.test')),
        ...(query.type === types.a ? [recordOf('cdn.test', types.a, addressBytes(right))] : []),
      ]),
    ),
    right,
  ],
  ['a private address', say((query) => addresses(query, '10.0.0.1')), prohibited],
  ['a loopback address', say((query) => addresses(query, '127.0.0.1')), prohibited],
  ['no place at all', say((query) => addresses(query, '0.0.0.0')), prohibited],
  ['a good address and a bad one', say((query) => addresses(query, right, '10.0.0.1')), prohibited],
  ['a good address of one family and a bad one of the other', say((query) => addresses(query, right, 'fd00:ec2::254')), prohibited],
  ['a metadata service in IPv6', say((query) => addresses(query, 'fd00:ec2::254')), prohibited],
  ['a mapped address', say((query) => addresses(query, '::ffff:a9fe:a9fe')), prohibited],
  ['a metadata service behind NAT64', say((query) => addresses(query, '64:ff9b::a9fe:a9fe')), prohibited],
  ['a metadata service behind 6to4', say((query) => addresses(query, '2002:a9fe:a9fe::1')), prohibited],
];

t.test('name servers that do wrong', async (t) => {
  if (!podsArePossible(t)) return;
  const pod = startPod(t);
  writeFileSync(join('/etc/netns', pod.name, 'resolv.conf'), `nameserver ${pod.outside.ipv4}\noptions timeout:1 attempts:1\n`);
  writeFileSync(join('/etc/netns', pod.name, 'nsswitch.conf'), 'hosts: files dns\n');
  let behaviour: Behaviour = say((query) => addresses(query, right));
  let queries = 0;
  const listen = async (): Promise<Socket> => {
    const socket = createSocket('udp4');
    socket.on('message', (packet: Buffer, from: RemoteInfo) => {
      queries += 1;
      behaviour(readQuery(packet), (answer) => {
        try {
          socket.send(answer, from.port, from.address);
        } catch {
          // It was closed while it took its time.
        }
      });
    });
    socket.bind(53, pod.outside.ipv4);
    await once(socket, 'listening');
    return socket;
  };
  let server = await listen();
  t.teardown(() => server.close());
  const child = pod.start(process.execPath, [join(import.meta.dirname, 'faults/resolve.ts')], { timeoutMs: 110_000 });
  t.teardown(() => child.kill());
  const waiting = new Map<number, (answer: { result: string; tookMs: number }) => void>();
  const { promise: ready, resolve: isReady } = Promise.withResolvers<void>();
  let said = '';
  child.stderr?.on('data', (chunk) => (said += String(chunk)));
  createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', (line) => {
    if (line === 'ready') return isReady();
    const answer = JSON.parse(line) as { id: number; result: string; tookMs: number };
    waiting.get(answer.id)?.(answer);
    waiting.delete(answer.id);
  });
  await Promise.race([ready, once(child, 'exit').then(() => Promise.reject(new Error(said)))]);
  let nextId = 0;
  const resolve = (host: string, timeoutMs = boundMs): Promise<{ result: string; tookMs: number }> =>
    new Promise((settle) => {
      nextId += 1;
      waiting.set(nextId, settle);
      child.stdin?.write(`${JSON.stringify({ id: nextId, host, timeoutMs })}\n`);
    });
  let count = 0;
  const isRightAgain = async (t: Test, name: string): Promise<void> => {
    behaviour = say((query) => addresses(query, right));
    t.equal((await resolve(`after-${name}`, 10_000)).result, right, 'the next name is right');
  };

  for (const [i, [what, does, wanted]] of scenarios.entries()) {
    await t.test(`${what}: ${wanted === right ? 'the address' : wanted}`, async (t) => {
      count += 1;
      behaviour = does;
      const { result, tookMs } = await resolve(`name-${i}.outrider.test`);
      t.equal(result, wanted);
      t.ok(tookMs < boundMs + 1_000, `${Math.round(tookMs)} ms`);
      await isRightAgain(t, `${i}.outrider.test`);
    });
  }
  await t.test('it is gone: target_unresolved', async (t) => {
    count += 1;
    await new Promise<void>((done) => server.close(() => done()));
    const { result, tookMs } = await resolve('gone.outrider.test');
    t.equal(result, unresolved);
    t.ok(tookMs < boundMs + 1_000);
    server = await listen();
    await isRightAgain(t, 'gone.outrider.test');
  });
  await t.test(
    'answers that change with every query: 10,000 names are asked for once each, and no bad address comes through',
    async (t) => {
      count += 1;
      const tries = 10_000;
      let isBad = false;
      behaviour = (query, reply) => {
        if (query.type !== types.a) return reply(answerTo(query));
        isBad = !isBad;
        reply(addresses(query, isBad ? '169.254.169.254' : right));
      };
      const before = queries;
      const results: Record<string, number> = {};
      for (let i = 0; i < tries; i += 100)
        for (const { result } of await Promise.all(Array.from({ length: 100 }, (_, j) => resolve(`${i + j}.rebinding.test`, 60_000))))
          results[result] = (results[result] ?? 0) + 1;
      t.strictSame(Object.keys(results).toSorted(), [right, prohibited].toSorted());
      t.equal((results[right] ?? 0) + (results[prohibited] ?? 0), tries);
      // One for each family.
      t.ok(queries - before <= 2 * tries, `${queries - before} queries`);
    },
  );
  t.comment(`${count} scenarios`);
  child.kill();
});

/** What a name may take here; resolv.conf gives the server a second. */
const boundMs = 2_000;

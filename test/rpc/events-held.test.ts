/** What reporters can make a collector hold while it stores: a bound for one stream, for one connection, and for all together. */
import { once } from 'node:events';
import type { ClientHttp2Session, ClientHttp2Stream } from 'node:http2';
import t, { type Test } from 'tap';
import { limits } from '../../src/core/limits.ts';
import type { RpcServer } from '../../src/rpc/server.ts';
import { eventBatchBytes } from '../../src/rpc/wire.ts';
import { endOf, rawCall, rawSession } from './raw-session.ts';
import { collector, createDomain, event } from './trust-domain.ts';

const domain = createDomain();
const svid = domain.svid();

const connectTo = async (t: Test, server: RpcServer): Promise<ClientHttp2Session> => {
  const session = rawSession(t, server, domain, svid);
  await once(session, 'remoteSettings');
  return session;
};

const record = (session: ClientHttp2Session): ClientHttp2Stream => rawCall(session, '/outrider.v1.AccessEvents/Record');

/** Just below the longest message there may be. */
const batch = (): Buffer => {
  const events = Array.from({ length: 140 }, (_, i) => event(i + 1, { path: `/${'x'.repeat(7_000)}` }));
  const bytes = eventBatchBytes({ bootId: 'boot', events });
  const head = Buffer.alloc(5);
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
};

/** A store that is given batches and keeps none until it is told to. */
const slowStore = () => {
  let open: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => (open = resolve));
  let taken = 0;
  const waiting: { count: number; resolve: () => void }[] = [];
  return {
    open,
    taken: () => taken,
    tookAtLeast: (count: number): Promise<void> =>
      new Promise((resolve) => (taken >= count ? resolve() : void waiting.push({ count, resolve }))),
    record: async (_: unknown, __: string, events: readonly { sequence: number }[]): Promise<number> => {
      taken += 1;
      for (const { count, resolve } of waiting) if (taken >= count) resolve();
      await opened;
      return events.at(-1)?.sequence ?? 0;
    },
  };
};

t.test('while a batch is being stored, the next ones of its stream stay with their proxy', async (t) => {
  const store = slowStore();
  const session = await connectTo(t, await collector(t, domain, store.record));
  const stream = record(session);
  const one = batch();
  const all = Buffer.concat(Array.from({ length: 8 }, () => one));
  let sent = 0;
  // One after the other: what is written together is reported together.
  const sendOn = (): void => {
    const piece = all.subarray(sent, sent + 16 * 1024);
    if (piece.length === 0) return;
    stream.write(piece, () => {
      sent += piece.length;
      sendOn();
    });
  };
  sendOn();
  await store.tookAtLeast(1);
  const ping = (): Promise<void> => new Promise((resolve) => session.ping(() => resolve()));
  for (let [pings, before] = [0, -1]; pings < 50; pings = sent === before ? pings + 1 : 0) {
    before = sent;
    await ping();
  }
  t.equal(store.taken(), 1);
  t.ok(sent < one.length + 256 * 1024, `${sent} bytes were sent of batches of ${one.length}`);
  store.open();
  await store.tookAtLeast(8);
});

t.test('a connection has few streams of events at a time, and others do not suffer by it', async (t) => {
  const store = slowStore();
  store.open();
  const server = await collector(t, domain, store.record);
  const [session, replica] = [await connectTo(t, server), await connectTo(t, server)];
  const streams = Array.from({ length: limits.recordStreamsMax }, () => record(session));
  t.equal(await endOf(record(session)), '8 overloaded');
  for (const stream of [...streams, record(replica)]) {
    stream.write(batch());
    await once(stream, 'response');
    t.equal(stream.destroyed, false);
  }
  streams[0]?.end();
  await endOf(streams[0] as ClientHttp2Stream);
  const next = record(session);
  next.write(batch());
  t.equal(await Promise.race([once(next, 'data').then(() => 'stored'), endOf(next)]), 'stored', 'who leaves makes room');
});

t.test('all that waits for the store is bounded, and who is turned away may come again', async (t) => {
  const store = slowStore();
  const server = await collector(t, domain, store.record);
  const one = batch();
  const fit = Math.floor(limits.recordBytesMax / (one.length - 5));
  let session = await connectTo(t, server);
  for (let i = 0; i < fit; i += 1) {
    if (i % limits.recordStreamsMax === 0) session = await connectTo(t, server);
    record(session).write(one);
  }
  await store.tookAtLeast(fit);
  const late = record(await connectTo(t, server));
  late.write(one);
  t.equal(await endOf(late), '8 overloaded');
  t.equal(store.taken(), fit);
  store.open();
  const again = record(await connectTo(t, server));
  again.write(one);
  t.equal(await Promise.race([once(again, 'data').then(() => 'stored'), endOf(again)]), 'stored');
});

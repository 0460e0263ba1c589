import { appendFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { limits } from '../../src/core/limits.ts';
import { createFinder } from '../../src/collector/query.ts';
import { startCollector } from '../../src/collector/run.ts';
import { findEvents } from '../../src/rpc/client.ts';
import { spiffeId } from '../../src/core/spiffe-id.ts';
import { collectorSettings, domain, proxyTo, until, workloadId } from './ends.ts';
import { collectorId, silent } from './trust-domain.ts';

const mine = 'spiffe://outrider.test/ns/orders/sa/api';
const any = { target: '', traceId: '', limit: limits.foundEventsMax };

const line = (fields: object): string => `${JSON.stringify({ kind: 'intent', reporter: mine, target: 'echo', ...fields })}\n`;

const storeOf = (t: Test, ...lines: readonly string[]): string => {
  const file = join(t.testdir(), 'events.jsonl');
  writeFileSync(file, lines.join(''));
  return file;
};

const numbers = (events: readonly string[]): unknown[] => events.map((event) => (JSON.parse(event) as { n: number }).n);

t.test('a workload finds its own events by target and trace, oldest first', async (t) => {
  const file = storeOf(t, line({ n: 1, traceId: 'aa' }), line({ n: 2, target: 'crm', traceId: 'aa' }), line({ n: 3, traceId: 'bb' }));
  const find = createFinder(file);
  const found = async (query: object) => numbers((await find({ spiffeId: mine }, { ...any, ...query })).events);
  t.same(await found({}), [1, 2, 3]);
  t.same(await found({ target: 'echo' }), [1, 3]);
  t.same(await found({ traceId: 'aa' }), [1, 2]);
  t.same(await found({ target: 'crm', traceId: 'bb' }), []);
  appendFileSync(file, line({ n: 4, traceId: 'bb' }));
  t.same(await found({ traceId: 'bb' }), [3, 4], 'what came since is there');
});

t.test('nobody finds the events of others, however they are named in them', async (t) => {
  const other = 'spiffe://outrider.test/ns/orders/sa/other';
  const find = createFinder(
    storeOf(
      t,
      line({ n: 1, reporter: other, workload: mine, target: mine, path: `"reporter":"${mine}"` }),
      line({ n: 2, reporter: `${mine}-2` }),
      line({ n: 3, reporter: undefined, nested: { reporter: mine } }),
    ),
  );
  t.same(await find({ spiffeId: mine }, any), { events: [], isComplete: true });
});

t.test('the latest come within the limit, and the answer says that there are more', async (t) => {
  const find = createFinder(storeOf(t, ...[1, 2, 3, 4].map((n) => line({ n }))));
  const { events, isComplete } = await find({ spiffeId: mine }, { ...any, limit: 2 });
  t.same([numbers(events), isComplete], [[3, 4], false]);
  t.equal((await find({ spiffeId: mine }, { ...any, limit: 4 })).isComplete, true);
});

t.test('long events are as many as an answer takes', async (t) => {
  const path = 'x'.repeat(200 * 1024);
  const find = createFinder(storeOf(t, ...[1, 2, 3, 4].map((n) => line({ n, path }))));
  const { events, isComplete } = await find({ spiffeId: mine }, any);
  t.same([numbers(events), isComplete], [[3, 4], false]);
});

t.test('an answer is measured as it is sent, whatever the events are written in', async (t) => {
  const path = '漢'.repeat(110 * 1024);
  const find = createFinder(storeOf(t, ...[1, 2, 3].map((n) => line({ n, path }))));
  const { events, isComplete } = await find({ spiffeId: mine }, any);
  t.same([numbers(events), isComplete], [[3], false]);
});

t.test('only the end of a large store is read, and the answer says so', async (t) => {
  const filler = line({ n: 0, reporter: 'somebody', path: 'y'.repeat(1_000) });
  const count = Math.ceil((limits.findBytesMax + 1) / filler.length);
  const find = createFinder(storeOf(t, line({ n: 1 }), filler.repeat(count), line({ n: 2 }), '{"n":3,"reporter":"cut'));
  const { events, isComplete } = await find({ spiffeId: mine }, any);
  t.same([numbers(events), isComplete], [[2], false]);
});

t.test('a store that is not there is a failure of the store, and more at a time than can be served are refused', async (t) => {
  const find = createFinder(join(t.testdir(), 'none.jsonl'));
  await t.rejects(find({ spiffeId: mine }, any), { code: 'event_store_failed' });
  const busy = createFinder(storeOf(t, line({})));
  const answers = await Promise.allSettled(Array.from({ length: limits.findsMax + 1 }, () => busy({ spiffeId: mine }, any)));
  t.same(
    answers.map((answer) => (answer.status === 'fulfilled' ? 'found' : (answer.reason as { code: string }).code)),
    [...Array.from({ length: limits.findsMax }, () => 'found'), 'overloaded'],
  );
  t.equal((await busy({ spiffeId: mine }, any)).events.length, 1, 'and then there is room again');
});

t.test('over gRPC the certificate says whose events they are', async (t) => {
  const { settings } = await collectorSettings(t);
  const running = await startCollector(settings, { log: silent });
  t.teardown(() => running.close());
  await running.ready();
  const { eventLog, request } = proxyTo(t, running.grpc.port);
  request();
  await until(() => eventLog.waiting() === 0);
  const collector = { address: `127.0.0.1:${running.grpc.port}`, spiffeId: collectorId };
  const own = await findEvents({ collector, svid: domain.svid(workloadId), query: { target: '', traceId: '', limit: 0 } });
  t.match(
    own.events.map((text) => JSON.parse(text) as object),
    [
      { kind: 'intent', reporter: workloadId },
      { kind: 'outcome', reporter: workloadId },
    ],
  );
  const stranger = domain.svid(spiffeId('outrider.test', 'ns', 'other', 'sa', 'other'));
  t.same(await findEvents({ collector, svid: stranger, query: { target: '', traceId: '', limit: 0 } }), { events: [], isComplete: true });
  const tooMany = { target: '', traceId: '', limit: limits.foundEventsMax + 1 };
  await t.rejects(findEvents({ collector, svid: stranger, query: tooMany }), { code: 'request_malformed' });
});

/** The proxy's event log against a collector in the test's hand and a clock that the test moves. */
import { setImmediate as turn } from 'node:timers/promises';
import * as fc from 'fast-check';
import t from 'tap';
import type { AccessEventDraft } from '../../src/core/access-event.ts';
import { Fault } from '../../src/core/fault.ts';
import { limits } from '../../src/core/limits.ts';
import { createEventLog, type EventLogOptions } from '../../src/proxy/event.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { draft, fakeStreams, fakeSvid, logLines, outcomeOf, proxyMetrics, sample, svidsInHand } from './event/fakes.ts';

const collector = { address: '127.0.0.1:1', spiffeId: 'spiffe://outrider.test/ns/outrider/sa/collector' };
const bootId = 'boot-1';

const setUp = (fields: Partial<EventLogOptions> = {}, svids = svidsInHand(fakeSvid())) => {
  const clock = createFakeClock();
  const metrics = proxyMetrics();
  const { lines, log } = logLines();
  const fake = fakeStreams(bootId);
  const eventLog = createEventLog({
    audit: 'required',
    queueMax: 20,
    reserved: 5,
    collector,
    svids,
    metrics,
    clock,
    log,
    bootId,
    random: () => 0.5,
    open: fake.open,
    ...fields,
  });
  /** Lets the batch delay pass and everything be written, one batch a turn. */
  const settle = async (): Promise<void> => {
    clock.advance(limits.eventBatchDelayMs);
    for (let i = 0; i < 60; i += 1) await turn();
  };
  return { clock, metrics, lines, eventLog, svids, settle, ...fake };
};

const refusal = (): AccessEventDraft => draft({ kind: 'refusal' });
const sequences = (events: readonly { readonly sequence: number }[]): number[] => events.map((e) => e.sequence);
const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1);

t.test('events are numbered from 1, sent in order in a batch, and kept until they are acknowledged', async (t) => {
  const { eventLog, settle, last, metrics } = setUp();
  const intent = draft();
  eventLog.intent(intent);
  eventLog.record(outcomeOf(intent));
  eventLog.record(draft({ kind: 'pass' }));
  t.equal(last().written.length, 0, 'nothing is sent on the turn of the request');
  await settle();
  t.same(last().batches, [0, 3], 'a question what is stored, then one batch');
  t.same(
    last().written.map((e) => [e.sequence, e.kind]),
    [
      [1, 'intent'],
      [2, 'outcome'],
      [3, 'pass'],
    ],
  );
  t.equal(eventLog.waiting(), 3);
  t.equal(await sample(metrics, 'outrider_proxy_events_queued'), 3);
  t.equal(await sample(metrics, 'outrider_proxy_collector_connected'), 0, 'open is not enough: the collector has to answer');
  last().on.stored(bootId, 2);
  t.equal(eventLog.waiting(), 1);
  last().acknowledge();
  t.equal(eventLog.waiting(), 0);
  t.equal(await sample(metrics, 'outrider_proxy_collector_connected'), 1);
  t.equal(await sample(metrics, 'outrider_proxy_events_queued'), 0);
  t.equal(await sample(metrics, 'outrider_proxy_events_sent_total'), 3);
  t.equal(await sample(metrics, 'outrider_proxy_events_acknowledged_total'), 3);
  eventLog.close();
});

t.test('under audit: required an intent that does not fit is refused; outcomes of admitted ones always fit', async (t) => {
  const { eventLog, metrics } = setUp({ queueMax: 20, reserved: 5 });
  const admitted: AccessEventDraft[] = [];
  let fault: unknown;
  for (let i = 0; i < 20 && fault === undefined; i += 1) {
    const intent = draft();
    try {
      eventLog.intent(intent);
      admitted.push(intent);
    } catch (error) {
      fault = error;
    }
  }
  t.match(fault, { name: 'Fault', code: 'event_backlog' });
  t.equal(admitted.length, 10, 'each intent takes a place and holds one for its outcome');
  for (const intent of admitted) eventLog.record(outcomeOf(intent));
  t.equal(eventLog.waiting(), 20);
  t.equal(await sample(metrics, 'outrider_proxy_events_lost_total{kind="outcome"}'), 0);
  t.equal(await sample(metrics, 'outrider_proxy_events_lost_total{kind="intent"}'), 0, 'a refused request is not a lost event');
  eventLog.close();
});

t.test(
  'when it is full, refusals and passes are dropped and counted; one loss record says how many, before the next event that fits',
  async (t) => {
    const { eventLog, settle, last, metrics } = setUp({ queueMax: 20, reserved: 5 });
    for (let i = 0; i < 18; i += 1) eventLog.record(refusal());
    eventLog.record(draft({ kind: 'pass' }));
    t.equal(eventLog.waiting(), 15, 'the reserve is not for them');
    t.equal(await sample(metrics, 'outrider_proxy_events_lost_total{kind="refusal"}'), 3);
    t.equal(await sample(metrics, 'outrider_proxy_events_lost_total{kind="pass"}'), 1);
    await settle();
    last().on.stored(bootId, 1);
    t.equal(eventLog.waiting(), 15, 'one place became free and the loss record took it');
    last().acknowledge();
    eventLog.record(refusal());
    await settle();
    t.same(
      last()
        .written.map(({ sequence, kind, lostCount }) => [sequence, kind, lostCount])
        .slice(14),
      [
        [15, 'refusal', 0],
        [16, 'loss', 4],
        [17, 'refusal', 0],
      ],
    );
    eventLog.close();
  },
);

t.test('a flood at a full queue does not fill the reserve with loss records', async (t) => {
  const { eventLog, settle, last } = setUp({ queueMax: 20, reserved: 5 });
  const open = draft();
  eventLog.intent(open);
  for (let i = 0; i < 1000; i += 1) eventLog.record(refusal());
  eventLog.record(outcomeOf(open));
  t.equal(eventLog.waiting(), 16);
  for (let i = 0; i < 1000; i += 1) eventLog.record(refusal());
  t.equal(eventLog.waiting(), 16);
  await settle();
  last().acknowledge();
  await settle();
  t.match(last().written.at(-1), { kind: 'loss', lostCount: 2000 - 14 });
  eventLog.close();
});

t.test('under audit: best_effort an intent that does not fit is counted, and the request goes on; so may its outcome', async (t) => {
  const { eventLog, metrics } = setUp({ audit: 'best_effort', queueMax: 8, reserved: 2 });
  const intents = Array.from({ length: 6 }, () => draft());
  for (const intent of intents) eventLog.intent(intent);
  t.equal(await sample(metrics, 'outrider_proxy_events_lost_total{kind="intent"}'), 2);
  for (const intent of intents) eventLog.record(outcomeOf(intent));
  t.equal(eventLog.waiting(), 8, 'four intents, four outcomes');
  t.equal(await sample(metrics, 'outrider_proxy_events_lost_total{kind="outcome"}'), 2, 'those of the two');
  eventLog.close();
});

t.test(
  'whatever comes in whatever order: every admitted intent has its outcome, numbers have no gap, nothing is lost uncounted',
  async (t) => {
    const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
    t.comment(`seed ${seed}`);
    const step = fc.constantFrom('intent', 'intent', 'outcome', 'refusal', 'acknowledge', 'break', 'time');
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 120 }), fc.boolean(), async (steps, isRequired) => {
        const { eventLog, clock, last, streams, settle } = setUp({
          audit: isRequired ? 'required' : 'best_effort',
          queueMax: 12,
          reserved: 3,
        });
        const stored = new Map<number, { kind: string; requestId: string; lostCount: number }>();
        const admitted: AccessEventDraft[] = [];
        const open: AccessEventDraft[] = [];
        let offered = 0;
        const acknowledge = (): void => {
          for (const e of last().written) stored.set(e.sequence, e);
          last().acknowledge();
        };
        for (const what of steps) {
          if (what === 'intent') {
            const intent = draft();
            try {
              eventLog.intent(intent);
              admitted.push(intent);
              open.push(intent);
              offered += 1;
            } catch {
              // Refused under audit: required, and not offered.
            }
          } else if (what === 'outcome') {
            const intent = open.shift();
            if (intent) {
              eventLog.record(outcomeOf(intent));
              offered += 1;
            }
          } else if (what === 'refusal') {
            eventLog.record(refusal());
            offered += 1;
          } else if (what === 'acknowledge') acknowledge();
          else if (what === 'break') last().end();
          else clock.advance(limits.reconnectPauseMaxMs);
        }
        for (const intent of open.splice(0)) {
          eventLog.record(outcomeOf(intent));
          offered += 1;
        }
        for (let i = 0; i < 4; i += 1) {
          clock.advance(limits.reconnectPauseMaxMs);
          await settle();
          acknowledge();
        }
        eventLog.close();
        const events = [...stored.values()];
        const lost = events.reduce((sum, e) => sum + e.lostCount, 0);
        const kept = events.filter((e) => e.kind !== 'loss').length;
        t.equal(Math.max(0, ...stored.keys()), stored.size, 'no gap');
        t.equal(kept + lost, offered, 'all are stored or reported');
        t.equal(eventLog.waiting(), 0);
        t.ok(streams.length >= 1);
        for (const { requestId } of admitted) {
          const isKept = events.some((e) => e.kind === 'intent' && e.requestId === requestId);
          const outcomes = events.filter((e) => e.kind === 'outcome' && e.requestId === requestId).length;
          if (isRequired) t.ok(isKept);
          if (isKept) t.equal(outcomes, 1);
        }
      }),
      { seed, numRuns: 40 },
    );
  },
);

t.test('after a break everything unacknowledged is sent again in order, after a pause that doubles', async (t) => {
  const { eventLog, settle, last, streams, clock } = setUp();
  for (let i = 0; i < 5; i += 1) eventLog.record(refusal());
  await settle();
  last().on.stored(bootId, 2);
  last().end();
  const pauses: number[] = [];
  for (let i = 0; i < 4; i += 1) {
    const before = streams.length;
    let waited = 0;
    while (streams.length === before) {
      clock.advance(10);
      waited += 10;
    }
    pauses.push(waited);
    if (i < 3) last().end();
  }
  t.same(pauses, [300, 600, 1200, 2400], 'by the middle random number');
  await settle();
  t.same(sequences(last().written), [3, 4, 5]);
  eventLog.close();
});

t.test('a stream that opens, answers and breaks at the first event is not retried at once', async (t) => {
  const { eventLog, last, streams, clock } = setUp();
  eventLog.record(refusal());
  for (let i = 0; i < 200; i += 1) {
    last().on.stored(bootId, 0);
    last().end('event_store_failed');
    clock.advance(1000);
  }
  t.ok(streams.length < 40, `${streams.length} streams in 200 s`);
  eventLog.close();
});

t.test('a collector that refuses the identity makes the proxy attest anew', async (t) => {
  const { eventLog, last, svids } = setUp();
  last().end('identity_refused');
  t.equal(svids.renewals(), 1);
  eventLog.close();
});

t.test('a new SVID opens a new stream with what is unacknowledged; the old one ends gracefully and its word still counts', async (t) => {
  const svids = svidsInHand(fakeSvid());
  const { eventLog, settle, streams } = setUp({}, svids);
  eventLog.record(refusal());
  eventLog.record(refusal());
  await settle();
  const next = fakeSvid();
  svids.change(next);
  t.equal(streams.length, 2);
  const [old, current] = streams as [(typeof streams)[0], (typeof streams)[0]];
  t.equal(old.isClosed, true);
  t.equal(current.svid, next);
  await settle();
  t.same(sequences(current.written), [1, 2]);
  old.acknowledge();
  t.equal(eventLog.waiting(), 0);
  old.end();
  eventLog.record(refusal());
  await settle();
  t.equal(streams.length, 2, 'the end of the old stream is nobody else’s end');
  t.same(sequences(current.written), [1, 2, 3]);
  eventLog.close();
});

t.test('before the first SVID events wait, and are sent when it comes', async (t) => {
  const svids = svidsInHand();
  const { eventLog, settle, streams, last } = setUp({}, svids);
  eventLog.record(draft({ kind: 'refusal', workload: '', attestationId: '' }));
  await settle();
  t.equal(streams.length, 0);
  svids.change(fakeSvid());
  await settle();
  t.same(sequences(last().written), [1]);
  eventLog.close();
});

t.test('an acknowledgement for another boot id, or beyond what was sent, changes nothing and is logged once', async (t) => {
  const { eventLog, settle, last, lines, metrics } = setUp();
  eventLog.record(refusal());
  eventLog.record(refusal());
  await settle();
  last().on.stored('boot-2', 2);
  last().on.stored(bootId, 3);
  last().on.stored(bootId, Number.NaN);
  last().on.stored(bootId, Number.POSITIVE_INFINITY);
  last().on.stored(bootId, -1);
  last().on.stored(bootId, 0);
  t.equal(eventLog.waiting(), 2);
  t.equal(lines.filter((l) => String(l['message']).includes('never sent')).length, 1);
  t.equal(await sample(metrics, 'outrider_proxy_events_acknowledged_total'), 0);
  last().on.stored(bootId, 2);
  last().on.stored(bootId, 1);
  t.equal(eventLog.waiting(), 0);
  eventLog.close();
});

t.test('a collector that takes events and acknowledges none is left for a new stream', async (t) => {
  const { eventLog, settle, last, streams, clock } = setUp();
  last().on.stored(bootId, 0);
  eventLog.record(refusal());
  await settle();
  clock.advance(limits.eventAcknowledgeTimeoutMs);
  t.equal(streams[0]?.isClosed, true);
  clock.advance(2 * limits.reconnectPauseMinMs);
  t.equal(streams.length, 2);
  await settle();
  t.same(sequences(last().written), [1]);
  last().acknowledge();
  clock.advance(10 * limits.eventAcknowledgeTimeoutMs);
  t.equal(streams.length, 2, 'nothing is expected when nothing is out');
  eventLog.close();
});

t.test('it writes no more while the stream is full, and goes on when it has drained', async (t) => {
  const { eventLog, settle, last } = setUp({ queueMax: 2000 });
  last().hasRoom = false;
  for (let i = 0; i < 500; i += 1) eventLog.record(refusal());
  await settle();
  t.same(last().batches, [0, 200]);
  last().hasRoom = true;
  last().on.drained();
  await settle();
  t.same(last().batches, [0, 200, 200, 100]);
  t.same(sequences(last().written), upTo(500));
  eventLog.close();
});

t.test('flush sends without delay, waits for the acknowledgement and says what was not stored', async (t) => {
  const { eventLog, last, clock, metrics } = setUp({ queueMax: 20, reserved: 5 });
  t.equal(await eventLog.flush(1000), 0, 'nothing to do');
  for (let i = 0; i < 17; i += 1) eventLog.record(refusal());
  const flushed = eventLog.flush(1000);
  await turn();
  t.match(last().written.at(-1), { kind: 'loss', lostCount: 2 }, 'a loss that was not reported yet is reported now');
  last().acknowledge();
  t.equal(await flushed, 0);
  eventLog.record(refusal());
  const late = eventLog.flush(1000);
  clock.advance(1000);
  t.equal(await late, 1);
  t.equal(await sample(metrics, 'outrider_proxy_events_lost_total{kind="refusal"}'), 2);
  eventLog.close();
});

t.test('flush does not sit out the pause after a failure', async (t) => {
  const { eventLog, last, streams } = setUp();
  last().end();
  eventLog.record(refusal());
  const flushed = eventLog.flush(60_000);
  t.equal(streams.length, 2);
  await turn();
  last().acknowledge();
  t.equal(await flushed, 0);
  eventLog.close();
});

t.test('close ends the stream and leaves no timer', async (t) => {
  const { eventLog, last, clock, streams } = setUp();
  eventLog.record(refusal());
  eventLog.close();
  t.equal(last().isClosed, true);
  t.equal(clock.waiting(), 0);
  eventLog.record(refusal());
  clock.advance(100_000);
  t.equal(streams.length, 1);
});

t.test('a stream whose opening or writing throws, or that ends while it is opened, is tried again, and loses nothing', async (t) => {
  const fake = fakeStreams(bootId);
  const failures: ('open' | 'end' | 'write')[] = ['open', 'end', 'write'];
  const { eventLog, settle, clock, lines } = setUp({
    open: (o) => {
      const failure = failures.shift();
      if (failure === 'open') throw new Fault('broker_untrusted');
      if (failure === 'end') o.on.ended(new Fault('broker_unavailable'));
      const channel = fake.open(o);
      const write = (): boolean => {
        throw new TypeError('cannot encode');
      };
      return failure === 'write' ? { ...channel, write } : channel;
    },
  });
  eventLog.record(refusal());
  clock.advance(limits.reconnectPauseMaxMs);
  await settle();
  t.same(failures, []);
  t.ok(lines.some((l) => String(l['message']).includes('could not be written')));
  t.equal(fake.streams[0]?.isClosed, true, 'what ended is closed');
  t.same(sequences(fake.last().written), [1]);
  t.equal(fake.streams.length, 3);
  eventLog.close();
});

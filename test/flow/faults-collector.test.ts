import t, { type Test } from 'tap';
import type { AccessEvent, AccessEventDraft } from '../../src/core/access-event.ts';
import { Fault } from '../../src/core/fault.ts';
import { limits } from '../../src/core/limits.ts';
import { createLog } from '../../src/ops/log.ts';
import { createMetrics } from '../../src/ops/metrics.ts';
import { createEventLog, type EventLog } from '../../src/proxy/event.ts';
import { acknowledgementBytes } from '../../src/rpc/wire.ts';
import { createFakeClock, type FakeClock } from '../fakes/clock.ts';
import { collector, collectorId, event, peerOf } from '../rpc/trust-domain.ts';
import { eventually } from '../support/stack.ts';
import { domain, identitiesOf, svids } from './faults/broker.ts';
import { type Answer, beginning, onGrpc, startSwitchboard, type Wrong, wrongPeers } from './faults/peers.ts';
import { inParallel } from './faults/table.ts';

/**
 * A collector that is not there, silent, garbled, somebody else or a liar: events wait within their bound, requests go on until it is
 * reached and get event_backlog then, and a sound collector at the same address is sent all of them, in order, each once.
 */
t.setTimeout(180_000);
const identities = identitiesOf(collectorId);
const bootId = 'boot-1';
let scenarios = 0;
t.teardown(() => t.comment(`${scenarios} scenarios`));

const draft = (requestId: string): AccessEventDraft => {
  const { sequence: _, ...rest } = event(1, { requestId });
  return rest;
};

interface Recording {
  readonly log: EventLog;
  readonly clock: FakeClock;
}

const queueMax = 20;

const recordTo = (t: Test, address: { readonly port: number }): Recording => {
  const clock = createFakeClock();
  const log = createEventLog({
    audit: 'required',
    queueMax,
    reserved: 4,
    collector: peerOf({ address }, collectorId),
    svids: svids(),
    metrics: createMetrics('proxy'),
    clock,
    log: createLog({ role: 'proxy', level: 'silent' }),
    bootId,
    random: () => 0.5,
  });
  t.teardown(() => log.close());
  return { log, clock };
};

/** Intents until there is no place for one: how many there were, and what the next one got. */
const fill = (log: EventLog): { readonly kept: number; readonly fault: Fault } => {
  for (let kept = 0; ; kept += 1) {
    try {
      log.intent(draft(`r${kept}`));
    } catch (fault) {
      return { kept, fault: fault as Fault };
    }
  }
};

const startSound = async (t: Test): Promise<{ readonly port: number; readonly stored: AccessEvent[] }> => {
  const stored: AccessEvent[] = [];
  let through = 0;
  const server = await collector(t, domain, async (_caller, _bootId, events) => {
    for (const one of events) {
      // As the real one: what has been stored is not stored again.
      if (one.sequence > through) stored.push(one);
      through = Math.max(through, one.sequence);
    }
    return through;
  });
  return { port: server.address.port, stored };
};

const suffer = async (t: Test, what: string, port: number): Promise<string | undefined> => {
  scenarios += 1;
  const board = await startSwitchboard(t);
  board.leadTo(port);
  const { log, clock } = recordTo(t, board.address);
  const startedAt = performance.now();
  const { kept, fault } = fill(log);
  const tookMs = performance.now() - startedAt;
  // Nothing of a request waits for the collector.
  if (fault.code !== 'event_backlog' || tookMs > 100) return `${what}: ${fault.code} after ${tookMs} ms`;
  // Whatever it does in the time it has, events are kept.
  for (let i = 0; i < 20; i += 1) {
    clock.advance(limits.eventAcknowledgeTimeoutMs / 10);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  if (log.waiting() !== kept) return `${what}: ${log.waiting()} of ${kept} events are kept`;
  for (let i = 0; i < kept; i += 1) log.record({ ...draft(`r${i}`), kind: 'outcome' });
  const sound = await startSound(t);
  board.leadTo(sound.port);
  await eventually(() => {
    clock.advance(limits.reconnectPauseMaxMs);
    return log.waiting() === 0;
  });
  log.intent(draft('next'));
  await eventually(() => {
    clock.advance(limits.eventBatchDelayMs);
    return log.waiting() === 0;
  });
  log.close();
  const sequences = sound.stored.filter(({ kind }) => kind !== 'loss').map(({ requestId }) => requestId);
  const wanted = [...Array.from({ length: kept }, (_, i) => `r${i}`), ...Array.from({ length: kept }, (_, i) => `r${i}`), 'next'];
  return sequences.join() === wanted.join() ? undefined : `${what}: ${sequences.join()} were stored, not ${wanted.join()}`;
};

t.test('whatever stands in the place of the collector, events wait, requests do not, and none is lost or doubled', async (t) => {
  const wrong: (string | undefined)[] = [];
  // An acknowledgement of nothing is the sound message here: one of events would be believed from the collector itself.
  const peers: readonly Wrong[] = wrongPeers(identities, acknowledgementBytes({ bootId, through: 0 }));
  await inParallel(peers, 12, async (one) => void wrong.push(await suffer(t, `${one.stage}, ${one.what}`, await one.start(t))));
  t.strictSame(
    wrong.filter((one) => one !== undefined),
    [],
  );
});

t.test('acknowledgements that lie drop nothing', async (t) => {
  const acknowledging = (...all: readonly { bootId: string; through: number }[]): Answer =>
    beginning(...all.map((one) => acknowledgementBytes(one)));
  const lies: [string, Answer][] = [
    ['of what was never sent', acknowledging({ bootId, through: 1_000_000 })],
    ['for another run of the proxy', acknowledging({ bootId: 'boot-2', through: 5 })],
    ['for no run', acknowledging({ bootId: '', through: 5 })],
    ['of nothing, for ever', acknowledging(...Array.from({ length: 200 }, () => ({ bootId, through: 0 })))],
    ['that is none', beginning(Buffer.from('garbage'))],
    ['beyond all numbers', beginning(Buffer.from([0x0a, 6, ...Buffer.from(bootId), 0x10, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]))],
  ];
  const wrong: (string | undefined)[] = [];
  await inParallel(lies, 6, async ([what, answer]) => void wrong.push(await suffer(t, what, await onGrpc(t, identities.sound, answer))));
  t.strictSame(
    wrong.filter((one) => one !== undefined),
    [],
  );
});

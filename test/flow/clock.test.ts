import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { checkStandardClaims } from '../../src/broker/attest/claims.ts';
import type { AccessEvent } from '../../src/core/access-event.ts';
import { Fault } from '../../src/core/fault.ts';
import { limits } from '../../src/core/limits.ts';
import { createLog } from '../../src/ops/log.ts';
import { createMetrics } from '../../src/ops/metrics.ts';
import { createEventLog } from '../../src/proxy/event.ts';
import { createGrantCache } from '../../src/proxy/grant/cache.ts';
import { createInterception } from '../../src/proxy/listener/interception.ts';
import { startSvidSource } from '../../src/rpc/svid-source.ts';
import { createFakeClock, type FakeClock } from '../fakes/clock.ts';
import { broker, createDomain, event, handlersOf, hourMs, peerOf } from '../rpc/trust-domain.ts';
import { directoryOf } from '../support/directory.ts';
import { eventually } from '../support/stack.ts';
import { grantOf, target } from '../support/path.ts';

/**
 * The wall clock is set by an hour and by a day, forward and back, and stands still, while the monotonic clock goes on (LESSONS 17): what
 * has a life keeps it, nothing is used past its end, and nothing waits for a time that will not come.
 */
const dayMs = 24 * hourMs;
const steps: readonly (readonly [string, (clock: FakeClock) => void])[] = [
  ['an hour forward', (clock) => clock.setWall(hourMs)],
  ['an hour back', (clock) => clock.setWall(-hourMs)],
  ['a day forward', (clock) => clock.setWall(dayMs)],
  ['a day back', (clock) => clock.setWall(-dayMs)],
  ['to a standstill', (clock) => clock.freezeWall(true)],
];
const silent = createLog({ role: 'test', level: 'silent' });
const domain = createDomain();

/** An identity that renews against a real broker whose clock is right; `wall` of the proxy is what is wrong. */
const identityOf = async (t: Test) => {
  const clock = createFakeClock();
  const startedAt = clock.now();
  const server = await broker(t, domain, { handlers: handlersOf(domain, {}, () => startedAt + clock.monotonic()) });
  const dir = directoryOf(t, { token: 'token', 'ca.pem': domain.authority.certificatePem });
  let attempts = 0;
  const source = startSvidSource({
    settings: { broker: peerOf(server), brokerCaFile: join(dir, 'ca.pem'), tokenFile: join(dir, 'token') },
    clock,
    log: silent,
    random: () => 0.5,
    onAttempt: () => void (attempts += 1),
  });
  t.teardown(() => source.close());
  await source.ready();
  return { clock, source, attempts: () => attempts, trueNow: () => startedAt + clock.monotonic() };
};

for (const [what, step] of steps) {
  t.test(`the wall clock is set ${what}: the identity is renewed in time, and is never used past its end`, async (t) => {
    const { clock, source, attempts, trueNow } = await identityOf(t);
    clock.advance(60_000);
    step(clock);
    // Two lives of an SVID, minute by minute: whatever the wall clock says, there is one that the broker takes.
    let without = 0;
    for (let minute = 0; minute < 120; minute += 1) {
      clock.advance(60_000);
      if (source.current() === undefined) without += 1;
      // An attempt is a real connection, and while it is under way nothing waits for the clock.
      await eventually(() => clock.waiting() > 0);
      const svid = source.current();
      if (svid !== undefined) {
        const { validToDate } = new X509Certificate(svid.certificateChainPem);
        t.ok(validToDate.getTime() > trueNow(), `minute ${minute}: the broker would take it`);
      }
    }
    t.ok(attempts() >= 4 && attempts() <= 12, `${attempts()} attestations in two hours`);
    t.ok(without <= 3, `${without} of 120 looks found none`);
  });

  t.test(`the wall clock is set ${what}: a grant lives as long as it did`, async (t) => {
    const clock = createFakeClock();
    let fetched = 0;
    const cache = createGrantCache({
      fetch: async () => {
        fetched += 1;
        return grantOf(target('echo'), { id: `g${fetched}`, lifetimeMs: 600_000 });
      },
      clock,
      random: () => 0,
    });
    const key = { workload: 'w', target: 'echo', configurationVersion: 'c1' };
    await cache.get(key);
    step(clock);
    clock.advance(400_000);
    t.equal(((await cache.get(key)) as { id: string }).id, 'g1', 'it serves to 70 % of its life');
    t.equal(fetched, 1);
    clock.advance(30_000);
    await cache.get(key);
    await new Promise(setImmediate);
    t.equal(fetched, 2, 'then it is fetched anew behind it');
    clock.advance(600_000);
    t.equal(((await cache.get(key)) as { id: string }).id, 'g3', 'and is over when its life is');
  });

  t.test(`the wall clock is set ${what}: what programs are shown is valid by it`, async (t) => {
    const clock = createFakeClock();
    const dir = directoryOf(t);
    const bundleFile = join(dir, 'bundle.pem');
    let minted = 0;
    const interception = createInterception({ bundleFile, id: 'test', clock, log: silent, roots: [], onMint: () => void (minted += 1) });
    interception.permit(['echo.outrider.test']);
    interception.contextFor('echo.outrider.test');
    const trusted = new X509Certificate(readFileSync(bundleFile));
    step(clock);
    clock.advance(60_000);
    interception.contextFor('echo.outrider.test');
    const isWithin = ({ validFromDate, validToDate }: X509Certificate): boolean =>
      validFromDate.getTime() <= clock.now() && validToDate.getTime() > clock.now();
    t.ok(isWithin(trusted), 'the authority that running programs have read');
    // Made anew where the old one would be over, or not valid yet.
    const isLeafNew = minted === 2;
    t.equal(isLeafNew, what !== 'to a standstill');
    clock.advance(20 * 60_000);
    interception.contextFor('echo.outrider.test');
    t.equal(minted, isLeafNew ? 2 : 1, 'and kept from then on');
  });

  t.test(`the wall clock is set ${what}: events keep their order and their durations, and say what the clock said`, async (t) => {
    const clock = createFakeClock();
    const sent: AccessEvent[] = [];
    const log = createEventLog({
      audit: 'required',
      queueMax: 100,
      reserved: 10,
      collector: { address: '127.0.0.1:1', spiffeId: 'spiffe://outrider.test/collector' },
      svids: { current: () => domain.svid(), onChange: () => () => undefined, renew: () => undefined },
      metrics: createMetrics('proxy'),
      clock,
      log: silent,
      open: ({ on }) => ({
        write: (bootId, events) => {
          sent.push(...events);
          const last = events.at(-1);
          if (last) setImmediate(() => on.stored(bootId, last.sequence));
          return true;
        },
        close: () => undefined,
      }),
    });
    t.teardown(() => log.close());
    const record = (requestId: string): void => {
      const { sequence: _, ...draft } = event(1, { requestId, timeMs: clock.now() });
      log.intent(draft);
    };
    record('a');
    clock.advance(10);
    step(clock);
    const during = clock.now();
    record('b');
    clock.advance(10);
    record('c');
    await eventually(() => {
      clock.advance(limits.eventBatchDelayMs);
      return log.waiting() === 0;
    });
    t.strictSame(
      sent.map(({ sequence, requestId }) => `${sequence} ${requestId}`),
      ['1 a', '2 b', '3 c'],
    );
    t.equal(sent[1]?.timeMs, during);
  });
}

t.test('a token is judged by the clock of the broker, a minute either way', async (t) => {
  const nowMs = 1_800_000_000_000;
  const second = nowMs / 1000;
  const claims = { iss: 'https://issuer.test', aud: ['outrider'], iat: second - 60, nbf: second - 60, exp: second + 540 };
  const at = (offsetMs: number): string => {
    try {
      checkStandardClaims(claims, { issuer: 'https://issuer.test', audience: 'outrider' }, nowMs + offsetMs);
      return 'ok';
    } catch (fault) {
      return (fault as Fault).code;
    }
  };
  for (const [offsetMs, wanted] of [
    [0, 'ok'],
    [-60_000, 'ok'],
    [-110_000, 'ok'],
    [-125_000, 'evidence_not_yet_valid'],
    [-hourMs, 'evidence_not_yet_valid'],
    [-dayMs, 'evidence_not_yet_valid'],
    [530_000, 'ok'],
    [590_000, 'ok'],
    [605_000, 'evidence_expired'],
    [hourMs, 'evidence_expired'],
    [dayMs, 'evidence_expired'],
  ] as const)
    t.equal(at(offsetMs), wanted, `${offsetMs / 1000} s`);
});

t.test('after a sleep of the machine the identity is renewed at once, without waiting for a timer', async (t) => {
  const { clock, source, attempts } = await identityOf(t);
  const first = source.current();
  clock.setWall(2 * hourMs);
  t.equal(source.current(), undefined, 'it is over');
  t.equal(source.fault()?.code, 'identity_expired');
  await eventually(() => attempts() === 2);
  // The broker's clock says that it is still good; ours says that it has been over for an hour.
  t.not(source.current(), first);
});

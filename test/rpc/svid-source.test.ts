/** The identity of a running role, against a real broker and a clock that stands still until told. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Fault, type FaultCode } from '../../src/core/fault.ts';
import { limits } from '../../src/core/limits.ts';
import { createLog } from '../../src/ops/log.ts';
import { spiffeIdOf } from '../../src/pki/svid.ts';
import { dersOf } from '../../src/pki/pem.ts';
import type { BrokerHandlers, RpcServer } from '../../src/rpc/server.ts';
import type { Svid } from '../../src/rpc/svid.ts';
import { startSvidSource, type SvidSource } from '../../src/rpc/svid-source.ts';
import { createFakeClock, type FakeClock } from '../fakes/clock.ts';
import { broker, brokerId, createDomain, handlersOf, hourMs, listen, peerOf, workloadId } from './trust-domain.ts';

const domain = createDomain();

type Attempt = { readonly result: 'ok' | FaultCode; readonly svid: Svid | undefined };

interface Watched {
  readonly source: SvidSource;
  readonly clock: FakeClock;
  readonly tokenFile: string;
  readonly caFile: string;
  readonly attempts: readonly Attempt[];
  /** When that many attempts have ended. */
  readonly attempted: (count: number) => Promise<Attempt>;
  readonly lines: readonly string[];
}

const watch = (t: Test, server: Pick<RpcServer, 'address'>, files: { token?: string; ca?: string } = {}): Watched => {
  const dir = t.testdir({ token: files.token ?? 'token-1', 'ca.pem': files.ca ?? domain.authority.certificatePem });
  const [tokenFile, caFile] = [join(dir, 'token'), join(dir, 'ca.pem')];
  const clock = createFakeClock();
  const attempts: Attempt[] = [];
  const waiting: { count: number; resolve: (attempt: Attempt) => void }[] = [];
  const lines: string[] = [];
  const source = startSvidSource({
    settings: { broker: peerOf(server), brokerCaFile: caFile, tokenFile },
    clock,
    log: createLog({ role: 'test', level: 'debug', write: (line) => lines.push(line) }),
    random: () => 0.5,
    onAttempt: (result, svid) => {
      const attempt = { result, svid };
      attempts.push(attempt);
      for (const { count, resolve } of waiting) if (count === attempts.length) resolve(attempt);
    },
  });
  t.teardown(() => source.close());
  const attempted = (count: number): Promise<Attempt> =>
    new Promise((resolve) => {
      const already = attempts[count - 1];
      if (already === undefined) waiting.push({ count, resolve });
      else resolve(already);
    });
  return { source, clock, tokenFile, caFile, attempts, attempted, lines };
};

/** A broker that keeps the tokens it is shown and answers as told, by the clock of whoever asks. */
const recording = (): {
  tokens: string[];
  handlers: BrokerHandlers;
  refuse: (code: FaultCode | undefined) => void;
  goBy: (clock: FakeClock) => void;
} => {
  const tokens: string[] = [];
  let refusal: FaultCode | undefined;
  let now = Date.now;
  const sound = handlersOf(domain, {}, () => now());
  const handlers = handlersOf(domain, {
    attest: async (evidence, request) => {
      tokens.push(evidence.token.reveal());
      if (refusal !== undefined) throw new Fault(refusal, { cause: new Error('canary-77aa') });
      return sound.attest(evidence, request);
    },
  });
  return { tokens, handlers, refuse: (code) => (refusal = code), goBy: (clock) => (now = clock.now) };
};

t.test('it attests at its start and renews at half life, with the token of the day and a new key', async (t) => {
  const { tokens, handlers, goBy } = recording();
  const { source, clock, tokenFile, attempted, attempts } = watch(t, await broker(t, domain, { handlers }));
  goBy(clock);
  t.equal(source.current(), undefined);
  t.equal(source.fault(), undefined, 'nothing has gone wrong yet');
  const changes: Svid[] = [];
  const stop = source.onChange((svid) => changes.push(svid));
  const first = await source.ready();
  t.equal(first.spiffeId, workloadId);
  t.equal(source.current(), first);
  t.equal(spiffeIdOf(dersOf(first.certificateChainPem)[0] as Buffer), workloadId);

  writeFileSync(tokenFile, 'token-2\n');
  // Certificates count in whole seconds.
  clock.advance(hourMs / 2 - 1000);
  t.equal(attempts.length, 1, 'not before its time');
  clock.advance(1000);
  const { svid: second } = await attempted(2);
  t.not(second, undefined);
  t.equal(source.current(), second);
  t.notOk(second?.privateKey.equals(first.privateKey), 'each SVID has a key of its own');
  t.strictSame(tokens, ['token-1', 'token-2']);
  t.strictSame(changes, [first, second]);
  stop();
  clock.advance(hourMs / 2);
  t.equal((await attempted(3)).result, 'ok');
  t.equal(changes.length, 2, 'nobody listens any more');
});

t.test('a token that is missing, empty or too long is evidence_missing, until it is there', async (t) => {
  const { tokens, handlers } = recording();
  const { source, clock, tokenFile, attempted } = watch(t, await broker(t, domain, { handlers }), { token: ' \n' });
  t.equal((await attempted(1)).result, 'evidence_missing', 'empty');
  t.equal(source.fault()?.code, 'evidence_missing');
  writeFileSync(tokenFile, 'x'.repeat(limits.evidenceBytesMax + 1));
  clock.advance(limits.reconnectPauseMaxMs);
  t.equal((await attempted(2)).result, 'evidence_missing', 'too long');
  t.strictSame(tokens, [], 'none of it was sent');
  writeFileSync(tokenFile, 'x'.repeat(limits.evidenceBytesMax));
  clock.advance(limits.reconnectPauseMaxMs);
  t.equal((await attempted(3)).result, 'ok');
  t.equal(source.fault(), undefined);

  const result = await new Promise<string>((resolve) => {
    const missing = startSvidSource({
      settings: {
        broker: { address: '127.0.0.1:1', spiffeId: brokerId },
        brokerCaFile: '/nonexistent/ca.pem',
        tokenFile: '/nonexistent/token',
      },
      clock: createFakeClock(),
      log: createLog({ role: 'test', level: 'silent' }),
      onAttempt: resolve,
    });
    t.teardown(() => missing.close());
  });
  t.equal(result, 'evidence_missing', 'missing');
});

t.test('the authorities are read anew for each attempt, and without one nobody is told anything', async (t) => {
  const { tokens, handlers } = recording();
  const { clock, caFile, attempted } = watch(t, await broker(t, domain, { handlers }), { ca: '' });
  t.equal((await attempted(1)).result, 'broker_untrusted', 'none');
  writeFileSync(caFile, createDomain().authority.certificatePem);
  clock.advance(limits.reconnectPauseMaxMs);
  t.equal((await attempted(2)).result, 'broker_untrusted', 'another');
  t.strictSame(tokens, []);
  writeFileSync(caFile, createDomain().authority.certificatePem + domain.authority.certificatePem);
  clock.advance(limits.reconnectPauseMaxMs);
  t.equal((await attempted(3)).result, 'ok', 'the right one among others, as while they change');
});

t.test('failures are tried again, ever more slowly, and the fault of the broker is known', async (t) => {
  const { handlers, refuse } = recording();
  refuse('workload_unknown');
  const { source, clock, attempts, attempted, lines } = watch(t, await broker(t, domain, { handlers }));
  const { reconnectPauseMinMs: min, reconnectPauseMaxMs: max } = limits;
  for (const [i, pauseMs] of [1.5 * min, 3 * min, 6 * min, 12 * min, 24 * min, 0.75 * max, 0.75 * max].entries()) {
    await attempted(i + 1);
    t.equal(source.fault()?.code, 'workload_unknown');
    clock.advance(pauseMs - 1);
    t.equal(attempts.length, i + 1, `no attempt within ${pauseMs} ms of failure ${i + 1}`);
    source.renew();
    clock.advance(1);
  }
  await attempted(8);
  t.notMatch(lines.join(''), 'canary-77aa', "the broker's causes stay with the broker");
  t.match(lines[0], /"code":"workload_unknown"/);
  refuse(undefined);
  clock.advance(max);
  t.equal((await attempted(9)).result, 'ok');
  t.equal(await source.ready(), source.current());
});

t.test('a renewal that fails leaves the SVID in force until it expires, then says why', async (t) => {
  const { handlers, refuse, goBy } = recording();
  const { source, clock, attempted, attempts } = watch(t, await broker(t, domain, { handlers }));
  goBy(clock);
  const svid = await source.ready();
  refuse('evidence_expired');
  clock.advance(0.61 * hourMs);
  await attempted(2);
  t.equal(source.current(), svid, 'still good');
  t.equal(source.fault(), undefined);
  for (let i = 3; clock.now() < svid.expiresAtMs; i += 1) {
    clock.advance(0.4 * hourMs);
    await attempted(i);
  }
  t.equal(source.current(), undefined);
  t.equal(source.fault()?.code, 'evidence_expired', 'what its renewal failed by');
  const waiting = source.ready();
  refuse(undefined);
  clock.advance(limits.reconnectPauseMaxMs);
  const { svid: last } = await attempted(attempts.length + 1);
  t.equal(source.current(), last);
  t.equal(await waiting, last, 'who waits gets the next one');
});

t.test('an SVID that expired before anybody looked is identity_expired', async (t) => {
  const { handlers } = recording();
  const { source, clock } = watch(t, await broker(t, domain, { handlers }));
  await source.ready();
  // As after a suspended machine: the wall clock is far ahead and the renewal is under way only now.
  clock.advance(2 * hourMs);
  t.equal(source.current(), undefined);
  t.equal(source.fault()?.code, 'identity_expired');
});

t.test('renew() attests at once, one attempt at a time, and again and again it is spaced out', async (t) => {
  const { tokens, handlers } = recording();
  const { source, clock, attempted, attempts } = watch(t, await broker(t, domain, { handlers }));
  source.renew();
  await source.ready();
  t.equal(tokens.length, 1, 'an attempt under way is joined');
  source.renew();
  source.renew();
  await attempted(2);
  t.equal(tokens.length, 2, 'at once, and once');
  for (let i = 0; i < 5; i += 1) source.renew();
  clock.advance(limits.reconnectPauseMaxMs - 1);
  t.equal(attempts.length, 2);
  clock.advance(1);
  await attempted(3);
  source.renew();
  clock.advance(limits.reconnectPauseMaxMs - 1);
  t.equal(attempts.length, 3, 'and so on');
  t.equal(tokens.length, 3);
});

t.test('close() ends it: nothing is tried, nobody waits', async (t) => {
  const { tokens, handlers } = recording();
  const server = await broker(t, domain, { handlers });
  const { source, clock, attempts } = watch(t, server, { token: '' });
  const waiting = source.ready();
  source.close();
  await t.rejects(waiting, { code: 'draining' });
  await t.rejects(source.ready(), { code: 'draining' });
  source.renew();
  clock.advance(hourMs);
  t.equal(clock.waiting(), 0, 'no timer is left');
  t.strictSame(attempts, []);
  t.strictSame(tokens, []);
});

t.test('the broker may come later than the proxy', async (t) => {
  const before = await broker(t, domain);
  const { port } = before.address;
  await before.close();
  const { source, clock, attempted } = watch(t, { address: before.address });
  t.equal((await attempted(1)).result, 'broker_unavailable');
  await broker(t, domain, { listen: { ...listen, port } });
  clock.advance(limits.reconnectPauseMaxMs);
  t.equal((await source.ready()).spiffeId, workloadId);
});

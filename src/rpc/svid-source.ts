/**
 * The identity of a running role: attests at its start, renews at about half of each SVID's life, and tries again, ever more slowly,
 * while that fails. Files are read anew for each attempt, because kubelet changes them, and each SVID has a key of its own that exists
 * in memory alone. The SVID in force stays in force until it expires, whatever becomes of its renewal. It expires by the wall clock or by
 * the monotonic one, whichever is first: either may be the one that is wrong.
 */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { asFault, Fault, type FaultCode } from '../core/fault.ts';
import { limits } from '../core/limits.ts';
import { Secret } from '../core/secret.ts';
import type { Clock } from '../ops/clock.ts';
import type { Log } from '../ops/log.ts';
import { createKeyPair } from '../pki/key.ts';
import type { IdentitySettings } from '../settings/identity.ts';
import { attest } from './client.ts';
import { renewalDelayMs, retryPauseMs } from './renewal.ts';
import type { Svid } from './svid.ts';

export interface SvidSource {
  /** Undefined before the first attestation, and once the SVID has expired. */
  current(): Svid | undefined;
  /** Why there is no valid SVID: identity_expired, or what the latest attempt failed by. Undefined while there is one or none was tried. */
  fault(): Fault | undefined;
  /** Called with every new SVID; the returned function ends that. */
  onChange(listener: (svid: Svid) => void): () => void;
  /** The first SVID, however long it takes. Rejects (draining) only when closed before. */
  ready(): Promise<Svid>;
  /** Attest anew now, e.g. after identity_refused. Again and again, it is spaced out. */
  renew(): void;
  close(): void;
}

export interface SvidSourceOptions {
  readonly settings: IdentitySettings;
  readonly clock: Clock;
  readonly log: Log;
  /** In [0, 1). */
  readonly random?: () => number;
  /** Called at the end of every attempt. */
  readonly onAttempt?: (result: 'ok' | FaultCode, svid?: Svid) => void;
}

export const startSvidSource = ({
  settings,
  clock,
  log,
  random = Math.random,
  onAttempt = () => undefined,
}: SvidSourceOptions): SvidSource => {
  const listeners = new Set<(svid: Svid) => void>();
  const waiting = new Set<{ resolve: (svid: Svid) => void; reject: (fault: Fault) => void }>();
  const closing = new AbortController();
  let latest: { readonly svid: Svid; readonly endsAtMonotonic: number } | undefined;
  let lastFault: Fault | undefined;
  let failures = 0;
  let isAttempting = false;
  let cancelTimer: () => void = () => undefined;
  let forcedAtMs = Number.NEGATIVE_INFINITY;

  const isClosed = (): boolean => closing.signal.aborted;
  const next = (delayMs: number): void => {
    cancelTimer();
    cancelTimer = clock.after(delayMs, () => void attempt());
  };

  /** Attests anew when it is time by one of the clocks: the wall clock may be set forward, and timers do not hear of it. */
  const renewWhenDue = (atMs: number, atMonotonic: number): void => {
    cancelTimer();
    const leftMs = atMonotonic - clock.monotonic();
    if (leftMs <= 0 || clock.now() >= atMs) return void attempt();
    cancelTimer = clock.after(Math.min(leftMs, limits.wallClockLookMs), () => renewWhenDue(atMs, atMonotonic));
  };

  const succeeded = (svid: Svid): void => {
    const { spiffeId, attestationId, issuedAtMs, expiresAtMs } = svid;
    const lifeMs = expiresAtMs - issuedAtMs;
    latest = { svid, endsAtMonotonic: clock.monotonic() + lifeMs };
    lastFault = undefined;
    failures = 0;
    const nowMs = clock.now();
    const delayMs = renewalDelayMs({ issuedAtMs, expiresAtMs, nowMs, random: random() });
    if (delayMs > 0) renewWhenDue(nowMs + delayMs, clock.monotonic() + delayMs);
    else next(limits.reconnectPauseMinMs);
    log.info({ spiffeId, attestationId, expiresAt: new Date(expiresAtMs).toISOString() }, 'attested');
    onAttempt('ok', svid);
    for (const { resolve } of waiting) resolve(svid);
    waiting.clear();
    for (const listener of listeners) listener(svid);
  };

  const failed = (fault: Fault): void => {
    lastFault = fault;
    failures += 1;
    const pauseMs = retryPauseMs(failures, random());
    next(pauseMs);
    log.warn({ code: fault.code, error: fault, failures, pauseMs }, 'attestation failed; trying again');
    onAttempt(fault.code);
  };

  const attempt = async (): Promise<void> => {
    if (isAttempting || isClosed()) return;
    isAttempting = true;
    cancelTimer();
    let result: Svid | Fault;
    try {
      result = await attestFrom(settings, clock, closing.signal);
    } catch (error) {
      result = asFault(error);
    }
    isAttempting = false;
    if (isClosed()) return;
    if (result instanceof Fault) failed(result);
    else succeeded(result);
  };

  const renew = (): void => {
    // While attempts fail, the next one is on its way already. A peer that refuses what was just issued must not make a storm.
    if (isAttempting || isClosed() || failures > 0) return;
    const nowMs = clock.monotonic();
    if (forcedAtMs > nowMs) return;
    forcedAtMs = Math.max(nowMs, forcedAtMs + limits.reconnectPauseMaxMs);
    if (forcedAtMs === nowMs) void attempt();
    else next(forcedAtMs - nowMs);
  };
  const current = (): Svid | undefined => {
    if (latest === undefined) return undefined;
    if (latest.svid.expiresAtMs > clock.now() && latest.endsAtMonotonic > clock.monotonic()) return latest.svid;
    // Whoever finds it expired need not wait for the next look at the clock.
    renew();
    return undefined;
  };
  void attempt();

  return {
    current,
    fault: () => {
      if (current() !== undefined) return undefined;
      return lastFault ?? (latest === undefined ? undefined : new Fault('identity_expired'));
    },
    onChange: (listener) => {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    ready: () => {
      const svid = current();
      if (svid !== undefined) return Promise.resolve(svid);
      if (isClosed()) return Promise.reject(new Fault('draining'));
      return new Promise((resolve, reject) => waiting.add({ resolve, reject }));
    },
    renew,
    close: () => {
      closing.abort();
      cancelTimer();
      for (const { reject } of waiting) reject(new Fault('draining'));
      waiting.clear();
      listeners.clear();
    },
  };
};

const attestFrom = async (settings: IdentitySettings, clock: Clock, signal: AbortSignal): Promise<Svid> => {
  const key = createKeyPair();
  const evidence = { kind: 'projected_token', token: await tokenFrom(settings.tokenFile) } as const;
  const brokerCaPem = await authoritiesFrom(settings.brokerCaFile);
  return attest({ broker: settings.broker, brokerCaPem, evidence, key, timeoutMs: limits.attestTimeoutMs, clock, signal });
};

const tokenFrom = async (file: string): Promise<Secret> => {
  let text: string;
  try {
    text = (await boundedText(file, limits.evidenceBytesMax)).trim();
  } catch (error) {
    throw new Fault('evidence_missing', { cause: error });
  }
  if (text === '') throw new Fault('evidence_missing', { cause: new Error(`${file} is empty`) });
  return new Secret(text);
};

const authoritiesFrom = async (file: string): Promise<string> => {
  try {
    return await boundedText(file, limits.configurationBytesMax);
  } catch (error) {
    throw new Fault('broker_untrusted', { cause: error });
  }
};

/** Reads no more than it may, whatever the file says of its size; what is no file (a pipe without a writer) is not waited for. */
const boundedText = async (file: string, bytesMax: number): Promise<string> => {
  const handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    if (!(await handle.stat()).isFile()) throw new Error(`${file} is not a regular file`);
    const buffer = Buffer.alloc(bytesMax + 1);
    let length = 0;
    for (let bytesRead = 1; bytesRead > 0 && length < buffer.length; length += bytesRead) {
      ({ bytesRead } = await handle.read(buffer, length, buffer.length - length, null));
    }
    if (length > bytesMax) throw new Error(`${file} has more than ${bytesMax} bytes`);
    return buffer.toString('utf8', 0, length);
  } finally {
    await handle.close();
  }
};

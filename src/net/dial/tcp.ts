/** TCP to the first of several addresses that answers. Knows nothing of names, policies or TLS: dial.ts decides what may be dialled. */
import { connect, isIPv6, type Socket } from 'node:net';
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';

export interface DialAddress {
  /** An IP address without a zone. */
  readonly address: string;
  readonly port: number;
}

/** Families in turn, beginning with the one the system prefers (RFC 8305 section 4): one broken family costs one pause, not a deadline. */
export const familiesInTurn = (addresses: readonly string[]): readonly string[] => {
  const isFirstFamily = isIPv6(addresses[0] ?? '');
  const preferred = addresses.filter((address) => isIPv6(address) === isFirstFamily);
  const others = addresses.filter((address) => isIPv6(address) !== isFirstFamily);
  const longer = Math.max(preferred.length, others.length);
  return Array.from({ length: longer }, (_, i) => [preferred[i], others[i]])
    .flat()
    .filter((address) => address !== undefined);
};

/** TCP to the first address that accepts, all within one deadline. Throws target_refused, target_unreachable, target_connect_timeout. */
export const dialTcp = async (addresses: readonly DialAddress[], timeoutMs: number = limits.targetConnectTimeoutMs): Promise<Socket> => {
  try {
    return await firstToConnect(addresses, connectOnce, limits.targetConnectPauseMs, timeoutMs);
  } catch (cause) {
    throw dialFault(cause);
  }
};

/** One attempt under way: settles `connected`, or is given up by `end`, which must leave nothing open. */
export interface Attempt<T> {
  readonly connected: Promise<T>;
  readonly end: () => void;
}

/**
 * Attempts begin one after another: the next when the last one failed, or after a pause while it is still under way (RFC 8305
 * section 5). The first to connect ends the others. Rejects with an AggregateError when all failed, or with ETIMEDOUT.
 */
export const firstToConnect = <A, T>(
  candidates: readonly A[],
  attempt: (candidate: A) => Attempt<T>,
  pauseMs: number,
  deadlineMs: number,
): Promise<T> =>
  new Promise((resolve, reject) => {
    const underWay = new Set<Attempt<T>>();
    const failures: unknown[] = [];
    let next = 0;
    let pause: NodeJS.Timeout | undefined;
    let isSettled = false;
    const settle = (how: () => void): void => {
      isSettled = true;
      clearTimeout(pause);
      clearTimeout(deadline);
      for (const other of underWay) other.end();
      how();
    };
    const begin = (): void => {
      clearTimeout(pause);
      if (next >= candidates.length) {
        if (underWay.size === 0) settle(() => reject(new AggregateError(failures, 'no address accepted')));
        return;
      }
      const current = attempt(candidates[next] as A);
      next += 1;
      underWay.add(current);
      pause = setTimeout(begin, pauseMs);
      current.connected.then(
        (connected) => {
          underWay.delete(current);
          if (isSettled) current.end();
          else settle(() => resolve(connected));
        },
        (failure: unknown) => {
          underWay.delete(current);
          failures.push(failure);
          if (!isSettled) begin();
        },
      );
    };
    const deadline = setTimeout(() => settle(() => reject(timedOut(deadlineMs))), deadlineMs);
    begin();
  });

const timedOut = (afterMs: number): Error => Object.assign(new Error(`no connection within ${afterMs} ms`), { code: 'ETIMEDOUT' });

type KeepAlive = (isOn: boolean, delayMs: number, intervalMs: number, count: number) => void;

const connectOnce = ({ address, port }: DialAddress): Attempt<Socket> => {
  const socket = connect({ host: address, port, noDelay: true, autoSelectFamily: false });
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  socket.once('error', reject);
  socket.once('connect', () => {
    socket.off('error', reject);
    // Node's types do not know the interval and the count; a Node that does not either leaves them at one second and ten.
    (socket.setKeepAlive as KeepAlive).call(socket, true, limits.targetProbeDelayMs, limits.targetProbeIntervalMs, limits.targetProbesMax);
    resolve(socket);
  });
  const end = (): void => {
    // What was given up may still fail.
    socket.on('error', () => undefined);
    socket.destroy();
  };
  return { connected: promise, end };
};

/** Refused says more than unreachable, which is all that an address of a family without a network gives. */
const dialFault = (cause: unknown): Fault => {
  const codes = (cause instanceof AggregateError ? cause.errors : [cause]).map((error) => (error as { code?: string } | undefined)?.code);
  if (codes.includes('ECONNREFUSED')) return new Fault('target_refused', { cause });
  return new Fault(codes.includes('ETIMEDOUT') ? 'target_connect_timeout' : 'target_unreachable', { cause });
};

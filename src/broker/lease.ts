/** Leases: the broker's record that a grant is out. Written before the grant leaves; deleted some time after they expire. */
import type { Clock } from '../ops/clock.ts';
import type { Log } from '../ops/log.ts';
import { limits } from '../core/limits.ts';
import type { BrokerStore } from './store.ts';

/** UUIDv7 (RFC 9562 section 5.7): in the order of time, and unguessable beyond that. `random` gives that many random bytes. */
export const sortableId = (nowMs: number, random: (bytes: number) => Uint8Array): string => {
  const bytes = Buffer.alloc(16);
  bytes.writeUIntBE(nowMs, 0, 6);
  bytes.set(random(10), 6);
  bytes[6] = 0x70 | ((bytes[6] as number) & 0x0f);
  bytes[8] = 0x80 | ((bytes[8] as number) & 0x3f);
  return uuidText(bytes);
};

export const uuidText = (bytes: Buffer): string => bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');

export interface LeaseSweep {
  readonly close: () => void;
}

/** Deletes expired leases now and again, so that the store does not grow with the number of grants ever made. */
export const startLeaseSweep = (
  store: Pick<BrokerStore, 'deleteExpiredLeases'>,
  { clock, log }: { clock: Clock; log: Log },
): LeaseSweep => {
  let cancel = (): void => undefined;
  let isClosed = false;
  const sweep = async (): Promise<void> => {
    try {
      const deleted = await store.deleteExpiredLeases(clock.now());
      if (deleted > 0) log.debug({ deleted }, 'expired leases deleted');
    } catch (error) {
      log.warn({ error }, 'expired leases could not be deleted');
    }
    if (!isClosed) cancel = clock.after(limits.leaseSweepMs, () => void sweep());
  };
  void sweep();
  return {
    close: () => {
      isClosed = true;
      cancel();
    },
  };
};

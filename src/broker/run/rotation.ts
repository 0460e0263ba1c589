/** Wakes the issuer when a signing key is due, and again soon when that failed. */
import { limits } from '../../core/limits.ts';
import type { Clock } from '../../ops/clock.ts';
import type { Log } from '../../ops/log.ts';
import type { TokenIssuer } from '../issuer.ts';

export const startRotation = (
  issuer: Pick<TokenIssuer, 'rotate' | 'nextRotationMs'>,
  { clock, log }: { clock: Clock; log: Log },
): { readonly close: () => void } => {
  let isClosed = false;
  let cancel = (): void => undefined;
  const schedule = (waitMs: number): void => {
    if (!isClosed) cancel = clock.after(waitMs, () => void wake());
  };
  const wake = async (): Promise<void> => {
    try {
      await issuer.rotate();
      schedule(Math.max(issuer.nextRotationMs() - clock.now(), 0));
    } catch (error) {
      log.error({ error }, 'the token-signing key could not be rotated');
      schedule(limits.reconnectPauseMaxMs);
    }
  };
  schedule(Math.max(issuer.nextRotationMs() - clock.now(), 0));
  return {
    close: () => {
      isClosed = true;
      cancel();
    },
  };
};

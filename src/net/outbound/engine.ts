/**
 * What every engine is to outbound.ts, and how each asks for a connection. Engines know one destination under one set of terms; which
 * request may share what is decided in outbound.ts.
 */
import type { Socket } from 'node:net';
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import type { Alpn } from '../dial.ts';
import type { OutboundRequest } from '../outbound.ts';
import type { Reception } from './reception.ts';

/** A connection that speaks `alpn`; rejects with a Fault, target_protocol when the target will not speak it. */
export type Open = (alpn: Alpn) => Promise<Socket>;

export interface Engine {
  /**
   * Sends; all that comes back goes to the reception. `elsewhere` is offered the request when the target refuses the engine's protocol
   * before anything of it was sent; true when it was taken.
   */
  readonly send: (request: OutboundRequest, reception: Reception, elsewhere?: Elsewhere) => void;
  /** Lets what is under way finish and takes no more; resolves when nothing is open. */
  readonly retire: () => Promise<void>;
  /** Ends everything now; resolves when nothing is open. */
  readonly destroy: () => Promise<void>;
}

export type Elsewhere = (refusal: Fault) => boolean;

/** A refusal by connecting itself: what a target says later is an answer to something that was sent. */
export const isRefusal = (error: unknown): error is Fault => error instanceof Fault && error.code === 'target_protocol';

/** How long engines wait, and what for; limits.ts says why. */
export interface Patience {
  readonly headersMs: number;
  readonly continueMs: number;
  readonly settingsMs: number;
  readonly keepAliveMs: number;
  readonly sessionIdleMs: number;
  readonly pingIntervalMs: number;
  readonly pingTimeoutMs: number;
  readonly lostLookMs: number;
}

export const ordinaryPatience: Patience = {
  headersMs: limits.targetHeadersTimeoutMs,
  continueMs: limits.targetContinueTimeoutMs,
  settingsMs: limits.targetHandshakeTimeoutMs,
  keepAliveMs: limits.targetKeepAliveTimeoutMs,
  sessionIdleMs: limits.targetSessionIdleTimeoutMs,
  pingIntervalMs: limits.targetPingIntervalMs,
  pingTimeoutMs: limits.targetPingTimeoutMs,
  lostLookMs: limits.lostLookMs,
};

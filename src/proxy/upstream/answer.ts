/**
 * What an answer is written to on its way to the program: the program's end of it, or something that stands before that (the search for
 * echoes, a 401 that waits). Fields are as the program is to see them.
 */
import type { HeaderList } from '../../core/headers.ts';
import type { ResponseSink } from '../exchange.ts';

export interface Answer extends Pick<ResponseSink, 'onDrain' | 'upgrade'> {
  /** These two throw a Fault to refuse the answer. */
  readonly informational: (status: number, headers: HeaderList) => void;
  readonly head: (status: number, reason: string, headers: HeaderList) => void;
  /** False: wait for onDrain. Never throws. */
  readonly write: (chunk: Uint8Array) => boolean;
  /** The answer is all there; resolves when it was handed on. Rejects with the Fault that refuses it after all. */
  readonly end: (trailers: HeaderList) => void | Promise<void>;
  /** The exchange is over, however it ended. */
  readonly close?: () => void;
}

/**
 * The bodies of reviews that are under way, with a bound on each, and on all that are long. Whoever reaches the webhook's port is not told from
 * the API server, which by default shows no certificate: where a long one does not fit, the longest that has not ended is refused, whoever
 * sends it. A usual review is short, and never refused: as many as there may be connections are no burden.
 */
import type { IncomingMessage } from 'node:http';
import { limits } from '../core/limits.ts';

export interface Bodies {
  /** Never rejects. One that is cut off is empty: its connection is gone. */
  readonly read: (request: IncomingMessage) => Promise<ReadBody>;
}

export interface ReadBody {
  readonly text: string;
  readonly refusal: 'too long' | 'no room' | undefined;
  /** It counts until then. */
  readonly release: () => void;
}

interface Share {
  /** Of a long one. */
  bytes: number;
  readonly refuse: () => void;
}

export interface BodyBounds {
  readonly eachBytesMax: number;
  /** One is long beyond this. */
  readonly shortBytesMax: number;
  /** All that are long, of this moment. */
  readonly longBytesMax: () => number;
}

export const createBodies = ({ eachBytesMax, shortBytesMax, longBytesMax }: BodyBounds): Bodies => {
  let held = 0;
  const unended = new Set<Share>();
  const longest = (): Share | undefined => {
    let found: Share | undefined;
    for (const share of unended) if (found === undefined || share.bytes > found.bytes) found = share;
    return found;
  };
  return {
    read: (request) =>
      new Promise((resolve) => {
        let chunks: Buffer[] = [];
        let length = 0;
        const release = (): void => {
          held -= share.bytes;
          share.bytes = 0;
        };
        const settle = (refusal: ReadBody['refusal'], text = ''): void => {
          chunks = [];
          unended.delete(share);
          if (text === '') release();
          const done = (): void => resolve({ text, refusal, release });
          if (refusal === undefined) return done();
          // Whoever is answered while it still sends may see its connection end before the answer.
          const late = setTimeout(done, limits.webhookRefusalLingerMs);
          request.once('end', done).once('close', () => clearTimeout(late));
        };
        const share: Share = { bytes: 0, refuse: () => settle('no room') };
        unended.add(share);
        request.on('data', (chunk: Buffer) => {
          // What comes after a refusal goes nowhere.
          if (!unended.has(share)) return;
          chunks.push(chunk);
          length += chunk.length;
          if (length > eachBytesMax) return settle('too long');
          if (length <= shortBytesMax) return;
          held += length - share.bytes;
          share.bytes = length;
          if (held > longBytesMax()) longest()?.refuse();
        });
        request.on('end', () => unended.has(share) && settle(undefined, Buffer.concat(chunks).toString('utf8')));
        // An error is always followed by it.
        request.on('error', () => undefined).on('close', () => unended.has(share) && settle(undefined));
      }),
  };
};

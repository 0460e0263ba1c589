/**
 * A signature by HMAC (RFC 2104) over parts of the request, as APIs and webhooks ask for in many forms. The credential is the key and is
 * never sent. Signs exactly what is sent, so it comes last; time and nonce are always ours.
 */
import { createHash, createHmac, createSecretKey, type KeyObject } from 'node:crypto';
import { hostField } from '../../core/destination.ts';
import { Fault } from '../../core/fault.ts';
import type { HmacPlacement } from '../../core/grant.ts';
import { type HeaderField, writableValue } from '../../core/headers.ts';
import { type HmacPart, hmacFields, isHmacPlacement, marksIn } from '../../core/placement.ts';
import type { Draft, Placer } from '../inject.ts';

const needsBody = ({ message }: HmacPlacement): boolean => marksIn(message).some((part) => part === 'body' || part === 'body_sha256');

const bodyOf = ({ body }: Draft): Uint8Array => body?.held ?? new Uint8Array();

interface Moment {
  /** Unix seconds. */
  readonly timestamp: string;
  readonly nonce: string;
}

const partsOf = (draft: Draft, { timestamp, nonce }: Moment): Readonly<Record<HmacPart, () => string | Uint8Array>> => ({
  method: () => draft.method,
  host: () => hostField(draft.destination),
  path: () => draft.path,
  query: () => draft.query.slice(1),
  timestamp: () => timestamp,
  nonce: () => nonce,
  body: () => bodyOf(draft),
  body_sha256: () => createHash('sha256').update(bodyOf(draft)).digest('hex'),
});

const signatureOf = (draft: Draft, { algorithm, message, encoding }: HmacPlacement, key: KeyObject, moment: Moment): string => {
  const parts = partsOf(draft, moment);
  const hmac = createHmac(algorithm, key);
  // Text and marks in turn: what a part holds is never read as a mark.
  for (const [index, piece] of message.split(/\{([a-z0-9_]+)\}/).entries())
    hmac.update(index % 2 === 0 ? piece : parts[piece as HmacPart]());
  return hmac.digest(encoding);
};

export const hmac: Placer<HmacPlacement, KeyObject> = {
  read: (text) => {
    if (text === '') throw new Fault('credential_invalid');
    return createSecretKey(text, 'utf8');
  },
  shown: () => [],
  fields: hmacFields,
  needsWholeBody: (_draft, placement) => needsBody(placement),
  isSignature: true,
  place: (draft, placement, key, { nowMs, uuid }) => {
    if (!isHmacPlacement(placement)) throw new Fault('credential_invalid');
    const moment: Moment = { timestamp: String(Math.floor(nowMs / 1000)), nonce: uuid() };
    const signature = signatureOf(draft, placement, key, moment);
    const value = placement.template.replace(/\{(signature|timestamp|nonce)\}/g, (_, mark: string) =>
      mark === 'signature' ? signature : moment[mark as keyof Moment],
    );
    if (!writableValue(value)) throw new Fault('credential_invalid');
    const written: readonly HeaderField[] = [
      [placement.timestampName, moment.timestamp],
      [placement.nonceName, moment.nonce],
      [placement.name, value],
    ];
    return { ...draft, headers: [...draft.headers, ...written.filter(([name]) => name !== '')] };
  },
};

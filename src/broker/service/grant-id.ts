/**
 * Grant ids: UUIDv7, whose last 40 bits are a tag over the rest of it, the workload and the target, by a key that all brokers of the trust
 * domain have. So any of them can tell whether a grant was made for a workload and a target without having made it; leases stay with
 * the broker that did. Someone who guesses a tag gains what every honest caller may ask for: a credential that is fetched anew.
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { sortableId, uuidText } from '../lease.ts';

export interface GrantSubject {
  /** SPIFFE ID. */
  readonly workload: string;
  readonly target: string;
}

/** Octets before the tag: time, version, and 34 bits that count. */
const taggedOctets = 11;

/**
 * Counted from somewhere, so that no two ids of this process are the same, and those of two brokers hardly ever (RFC 9562 section 6.2, method
 * 1): so few random bits would meet at some tens of thousands in a millisecond. That nobody guesses an id is the tag's part.
 */
let counter = randomBytes(5).readUIntBE(0, 5);
const counted = (length: number): Buffer => {
  counter = (counter + 1) % 2 ** 34;
  const octets = Buffer.alloc(length);
  // As sortableId leaves them: 12 bits after the version, 22 after the variant.
  octets.writeUInt16BE(Math.floor(counter / 2 ** 22), 0);
  octets.writeUIntBE(counter % 2 ** 22, 2, 3);
  return octets;
};

const tagOf = (octets: Buffer, { workload, target }: GrantSubject, key: Buffer): Buffer =>
  createHmac('sha256', key)
    .update(octets)
    .update(JSON.stringify([workload, target]))
    .digest()
    .subarray(0, 16 - taggedOctets);

const octetsOf = (id: string): Buffer => Buffer.from(id.replaceAll('-', ''), 'hex');

export const createGrantId = (subject: GrantSubject, nowMs: number, key: Buffer): string => {
  const octets = octetsOf(sortableId(nowMs, counted)).subarray(0, taggedOctets);
  return uuidText(Buffer.concat([octets, tagOf(octets, subject, key)]));
};

/** `keys`: those that may have been in use when it was made. */
export const isGrantIdOf = (id: string, subject: GrantSubject, keys: readonly Buffer[]): boolean => {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(id)) return false;
  const octets = octetsOf(id);
  const tagged = octets.subarray(0, taggedOctets);
  return keys.some((key) => timingSafeEqual(octets.subarray(taggedOctets), tagOf(tagged, subject, key)));
};

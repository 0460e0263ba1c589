/**
 * Keys that all brokers of a trust domain have without storing any: derived from an authority's private key (HKDF, RFC 5869), one
 * for each purpose, so that none says anything of another. Whoever has the private key can be anyone, and learns nothing by these.
 */
import { hkdfSync } from 'node:crypto';
import type { Authority } from '../../pki/authority.ts';

const known = new WeakMap<Authority, Map<string, Buffer>>();

/** 256 bits. */
export const derivedKey = (authority: Authority, purpose: string): Buffer => {
  let keys = known.get(authority);
  if (keys === undefined) known.set(authority, (keys = new Map()));
  let key = keys.get(purpose);
  if (key === undefined) {
    // The scalar itself: other encodings of the key may differ from one release of OpenSSL to the next.
    const { d = '' } = authority.key.privateKey.export({ format: 'jwk' });
    key = Buffer.from(hkdfSync('sha256', Buffer.from(d, 'base64url'), Buffer.alloc(0), `outrider ${purpose}`, 32));
    keys.set(purpose, key);
  }
  return key;
};

/**
 * The certificate extensions we write (RFC 5280 section 4.2) and the names in them. Only DER; who gets which extension is said
 * in authority.ts, leaf.ts and svid.ts.
 */
import { strict as assert } from 'node:assert';
import { createHash, type KeyObject } from 'node:crypto';
import { isIP, isIPv4 } from 'node:net';
import { canonicalHost } from '../core/destination.ts';
import {
  bitsOf,
  booleanTrue,
  elementsOf,
  expectTag,
  explicit,
  implicit,
  objectIdentifier,
  octetString,
  onlyElement,
  sequence,
  tags,
  tlv,
} from './der.ts';

export const extensionIds = {
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  nameConstraints: '2.5.29.30',
  authorityKeyIdentifier: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  /**
   * Ours: the UUID 0348f96d-9f80-4969-9298-8a7be874732b in seven arcs below the one that Microsoft keeps for such identifiers
   * (https://learn.microsoft.com/windows/win32/ad/obtaining-an-object-identifier-from-microsoft). As one arc below 2.25 it would be
   * shorter, but Go refuses every certificate with an arc of more than 31 bits.
   */
  attestation: '1.2.840.113556.1.8000.2554.840.63853.40832.18793.37528.9075688.7631659',
} as const;

const extension = (id: keyof typeof extensionIds, isCritical: boolean, value: Buffer): Buffer =>
  sequence(objectIdentifier(extensionIds[id]), ...(isCritical ? [booleanTrue] : []), octetString(value));

// Names -------------------------------------------------------------------------------------------------------------

/** Tags of GeneralName (RFC 5280 section 4.2.1.6). */
export const nameTags = { dns: 2, uri: 6, ip: 7 } as const;

const ipv6Octets = (address: string): Buffer => {
  const canonical = new URL(`http://[${address}]/`).hostname.slice(1, -1);
  const [head = '', tail] = canonical.split('::');
  const groups = (part: string): number[] => (part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16)));
  const left = groups(head);
  const right = tail === undefined ? [] : groups(tail);
  const zeros = Array.from({ length: 8 - left.length - right.length }, () => 0);
  return Buffer.from([...left, ...zeros, ...right].flatMap((group) => [group >> 8, group & 0xff]));
};

/** Network order: 4 or 16 octets. */
const ipOctets = (address: string): Buffer => (isIPv4(address) ? Buffer.from(address.split('.').map(Number)) : ipv6Octets(address));

const dnsName = (host: string): Buffer => {
  assert.equal(canonicalHost(host), host, `${host} is not a canonical host name`);
  return implicit(nameTags.dns, Buffer.from(host, 'ascii'));
};

/** An exact DNS name or an address; never a wildcard. */
const hostName = (host: string): Buffer => (isIP(host) === 0 ? dnsName(host) : implicit(nameTags.ip, ipOctets(host)));
const uriName = (uri: string): Buffer => implicit(nameTags.uri, Buffer.from(uri, 'ascii'));

// Extensions --------------------------------------------------------------------------------------------------------

/** 160 bits of SHA-256 over the key's bits (RFC 7093 section 2, method 1). */
export const keyIdentifier = (publicKey: KeyObject): Buffer => {
  const info = onlyElement(publicKey.export({ type: 'spki', format: 'der' }), tags.sequence, 'the key');
  const bits = bitsOf(expectTag(elementsOf(info.content)[1], tags.bitString, 'the key'));
  return createHash('sha256').update(bits).digest().subarray(0, 20);
};

export const subjectKeyIdentifier = (identifier: Buffer): Buffer => extension('subjectKeyIdentifier', false, octetString(identifier));

export const authorityKeyIdentifier = (identifier: Buffer): Buffer =>
  extension('authorityKeyIdentifier', false, sequence(implicit(0, identifier)));

/** For an authority, with nothing but leaves below it; for a leaf, the empty sequence that says it is none. */
export const basicConstraints = (of: 'authority' | 'leaf'): Buffer =>
  extension('basicConstraints', true, of === 'authority' ? sequence(booleanTrue, tlv(tags.integer, Buffer.of(0))) : sequence());

/** Named bits (RFC 5280 section 4.2.1.3): the first octet counts the unused ones. */
export const keyUsage = (usage: 'digitalSignature' | 'keyCertSign'): Buffer =>
  extension('keyUsage', true, tlv(tags.bitString, usage === 'digitalSignature' ? Buffer.of(7, 0x80) : Buffer.of(2, 0x04)));

const purposes = { serverAuth: '1.3.6.1.5.5.7.3.1', clientAuth: '1.3.6.1.5.5.7.3.2' } as const;

export const extendedKeyUsage = (...usages: readonly (keyof typeof purposes)[]): Buffer =>
  extension('extendedKeyUsage', false, sequence(...usages.map((usage) => objectIdentifier(purposes[usage]))));

/** What was attested of the SVID's holder, as the broker wrote it: not critical, because nobody else has to understand it. */
export const attestation = (text: string): Buffer => extension('attestation', false, tlv(tags.utf8String, Buffer.from(text)));

/** Critical when the subject is empty, so that there is no name but these (RFC 5280 section 4.2.1.6). */
export const subjectAltName = (
  isCritical: boolean,
  names: { readonly uris?: readonly string[]; readonly hosts?: readonly string[] },
): Buffer => extension('subjectAltName', isCritical, sequence(...(names.uris ?? []).map(uriName), ...(names.hosts ?? []).map(hostName)));

const everyAddress = [Buffer.alloc(8), Buffer.alloc(32)].map((network) => sequence(implicit(nameTags.ip, network)));
const exactAddress = (address: string): Buffer => {
  const octets = ipOctets(address);
  return sequence(implicit(nameTags.ip, Buffer.concat([octets, Buffer.alloc(octets.length, 0xff)])));
};

export interface PermittedNames {
  /** DNS names and addresses; [] for none at all; undefined when these are not constrained. */
  readonly hosts?: readonly string[] | undefined;
  /** The host part of URIs; undefined when these are not constrained. */
  readonly uriHost?: string | undefined;
}

/**
 * What may stand in the names of leaves (RFC 5280 section 4.2.1.10). A permitted DNS name permits every name below it too:
 * the format has no exact form. A kind of name that is nowhere permitted would be free, so no DNS names is written as
 * "invalid" alone, which no server has (RFC 6761 section 6.4), and no addresses as the exclusion of all.
 */
export const nameConstraints = ({ hosts, uriHost }: PermittedNames): Buffer => {
  const permitted: Buffer[] = [];
  const excluded: Buffer[] = [];
  if (hosts !== undefined) {
    const addresses = hosts.filter((host) => isIP(host) !== 0);
    const names = hosts.filter((host) => isIP(host) === 0);
    permitted.push(...(names.length === 0 ? ['invalid'] : names).map((name) => sequence(dnsName(name))), ...addresses.map(exactAddress));
    if (addresses.length === 0) excluded.push(...everyAddress);
  }
  if (uriHost !== undefined) permitted.push(sequence(uriName(uriHost)));
  return extension(
    'nameConstraints',
    true,
    sequence(...(permitted.length === 0 ? [] : [explicit(0, ...permitted)]), ...(excluded.length === 0 ? [] : [explicit(1, ...excluded)])),
  );
};

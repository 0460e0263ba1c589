/** Certificate bundles, good and bad, made at run time: what a provider may find where a client certificate should be. */
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { limits } from '../../src/core/limits.ts';
import { createAuthority } from '../../src/pki/authority.ts';
import { commonName, emptyName } from '../../src/pki/certificate.ts';
import { bitString, explicit, objectIdentifier, sequence, tags, time, tlv, unsignedInteger } from '../../src/pki/der.ts';
import { createKeyPair, type KeyPair } from '../../src/pki/key.ts';
import { pemOf } from '../../src/pki/pem.ts';
import { issueSvid } from '../../src/pki/svid.ts';

const pkcs8 = ({ privateKey }: { privateKey: KeyObject }): string => privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;

const certificateOf = (key: KeyPair, nowMs: number, lifetimeMs: number): string => {
  const authority = createAuthority({
    commonName: 'Clients',
    key: createKeyPair(),
    // Old enough for leaves that have expired already.
    nowMs: nowMs - 3_600_000,
    lifetimeMs: 7_200_000_000,
    spiffeTrustDomain: 'clients.test',
  });
  const leaf = issueSvid(authority, { spiffeId: 'spiffe://clients.test/a', publicKey: key.publicKey, nowMs, lifetimeMs });
  return leaf.pem + authority.certificatePem;
};

/** A leaf, its authority, and the leaf's key. */
export const soundBundle = (nowMs: number, lifetimeMs = 600_000): string => {
  const key = createKeyPair();
  return certificateOf(key, nowMs, lifetimeMs) + pkcs8(key);
};

export const keyText = (bundle: string): string => /-----BEGIN [A-Z ]*KEY-----[^]*?-----END [A-Z ]*KEY-----\n?/.exec(bundle)?.[0] ?? '';
export const certificateText = (bundle: string): string => bundle.replace(keyText(bundle), '');

/** RSA of 1024 bits with SHA-256: well-formed, and too short for any TLS of today. */
const weakBundle = (nowMs: number): string => {
  const key = generateKeyPairSync('rsa', { modulusLength: 1024 });
  const algorithm = sequence(objectIdentifier('1.2.840.113549.1.1.11'), tlv(0x05));
  const name = commonName('weak');
  const info = sequence(
    explicit(0, tlv(tags.integer, Buffer.of(2))),
    unsignedInteger(Buffer.of(7)),
    algorithm,
    name,
    sequence(time(nowMs - 60_000), time(nowMs + 600_000)),
    name,
    key.publicKey.export({ type: 'spki', format: 'der' }),
    explicit(3, emptyName),
  );
  return pemOf(sequence(info, algorithm, bitString(sign('sha256', info, key.privateKey)))) + pkcs8(key);
};

/** Each with what is said of it. */
export const badBundles = (nowMs: number): Readonly<Record<string, { readonly bundle: string; readonly detail: RegExp }>> => {
  const sound = soundBundle(nowMs);
  const [certificates, key] = [certificateText(sound), keyText(sound)];
  const other = createKeyPair();
  const mine = createKeyPair();
  const encrypted = (type: 'pkcs8' | 'sec1'): string =>
    mine.privateKey.export({ type, format: 'pem', cipher: 'aes-128-cbc', passphrase: 'canary-passphrase' }) as string;
  const ofMine = certificateOf(mine, nowMs, 600_000);
  const [leaf = '', authority = ''] = certificates.split(/(?<=-----END CERTIFICATE-----\n)/);
  return {
    'no certificate': { bundle: key, detail: /no certificate/ },
    'no key': { bundle: certificates, detail: /no private key/ },
    'the key of another certificate': { bundle: certificates + pkcs8(other), detail: /not that of its first certificate/ },
    'the authority first': { bundle: authority + leaf + key, detail: /not that of its first certificate/ },
    'two keys': { bundle: sound + pkcs8(other), detail: /more than one private key/ },
    'an encrypted key': { bundle: ofMine + encrypted('pkcs8'), detail: /encrypted or cannot be read/ },
    'a key encrypted in the old way': { bundle: ofMine + encrypted('sec1'), detail: /encrypted or cannot be read/ },
    'a certificate cut short': { bundle: pemOf(Buffer.from('3082010a', 'hex')) + key, detail: /certificate that cannot be read/ },
    'a key cut short': { bundle: certificates + key.replace(/.{30}\n-----END/, '\n-----END'), detail: /encrypted or cannot be read/ },
    'a key that is too short for TLS': { bundle: weakBundle(nowMs), detail: /too weak for TLS/ },
    'more than a credential may be': { bundle: sound.padEnd(limits.credentialBytesMax + 1, '#'), detail: /longer than/ },
    'a token': { bundle: 'canary-token', detail: /no certificate/ },
    nothing: { bundle: '', detail: /is empty/ },
  };
};

/** Sound, at another time. */
export const lateBundles = (nowMs: number): Readonly<Record<string, string>> => ({
  'a certificate that has expired': soundBundle(nowMs - 1_800_000, 60_000),
  'a certificate that is not valid yet': soundBundle(nowMs + limits.certificateBackdateMs + 60_000),
});

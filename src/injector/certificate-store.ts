/**
 * The webhook's authorities and certificate in the Secret that all replicas share: pure from what the Secret holds to what it should hold.
 * An authority is for the webhook's names alone. A successor is in the webhook's configuration for a day before it signs.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { isJsonObject, type JsonObject } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { Secret } from '../core/secret.ts';
import { type Authority, createAuthority, loadAuthority } from '../pki/authority.ts';
import { type AuthoritySchedule, inOrder, planAuthorities, signingAuthority } from '../pki/authority-schedule.ts';
import { extendedKeyUsage, subjectAltName } from '../pki/extension.ts';
import { createKeyPair } from '../pki/key.ts';
import { issueEndEntity } from '../pki/leaf.ts';

interface KeptAuthority extends Authority {
  readonly signsFromMs: number;
}

export interface WebhookCertificate {
  readonly certificatePem: string;
  /** PKCS #8 PEM. */
  readonly privateKeyPem: Secret;
  readonly notAfterMs: number;
  /** What the API server is to trust, PEM. */
  readonly caPem: string;
}

export interface CertificateStore {
  readonly certificate: WebhookCertificate;
  /** `data` to write; undefined when it is there already. */
  readonly write: JsonObject | undefined;
}

const schedule: AuthoritySchedule = {
  lifetimeMs: limits.webhookAuthorityLifetimeMs,
  announcementMs: limits.webhookAuthorityAnnouncementMs,
  signedLifetimeMaxMs: limits.webhookCertificateLifetimeMs,
};

/** Entries of the Secret. ca.crt is for people: the authorities' certificates. */
const entries = { authorities: 'authorities.json', bundle: 'ca.crt', certificate: 'tls.crt', key: 'tls.key' } as const;

/** `data` as the API has it, base64. What does not fit together is made anew: nothing depends on it but the API server, which is told at once. */
export const certificateFrom = (data: JsonObject, dnsNames: readonly string[], nowMs: number): CertificateStore => {
  const known = authoritiesIn(data);
  const { create, keep } = planAuthorities(known, nowMs, schedule);
  const authorities = create === undefined ? keep : inOrder([...keep, makeAuthority(dnsNames, nowMs, create.signsFromMs)]);
  const signing = signingAuthority(authorities, nowMs) as KeptAuthority;
  const caPem = authorities.map(({ certificatePem }) => certificatePem).join('');
  const kept = keptCertificate(data, { dnsNames, signing, nowMs });
  const { certificatePem, privateKeyPem, notAfterMs } = kept ?? makeCertificate(signing, dnsNames, nowMs);
  const certificate = { certificatePem, privateKeyPem, notAfterMs, caPem };
  const isWhole = kept !== undefined && create === undefined && keep.length === known.length && textIn(data, entries.bundle) === caPem;
  return { certificate, write: isWhole ? undefined : { ...data, ...encoded(authorities, certificate) } };
};

const encoded = (authorities: readonly KeptAuthority[], { certificatePem, privateKeyPem, caPem }: WebhookCertificate): JsonObject => {
  const document = authorities.map(({ certificatePem: certificate, key, signsFromMs }) => ({
    certificatePem: certificate,
    privateKeyPem: pkcs8(key.privateKey),
    signsFromMs,
  }));
  const texts = {
    [entries.authorities]: JSON.stringify(document),
    [entries.bundle]: caPem,
    [entries.certificate]: certificatePem,
    [entries.key]: privateKeyPem.reveal(),
  };
  return Object.fromEntries(Object.entries(texts).map(([name, text]) => [name, Buffer.from(text).toString('base64')]));
};

const pkcs8 = (key: Authority['key']['privateKey']): string => key.export({ type: 'pkcs8', format: 'pem' }) as string;

const textIn = (data: JsonObject, name: string): string => {
  const value = data[name];
  return typeof value === 'string' ? Buffer.from(value, 'base64').toString() : '';
};

const authoritiesIn = (data: JsonObject): readonly KeptAuthority[] => {
  try {
    const document: unknown = JSON.parse(textIn(data, entries.authorities));
    return Array.isArray(document) ? inOrder(document.filter(isJsonObject).map(loadKept)) : [];
  } catch {
    return [];
  }
};

/** Throws when it is not one of ours. */
const loadKept = ({ certificatePem, privateKeyPem, signsFromMs }: JsonObject): KeptAuthority => {
  if (typeof signsFromMs !== 'number') throw new TypeError('no time');
  return { ...loadAuthority(String(certificatePem), String(privateKeyPem)), signsFromMs };
};

const makeAuthority = (dnsNames: readonly string[], nowMs: number, signsFromMs: number): KeptAuthority => {
  const { lifetimeMs } = schedule;
  const made = createAuthority({ commonName: 'Outrider webhook', key: createKeyPair(), nowMs, lifetimeMs, permittedHosts: dnsNames });
  return { ...made, signsFromMs };
};

const makeCertificate = (authority: Authority, dnsNames: readonly string[], nowMs: number) => {
  const key = createKeyPair();
  const { pem, notAfterMs } = issueEndEntity(authority, {
    publicKey: key.publicKey,
    nowMs,
    lifetimeMs: limits.webhookCertificateLifetimeMs,
    extensions: [extendedKeyUsage('serverAuth'), subjectAltName(true, { hosts: dnsNames })],
  });
  return { certificatePem: pem, privateKeyPem: new Secret(pkcs8(key.privateKey)), notAfterMs };
};

/** The one that is there, if it is by who signs now, for exactly these names, has its key, and has more than a third of its life before it. */
const keptCertificate = (
  data: JsonObject,
  { dnsNames, signing, nowMs }: { readonly dnsNames: readonly string[]; readonly signing: Authority; readonly nowMs: number },
) => {
  try {
    const [certificatePem, key] = [textIn(data, entries.certificate), textIn(data, entries.key)];
    const certificate = new X509Certificate(certificatePem);
    const notAfterMs = certificate.validToDate.getTime();
    const names = dnsNames.map((name) => `DNS:${name}`).join(', ');
    const isOurs =
      certificate.verify(signing.key.publicKey) &&
      certificate.checkPrivateKey(createPrivateKey(key)) &&
      certificate.subjectAltName === names;
    return isOurs && notAfterMs - nowMs > limits.webhookCertificateLifetimeMs / 3
      ? { certificatePem, privateKeyPem: new Secret(key), notAfterMs }
      : undefined;
  } catch {
    return undefined;
  }
};

/**
 * What was attested for each SVID that is out, so that grants are decided by the attributes that were verified and not by a
 * name alone. In memory: after a restart it is empty, callers get identity_refused, attest anew and go on; nothing that
 * was verified by an earlier process is taken on trust. Bounded twice: in all, and for one set of attributes.
 */
import { X509Certificate } from 'node:crypto';
import { limits } from '../../core/limits.ts';
import { versionOf } from '../../core/version.ts';
import type { Identity } from '../registry.ts';

export interface IssuedIdentity {
  /** Names this attestation in logs and access events. */
  readonly attestationId: string;
  readonly spiffeId: string;
  readonly identity: Identity;
  /** Wall clock: when the SVID expires. */
  readonly expiresAtMs: number;
}

export interface Attestations {
  readonly remember: (serial: string, issued: IssuedIdentity, nowMs: number) => void;
  /** The attestation behind a certificate, unless it is unknown, expired or was made for another name. */
  readonly find: (serial: string, spiffeId: string, nowMs: number) => IssuedIdentity | undefined;
  readonly size: () => number;
}

/** Hex without leading zeros: certificates and TLS stacks differ in both case and padding. */
const canonicalSerial = (serial: string): string => serial.toUpperCase().replace(/^0+(?=.)/, '');

export const serialOf = (certificateDer: Buffer): string => new X509Certificate(certificateDer).serialNumber;

interface Entry {
  readonly issued: IssuedIdentity;
  readonly subject: string;
}

export const createAttestations = (): Attestations => {
  /** Oldest first. */
  const bySerial = new Map<string, Entry>();
  const serialsOf = new Map<string, string[]>();

  const forget = (serial: string): void => {
    const entry = bySerial.get(serial);
    if (entry === undefined) return;
    bySerial.delete(serial);
    const rest = (serialsOf.get(entry.subject) ?? []).filter((other) => other !== serial);
    if (rest.length === 0) serialsOf.delete(entry.subject);
    else serialsOf.set(entry.subject, rest);
  };
  const forgetExpired = (nowMs: number): void => {
    for (const [serial, { issued }] of bySerial) {
      if (issued.expiresAtMs > nowMs) break;
      forget(serial);
    }
  };

  return {
    remember: (serial, issued, nowMs) => {
      forgetExpired(nowMs);
      const subject = versionOf(issued.identity);
      const own = serialsOf.get(subject) ?? [];
      if (own.length >= limits.attestationsPerWorkloadMax) forget(own[0] as string);
      if (bySerial.size >= limits.attestationsMax) forget(bySerial.keys().next().value as string);
      const key = canonicalSerial(serial);
      bySerial.set(key, { issued, subject });
      serialsOf.set(subject, [...(serialsOf.get(subject) ?? []), key]);
    },
    find: (serial, spiffeId, nowMs) => {
      const issued = bySerial.get(canonicalSerial(serial))?.issued;
      return issued && issued.spiffeId === spiffeId && issued.expiresAtMs > nowMs ? issued : undefined;
    },
    size: () => bySerial.size,
  };
};

/**
 * Whether the API server takes a certificate that somebody else made, and put into the webhook's configuration: it verifies against every
 * webhook's caBundle, as https://pkg.go.dev/crypto/x509#Certificate.Verify does it. Pure. Names and purposes are not looked at.
 */
import { X509Certificate } from 'node:crypto';
import { isJsonObject, type JsonObject } from '../core/json.ts';
import { dersOf } from '../pki/pem.ts';

/** `certificatePem`: leaf first, then what leads to an authority. False where there is no webhook. */
export const isTrustedBy = (configuration: JsonObject, certificatePem: string, nowMs: number): boolean => {
  const { webhooks } = configuration;
  const [leaf, ...between] = certificatesIn(certificatePem);
  if (leaf === undefined || !Array.isArray(webhooks) || webhooks.length === 0) return false;
  return webhooks.every((webhook: unknown) => {
    const clientConfig = isJsonObject(webhook) && isJsonObject(webhook['clientConfig']) ? webhook['clientConfig'] : {};
    const { caBundle } = clientConfig;
    return typeof caBundle === 'string' && verifies(leaf, between, certificatesIn(Buffer.from(caBundle, 'base64').toString()), nowMs);
  });
};

const verifies = (
  leaf: X509Certificate,
  between: readonly X509Certificate[],
  roots: readonly X509Certificate[],
  nowMs: number,
): boolean => {
  const isValid = ({ validFromDate, validToDate }: X509Certificate): boolean =>
    validFromDate.getTime() <= nowMs && nowMs <= validToDate.getTime();
  const signed = (by: X509Certificate, one: X509Certificate): boolean => isValid(by) && one.checkIssued(by) && one.verify(by.publicKey);
  const reached = new Set([leaf]);
  // A set's members that are added meanwhile are visited, too; none is visited twice.
  for (const one of reached) {
    if (!isValid(one)) continue;
    // One that signs itself may be its own authority, without being one.
    if (roots.some((root) => root.fingerprint256 === one.fingerprint256 || signed(root, one))) return true;
    for (const next of between) if (signed(next, one)) reached.add(next);
  }
  return false;
};

const certificatesIn = (pem: string): X509Certificate[] =>
  dersOf(pem).flatMap((der) => {
    try {
      return [new X509Certificate(der)];
    } catch {
      return [];
    }
  });

/**
 * What AWS access keys sign with. Version 4 derives a key for each day, region and service; version 4a one key pair on P-256 for all of them.
 * Derived keys stay with the credential they come from. Nothing here is ever sent: only signatures leave.
 * https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html; 4a's derivation is NIST SP 800-108 in counter mode.
 */
import { createECDH, createHmac, createPrivateKey, type KeyObject, sign } from 'node:crypto';
import { readAwsKeys } from '../../../core/aws-keys.ts';
import { Fault } from '../../../core/fault.ts';
import type { AwsPlacement } from '../../../core/grant.ts';
import { limits } from '../../../core/limits.ts';

export type AwsAlgorithm = AwsPlacement['algorithm'];

/** How the wire spells an algorithm. */
export const spelled = { sigv4: 'AWS4-HMAC-SHA256', sigv4a: 'AWS4-ECDSA-P256-SHA256' } as const satisfies Record<AwsAlgorithm, string>;

/** What a signature is made for. */
export interface Scope {
  readonly algorithm: AwsAlgorithm;
  /** `20261122T083000Z`. */
  readonly time: string;
  /** For sigv4a the region set, which is signed as a field. */
  readonly region: string;
  readonly service: string;
}

export const credentialScope = ({ algorithm, time, region, service }: Scope): string =>
  [time.slice(0, 8), ...(algorithm === 'sigv4' ? [region] : []), service, 'aws4_request'].join('/');

export interface Keyring {
  readonly accessKeyId: string;
  readonly sessionToken: string;
  /** A signature over a text, hexadecimal: HMAC-SHA256, or ECDSA in DER. */
  readonly sign: (scope: Scope, text: string) => string;
}

const hmac = (key: Buffer | string, text: string): Buffer => createHmac('sha256', key).update(text, 'latin1').digest();

/** The credential's text as what it signs with. Throws credential_invalid. */
export const readKeyring = (text: string): Keyring => {
  const keys = readAwsKeys(text);
  if (!keys) throw new Fault('credential_invalid', { detail: 'It is not a set of AWS access keys.' });
  const { accessKeyId, secretAccessKey, sessionToken } = keys;
  return keyringOf(accessKeyId, secretAccessKey, sessionToken);
};

export const keyringOf = (accessKeyId: string, secretAccessKey: string, sessionToken: string): Keyring => {
  const derived = new Map<string, Buffer>();
  const derivedFor = ({ time, region, service }: Scope): Buffer => {
    const name = `${time.slice(0, 8)}/${region}/${service}`;
    const known = derived.get(name);
    if (known) return known;
    const key = [region, service, 'aws4_request'].reduce(hmac, hmac(`AWS4${secretAccessKey}`, time.slice(0, 8)));
    if (derived.size >= limits.awsDerivedKeysMax) derived.delete(derived.keys().next().value as string);
    derived.set(name, key);
    return key;
  };
  let pair: KeyObject | undefined;
  return {
    accessKeyId,
    sessionToken,
    sign: (scope, text) => {
      if (scope.algorithm === 'sigv4') return hmac(derivedFor(scope), text).toString('hex');
      pair ??= keyPairOf(accessKeyId, secretAccessKey);
      return sign('sha256', Buffer.from(text, 'latin1'), { key: pair, dsaEncoding: 'der' }).toString('hex');
    },
  };
};

/** The order of P-256, less two: the largest candidate that is taken. */
const candidateMax = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n - 2n;

const keyPairOf = (accessKeyId: string, secretAccessKey: string): KeyObject => {
  const label = Buffer.from(spelled.sigv4a, 'latin1');
  // A candidate is too large once in 2^32 times; the counter is one byte.
  for (let counter = 1; counter <= 254; counter += 1) {
    const context = Buffer.concat([Buffer.from(accessKeyId, 'latin1'), Buffer.from([counter])]);
    const input = Buffer.concat([Buffer.from([0, 0, 0, 1]), label, Buffer.from([0]), context, Buffer.from([0, 0, 1, 0])]);
    const candidate = BigInt(`0x${createHmac('sha256', `AWS4A${secretAccessKey}`).update(input).digest('hex')}`);
    if (candidate <= candidateMax) return privateKeyOf(candidate + 1n);
  }
  throw new Fault('credential_invalid', { detail: 'No key pair can be derived from it.' });
};

const privateKeyOf = (scalar: bigint): KeyObject => {
  const d = Buffer.from(scalar.toString(16).padStart(64, '0'), 'hex');
  const curve = createECDH('prime256v1');
  curve.setPrivateKey(d);
  const point = curve.getPublicKey();
  const [x, y] = [point.subarray(1, 33), point.subarray(33)].map((part) => part.toString('base64url')) as [string, string];
  return createPrivateKey({ format: 'jwk', key: { kty: 'EC', crv: 'P-256', d: d.toString('base64url'), x, y } });
};

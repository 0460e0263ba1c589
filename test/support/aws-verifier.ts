/**
 * What AWS does with a signature: computes it again from the request that arrived and compares. The canonical form and the keys of version 4 are
 * those of AWS' own SDK; the rest is written from its documentation. Shares nothing with the product.
 */
import { createECDH, createHash, createHmac, createPublicKey, type KeyObject, verify } from 'node:crypto';
import { createScope, getCanonicalHeaders, getSigningKey, SignatureV4 } from '@smithy/signature-v4';
import type { Checksum, HttpRequest } from '@smithy/types';

export interface AwsTestKeys {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken: string;
}

export interface ArrivedRequest {
  readonly method: string;
  /** Path and query as they arrived. */
  readonly url: string;
  /** As they arrived, Host among them. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly body: Buffer;
}

export interface AwsVerdict {
  readonly problems: readonly string[];
  readonly form: 'header' | 'query';
  readonly algorithm: string;
  readonly signedHeaders: readonly string[];
  readonly scope: string;
  readonly expires: string | undefined;
  /** What was uploaded, without aws-chunked. */
  readonly content: Buffer;
  readonly trailer: string;
}

export interface AwsTerms {
  readonly service: string;
  readonly region: string;
  readonly nowMs: number;
}

export class Sha256 implements Checksum {
  readonly #hash: { update: (data: Uint8Array) => unknown; digest: () => Buffer };
  constructor(secret?: unknown) {
    this.#hash = secret === undefined ? createHash('sha256') : createHmac('sha256', secret as Uint8Array);
  }
  update(data: unknown): void {
    this.#hash.update(typeof data === 'string' ? Buffer.from(data, 'utf8') : (data as Uint8Array));
  }
  async digest(): Promise<Uint8Array> {
    return this.#hash.digest();
  }
  reset(): void {
    throw new Error('not asked for');
  }
}

/** Opens what the SDK keeps to its subclasses. */
class Signer extends SignatureV4 {
  canonical(request: HttpRequest, names: ReadonlySet<string>, payload: string): string {
    return this.createCanonicalRequest(request, getCanonicalHeaders(request, undefined, new Set(names)), payload);
  }
  text(time: string, scope: string, canonical: string, algorithm: string): Promise<string> {
    return this.createStringToSign(time, scope, canonical, algorithm);
  }
}

const objectStores = new Set(['s3', 's3express', 's3-outposts', 's3-object-lambda']);
const sha256 = (data: Buffer | string): string => createHash('sha256').update(data).digest('hex');

/** The public key of version 4a, from the secret (https://github.com/awslabs/aws-c-auth, NIST SP 800-108). */
export const publicKeyOf = async ({ accessKeyId, secretAccessKey }: AwsTestKeys): Promise<KeyObject> => {
  const subtle = globalThis.crypto.subtle;
  const key = await subtle.importKey('raw', Buffer.from(`AWS4A${secretAccessKey}`), { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
  const fixed = `\u0000\u0000\u0000\u0001AWS4-ECDSA-P256-SHA256\u0000${accessKeyId}\u0001\u0000\u0000\u0001\u0000`;
  const scalar = BigInt(`0x${Buffer.from(await subtle.sign('HMAC', key, Buffer.from(fixed, 'latin1'))).toString('hex')}`) + 1n;
  const curve = createECDH('prime256v1');
  curve.setPrivateKey(scalar.toString(16).padStart(64, '0'), 'hex');
  const point = curve.getPublicKey();
  const [x, y] = [point.subarray(1, 33).toString('base64url'), point.subarray(33).toString('base64url')] as [string, string];
  return createPublicKey({ format: 'jwk', key: { kty: 'EC', crv: 'P-256', x, y } });
};

export const verifyAws = async (request: ArrivedRequest, keys: AwsTestKeys, terms: AwsTerms): Promise<AwsVerdict> => {
  const problems: string[] = [];
  const must = (isSo: boolean, problem: string): void => {
    if (!isSo) problems.push(problem);
  };
  const headers: Record<string, string> = {};
  for (const [name, value] of request.headers) {
    const lower = name.toLowerCase();
    // The SDK's texts are Unicode; on the wire a character is a byte.
    const text = Buffer.from(value.trim(), 'latin1').toString('utf8');
    headers[lower] = headers[lower] === undefined ? text : `${headers[lower]},${text}`;
  }
  const mark = request.url.indexOf('?');
  const path = mark < 0 ? request.url : request.url.slice(0, mark);
  const query: Record<string, string[]> = {};
  // As a form is read: a plus is a space.
  for (const [name, value] of new URLSearchParams(mark < 0 ? '' : request.url.slice(mark + 1))) (query[name] ??= []).push(value);

  const isQuery = query['X-Amz-Signature'] !== undefined;
  must(!(isQuery && headers['authorization'] !== undefined), 'signed in the query and in Authorization');
  const inHeader = /^(\S+) Credential=([^,]+), SignedHeaders=([^,]+), Signature=([0-9a-f]+)$/.exec(headers['authorization'] ?? '') ?? [];
  const one = (name: string): string => {
    must((query[name]?.length ?? 0) === 1, `${name} is there ${query[name]?.length ?? 0} times`);
    return query[name]?.[0] ?? '';
  };
  const [algorithm = '', credential = '', names = '', signature = ''] = isQuery
    ? ['X-Amz-Algorithm', 'X-Amz-Credential', 'X-Amz-SignedHeaders', 'X-Amz-Signature'].map(one)
    : inHeader.slice(1);
  const time = (isQuery ? one('X-Amz-Date') : headers['x-amz-date']) ?? '';
  const isAsymmetric = algorithm === 'AWS4-ECDSA-P256-SHA256';
  must(isAsymmetric || algorithm === 'AWS4-HMAC-SHA256', `algorithm ${algorithm}`);

  const [id, ...scopeParts] = credential.split('/');
  const scope = scopeParts.join('/');
  const day = time.slice(0, 8);
  must(id === keys.accessKeyId, `access key ${id}`);
  must(scope === (isAsymmetric ? `${day}/${terms.service}/aws4_request` : createScope(day, terms.region, terms.service)), `scope ${scope}`);
  const signedAt = Date.parse(time.replace(/^(....)(..)(..)T(..)(..)(..)Z$/, '$1-$2-$3T$4:$5:$6Z'));
  const expires = query['X-Amz-Expires']?.[0];
  const until = signedAt + (isQuery ? Number(expires ?? 900) : 900) * 1_000;
  must(Math.abs(signedAt - terms.nowMs) <= 900_000 && terms.nowMs <= until, `signed at ${time}, good until ${until}, now ${terms.nowMs}`);
  must(
    (isQuery ? query['X-Amz-Security-Token']?.[0] : headers['x-amz-security-token']) === (keys.sessionToken || undefined),
    'session token',
  );
  must(!isQuery || headers['x-amz-security-token'] === undefined, 'a session token in both places');
  if (isAsymmetric) must((isQuery ? one('X-Amz-Region-Set') : headers['x-amz-region-set']) === terms.region, 'region set');

  const signed = names.split(';');
  must(signed.includes('host'), 'Host is not signed');
  for (const name of Object.keys(headers)) if (name.startsWith('x-amz-')) must(signed.includes(name), `${name} is not signed`);
  for (const name of signed) must(headers[name] !== undefined, `${name} is signed and did not arrive`);
  must(signed.join() === signed.toSorted().join(), 'signed headers are not in order');

  const isStore = objectStores.has(terms.service);
  const stated = query['X-Amz-Content-Sha256']?.[0] ?? headers['x-amz-content-sha256'];
  if (isStore && !isQuery) must(stated !== undefined, 'x-amz-content-sha256 is missing');
  const payload = stated ?? (isQuery && isStore ? 'UNSIGNED-PAYLOAD' : sha256(request.body));
  if (/^[0-9a-f]{64}$/.test(payload)) must(payload === sha256(request.body), 'the body has another hash');

  const signer = new Signer({ credentials: keys, region: terms.region, service: terms.service, sha256: Sha256, uriEscapePath: !isStore });
  const bag = Object.fromEntries(signed.filter((name) => headers[name] !== undefined).map((name) => [name, headers[name] as string]));
  const signedPath = isStore ? encodedAgain(path) : path;
  const http = { method: request.method, protocol: 'https:', hostname: headers['host'] ?? '', path: signedPath, query, headers: bag };
  const canonical = signer.canonical(http, new Set(signed), payload);
  const check = await checker(keys, terms, day, isAsymmetric);
  must(check(await signer.text(time, scope, canonical, algorithm), signature), `the signature is not over:\n${canonical}`);

  const chunked = payload.startsWith('STREAMING-') ? readChunks(request.body) : undefined;
  if (chunked && payload.startsWith('STREAMING-AWS4-')) checkChunks(chunked, { signature, time, scope, algorithm, check, must });
  const announced = headers['x-amz-decoded-content-length'];
  if (chunked) must(announced === undefined || Number(announced) === chunked.content.length, 'decoded length');
  return {
    problems,
    algorithm,
    signedHeaders: signed,
    scope,
    expires,
    form: isQuery ? 'query' : 'header',
    content: chunked?.content ?? request.body,
    trailer: chunked?.trailer ?? '',
  };
};

/** S3 signs for the key, which it has from the path, encoded in the one way that it documents; its SDKs never send another. */
const encodedAgain = (path: string): string =>
  path
    .split('/')
    .map((segment) => encodeURIComponent(decodedText(segment)).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16)}`.toUpperCase()))
    .join('/');

const decodedText = (text: string): string => {
  const octets = text.replace(/%([0-9a-f]{2})/gi, (_all, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  return Buffer.from(octets, 'latin1').toString('utf8');
};

type Check = (text: string, signature: string) => boolean;

const checker = async (keys: AwsTestKeys, { region, service }: AwsTerms, day: string, isAsymmetric: boolean): Promise<Check> => {
  if (!isAsymmetric) {
    const key = await getSigningKey(Sha256, keys, day, region, service);
    return (text, signature) => createHmac('sha256', key).update(text).digest('hex') === signature;
  }
  const key = await publicKeyOf(keys);
  return (text, signature) => verify('sha256', Buffer.from(text), { key, dsaEncoding: 'der' }, Buffer.from(signature, 'hex'));
};

interface Chunks {
  readonly chunks: readonly { readonly data: Buffer; readonly signature: string }[];
  readonly content: Buffer;
  /** Its lines without the signature's, each with a line end, and the signature. */
  readonly trailer: string;
  readonly trailerSignature: string;
}

const readChunks = (body: Buffer): Chunks => {
  const chunks: { data: Buffer; signature: string }[] = [];
  let at = 0;
  const line = (): string => {
    const end = body.indexOf('\r\n', at);
    if (end < 0) throw new Error('a line without an end');
    const text = body.toString('latin1', at, end);
    at = end + 2;
    return text;
  };
  for (;;) {
    const [size = '', extension = ''] = line().split(';');
    const length = Number.parseInt(size, 16);
    chunks.push({ data: body.subarray(at, at + length), signature: extension.replace('chunk-signature=', '') });
    at += length;
    if (length === 0) break;
    if (line() !== '') throw new Error('a chunk is longer than it says');
  }
  const lines: string[] = [];
  let trailerSignature = '';
  for (let text = line(); text !== ''; text = line()) {
    if (text.startsWith('x-amz-trailer-signature:')) trailerSignature = text.slice(text.indexOf(':') + 1);
    else lines.push(`${text}\n`);
  }
  if (at !== body.length) throw new Error('something follows the last chunk');
  return { chunks, content: Buffer.concat(chunks.map(({ data }) => data)), trailer: lines.join(''), trailerSignature };
};

interface ChunkTerms {
  /** Of the request. */
  readonly signature: string;
  readonly time: string;
  readonly scope: string;
  readonly algorithm: string;
  readonly check: Check;
  readonly must: (isSo: boolean, problem: string) => void;
}

const checkChunks = (
  { chunks, trailer, trailerSignature }: Chunks,
  { signature, time, scope, algorithm, check, must }: ChunkTerms,
): void => {
  let previous = signature;
  const next = (kind: string, given: string, ...hashes: string[]): void => {
    must(given.length === (algorithm === 'AWS4-HMAC-SHA256' ? 64 : 144), `a signature of ${given.length} digits`);
    const bare = given.replace(/\*+$/, '');
    must(check([`${algorithm}-${kind}`, time, scope, previous, ...hashes].join('\n'), bare), `${kind} of ${previous.slice(0, 8)}`);
    previous = bare;
  };
  for (const { data, signature: given } of chunks) next('PAYLOAD', given, sha256(''), sha256(data));
  if (trailer !== '') next('TRAILER', trailerSignature, sha256(trailer));
};

/**
 * How the program signed, with whatever keys it had: in which form, and which fields. Its signature is replaced in the same form; what cannot
 * be replaced so that the target reads the same request is refused. Pure.
 */
import { Fault } from '../../../core/fault.ts';
import { type HeaderList, sameNameKey } from '../../../core/headers.ts';
import { parameterName, uriDecode } from './canonical.ts';

export interface OriginalSignature {
  readonly form: 'header' | 'query';
  /** Names of the fields it covered, lower case. */
  readonly signed: ReadonlySet<string>;
  /** Query form: when it was signed and for how long it was to be good, as written; undefined where it does not say. */
  readonly date: string | undefined;
  readonly expires: string | undefined;
}

/** Parameters of a signature in the query (lower case): they go, and ours come in the query form alone. */
export const signatureParameters: ReadonlySet<string> = new Set([
  'x-amz-algorithm',
  'x-amz-credential',
  'x-amz-date',
  'x-amz-expires',
  'x-amz-region-set',
  'x-amz-security-token',
  'x-amz-signature',
  'x-amz-signedheaders',
]);

const unsupported = (detail: string): Fault => new Fault('signature_unsupported', { detail });

const version4 = /^AWS4-(?:HMAC|ECDSA-P256)-SHA256(?=[ \t]|$)/;

/** Throws signature_unsupported for other versions, for two signatures on one request, and for what signs more than the request. */
export const originalSignature = (headers: HeaderList, parameters: readonly string[]): OriginalSignature => {
  const written = writtenIn(parameters);
  const signatures = headers.filter(([name, value]) => sameNameKey(name) === 'authorization' && /^\s*AWS/i.test(value));
  if (signatures.some(([, value]) => !version4.test(value.trim())) || written.has('awsaccesskeyid')) {
    throw unsupported('It is signed by another version than 4.');
  }
  if (written.has('x-amz-s3session-token') || headers.some(([name]) => sameNameKey(name) === 'x-amz-s3session-token')) {
    throw unsupported('It is signed with the keys of an S3 Express session: turn session authentication off in the SDK.');
  }
  const isQuery = ['x-amz-algorithm', 'x-amz-credential', 'x-amz-signature'].some((name) => written.has(name));
  if (signatures.length > (isQuery ? 0 : 1)) throw unsupported('It is signed twice.');
  if (!isQuery) {
    const names = /\bSignedHeaders=([^,\s]*)/i.exec(signatures[0]?.[1] ?? '')?.[1] ?? '';
    return { form: 'header', signed: namesIn(names), date: undefined, expires: undefined };
  }
  for (const [name, values] of written) if (signatureParameters.has(name) && values.length > 1) throw unsupported(`It has ${name} twice.`);
  const [algorithm] = written.get('x-amz-algorithm') ?? [];
  if (algorithm !== undefined && !version4.test(algorithm)) throw unsupported('It is signed by another version than 4.');
  return {
    form: 'query',
    signed: namesIn(written.get('x-amz-signedheaders')?.[0] ?? ''),
    date: written.get('x-amz-date')?.[0],
    expires: written.get('x-amz-expires')?.[0],
  };
};

const namesIn = (list: string): ReadonlySet<string> => new Set(list.toLowerCase().split(';'));

/** Decoded values by lower-case name. */
const writtenIn = (parameters: readonly string[]): ReadonlyMap<string, readonly string[]> => {
  const all = new Map<string, string[]>();
  for (const parameter of parameters) {
    const name = parameterName(parameter).toLowerCase();
    const mark = parameter.indexOf('=');
    const value = mark < 0 ? '' : uriDecode(parameter.slice(mark + 1));
    const others = all.get(name);
    if (others) others.push(value);
    else all.set(name, [value]);
  }
  return all;
};

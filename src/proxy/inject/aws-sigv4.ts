/**
 * AWS Signature Version 4 and 4a. A request that the program signed, with whatever keys, is signed anew in the same form, header or query;
 * one that it did not sign, in the header. What is signed is what is sent: this comes last, and signs no field that a node on the way changes.
 * Service and region come from the placement, else from the host. Keys never leave; of a credential the target sees its session token alone.
 * https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
 */
import { hostField } from '../../core/destination.ts';
import { Fault } from '../../core/fault.ts';
import type { AwsPlacement } from '../../core/grant.ts';
import { type HeaderList, tokenPattern, valuesOf } from '../../core/headers.ts';
import { limits } from '../../core/limits.ts';
import type { BodySource } from '../exchange.ts';
import type { Draft, PlaceContext, Placer } from '../inject.ts';
import {
  canonicalRequest,
  emptyHash,
  parameterName,
  parametersOf,
  queryOf,
  sha256,
  signedFields,
  uriEncode,
} from './aws-sigv4/canonical.ts';
import { signChunks } from './aws-sigv4/chunks.ts';
import { endpointOf } from './aws-sigv4/endpoint.ts';
import { credentialScope, type Keyring, readKeyring, type Scope, spelled } from './aws-sigv4/keyring.ts';
import { type OriginalSignature, originalSignature, signatureParameters } from './aws-sigv4/original.ts';
import { type Payload, payloadOf } from './aws-sigv4/payload.ts';

export const awsSigV4: Placer<AwsPlacement, Keyring> = {
  read: readKeyring,
  shown: ({ sessionToken }) => (sessionToken === '' ? [] : [sessionToken]),
  // Date, too: it would say another time than the signature.
  fields: () => ['authorization', 'date', 'x-amz-date', 'x-amz-security-token', 'x-amz-region-set', 'x-amz-content-sha256'],
  isSignature: true,
  needsWholeBody: (draft, placement) => readRequest(draft, placement, draft.headers).payload.kind === 'hashed',
  place: (draft, placement, keyring, context) => {
    const request = readRequest(draft, placement, context.original);
    const scope: Scope = { ...request.scope, time: timeOf(context.nowMs) };
    return request.original.form === 'header'
      ? inHeader(draft, request, scope, keyring, context)
      : inQuery(draft, request, scope, keyring, context);
  },
};

/** What is to be signed, and how. */
interface Request {
  readonly scope: Omit<Scope, 'time'>;
  readonly original: OriginalSignature;
  /** As they are sent, without those of a signature. */
  readonly parameters: readonly string[];
  readonly payload: Payload;
}

const readRequest = (draft: Draft, placement: AwsPlacement, headers: HeaderList): Request => {
  const scope = scopeFor(placement, draft);
  const all = parametersOf(draft.query);
  const original = originalSignature(headers, all);
  const parameters = all.filter((parameter) => !signatureParameters.has(parameterName(parameter).toLowerCase()));
  const { body, destination } = draft;
  return { scope, original, parameters, payload: payloadOf({ ...scope, headers, body, scheme: destination.scheme, original, parameters }) };
};

const scopeFor = (placement: AwsPlacement, { destination, path }: Draft): Omit<Scope, 'time'> => {
  const { algorithm } = placement;
  const endpoint = placement.service === '' || placement.region === '' ? endpointOf(destination.host) : undefined;
  // Devices that speak MQTT over WebSocket come to the same host by this path, for which another service signs.
  const found = endpoint?.service === 'iotdata' && path === '/mqtt' ? 'iotdevicegateway' : endpoint?.service;
  const service = placement.service || found;
  const region = placement.region || endpoint?.region;
  if (service === undefined || region === undefined) {
    throw new Fault('credential_invalid', { detail: 'Its host does not say the AWS service and region: the placement must name them.' });
  }
  if (algorithm === 'sigv4' && !/^[A-Za-z0-9-]+$/.test(region)) {
    throw new Fault('credential_invalid', { detail: 'Version 4 signs for one region: the placement must name it, or be sigv4a.' });
  }
  return { algorithm, service, region };
};

/** `20261122T083000Z`. */
const timeOf = (ms: number): string => new Date(ms).toISOString().replace(/[-:]|\.\d{3}/g, '');

const inHeader = (draft: Draft, request: Request, scope: Scope, keyring: Keyring, context: PlaceContext): Draft => {
  const { payload, parameters } = request;
  const stated = payload.kind === 'hashed' ? hashOf(draft.body) : payload.value;
  const headers: HeaderList = [
    ...withLength(draft),
    // S3 wants it said, and others do not mind.
    ['x-amz-content-sha256', stated],
    ['x-amz-date', scope.time],
    ...(scope.algorithm === 'sigv4a' ? [['x-amz-region-set', scope.region] as const] : []),
    ...(keyring.sessionToken === '' ? [] : [['x-amz-security-token', keyring.sessionToken] as const]),
  ];
  const fields = fieldsOf(draft, headers, request.original);
  const signature = signatureOf({ ...draft, parameters, fields, payload: stated, service: scope.service }, scope, keyring);
  const credential = `${keyring.accessKeyId}/${credentialScope(scope)}`;
  const authorization = `${spelled[scope.algorithm]} Credential=${credential}, SignedHeaders=${fields.names}, Signature=${signature}`;
  return {
    ...draft,
    query: queryOf(parameters),
    headers: [...headers, ['authorization', authorization]],
    body: payload.kind === 'chunks' ? chunksOf(draft, payload.hasTrailer, scope, signature, keyring, context) : draft.body,
  };
};

const inQuery = (draft: Draft, request: Request, scope: Scope, keyring: Keyring, { nowMs, original }: PlaceContext): Draft => {
  const { payload } = request;
  const stated = payload.kind === 'hashed' ? hashOf(draft.body) : payload.value;
  const headers: HeaderList = [
    ...withLength(draft),
    ...(valuesOf(original, 'x-amz-content-sha256').length > 0 ? [['x-amz-content-sha256', stated] as const] : []),
  ];
  const fields = fieldsOf(draft, headers, request.original);
  const expires = lifetimeLeft(request.original, nowMs);
  const token = keyring.sessionToken === '' ? [] : [`X-Amz-Security-Token=${uriEncode(keyring.sessionToken)}`];
  // AWS IoT takes the token beside the signature rather than under it.
  const isTokenSigned = scope.service !== 'iotdevicegateway';
  const parameters = [
    ...request.parameters,
    `X-Amz-Algorithm=${spelled[scope.algorithm]}`,
    `X-Amz-Credential=${uriEncode(`${keyring.accessKeyId}/${credentialScope(scope)}`)}`,
    `X-Amz-Date=${scope.time}`,
    ...(expires === undefined ? [] : [`X-Amz-Expires=${expires}`]),
    ...(scope.algorithm === 'sigv4a' ? [`X-Amz-Region-Set=${uriEncode(scope.region)}`] : []),
    ...(isTokenSigned ? token : []),
    `X-Amz-SignedHeaders=${uriEncode(fields.names)}`,
  ];
  const signature = signatureOf({ ...draft, parameters, fields, payload: stated, service: scope.service }, scope, keyring);
  return { ...draft, query: queryOf([...parameters, `X-Amz-Signature=${signature}`, ...(isTokenSigned ? [] : token)]), headers };
};

/**
 * A URL is good for as long as the program signed it for, counted from when it did; what is sent is used at once, and good for no longer than
 * that takes, because targets log URLs and repeat them. Throws signature_unsupported when its time is over, as the target would refuse it.
 */
const lifetimeLeft = ({ date, expires }: OriginalSignature, nowMs: number): number | undefined => {
  if (expires === undefined) return undefined;
  const seconds = /^[0-9]{1,6}$/.test(expires) ? Number(expires) : Number.NaN;
  const signedAtMs = date === undefined ? nowMs : readTime(date);
  const left = Math.ceil((signedAtMs + seconds * 1_000 - nowMs) / 1_000);
  if (Number.isNaN(left)) throw new Fault('signature_unsupported', { detail: 'X-Amz-Date or X-Amz-Expires cannot be read.' });
  if (left <= 0) throw new Fault('signature_unsupported', { detail: 'The time for which its URL was signed is over.' });
  return Math.min(left, seconds, limits.awsUrlLifetimeMs / 1_000);
};

const readTime = (text: string): number => {
  const parts = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(text);
  return parts ? Date.parse(`${parts[1]}-${parts[2]}-${parts[3]}T${parts[4]}:${parts[5]}:${parts[6]}Z`) : Number.NaN;
};

/** What has to be signed where it is present, whatever the program did. */
const mustBeSigned = (name: string): boolean => name === 'content-type' || name === 'content-md5' || name.startsWith('x-amz-');

/** Never signed: our own hop writes them, or nodes on the way do. */
const neverSigned = new Set([
  'accept-encoding',
  'connection',
  'content-length',
  'cookie',
  'expect',
  'traceparent',
  'tracestate',
  'transfer-encoding',
  'user-agent',
  'x-amzn-trace-id',
  'x-forwarded-for',
]);

const fieldsOf = ({ destination }: Draft, headers: HeaderList, { signed }: OriginalSignature) =>
  signedFields(
    [['host', hostField(destination)], ...headers],
    (name) => name === 'host' || ((mustBeSigned(name) || signed.has(name)) && !neverSigned.has(name) && tokenPattern.test(name)),
  );

const signatureOf = (parts: Parameters<typeof canonicalRequest>[0], scope: Scope, keyring: Keyring): string =>
  keyring.sign(scope, [spelled[scope.algorithm], scope.time, credentialScope(scope), sha256(canonicalRequest(parts))].join('\n'));

/** Throws body_too_large for a body that is still to come: whoever asked `needsWholeBody` has it at hand. */
const hashOf = (body: BodySource | undefined): string => {
  if (body === undefined) return emptyHash;
  if (body.held === undefined) throw new Fault('body_too_large');
  return sha256(body.held);
};

/** A body whose length is known is announced: most services take no other. */
const withLength = ({ headers, body }: Draft): HeaderList =>
  body?.held !== undefined && body.trailers().length === 0 && valuesOf(headers, 'content-length').length === 0
    ? [...headers, ['content-length', String(body.held.length)]]
    : headers;

const chunksOf = (
  { body, headers }: Draft,
  hasTrailer: boolean,
  scope: Scope,
  seed: string,
  keyring: Keyring,
  { buffers }: PlaceContext,
): BodySource => {
  if (body === undefined) throw new Fault('framing_invalid', { detail: 'It announces signed chunks and has no body.' });
  const announced = valuesOf(headers, 'x-amz-decoded-content-length')[0];
  if (announced !== undefined && !/^[0-9]{1,15}$/.test(announced)) {
    throw new Fault('framing_invalid', { detail: 'x-amz-decoded-content-length is not a length.' });
  }
  return {
    // Called, not copied: a body's methods are its own.
    bytes: () => body.bytes(),
    trailers: () => body.trailers(),
    release: () => body.release?.(),
    chunks: signChunks(body.chunks, {
      scope,
      sign: (text) => keyring.sign(scope, text),
      seed,
      hasTrailer,
      decodedLength: announced === undefined ? undefined : Number(announced),
      budget: buffers,
    }),
  };
};

/** How an operator writes where a credential goes in a request. What each placement may say is core/placement.ts. */
import * as z from 'zod';
import type { Placement } from '../../core/grant.ts';
import { sameNameKey, tokenPattern, withoutHopByHop, writableValue } from '../../core/headers.ts';
import {
  aroundMark,
  awsAlgorithms,
  bodyFieldDepthMax,
  credentialMark,
  hmacAlgorithms,
  hmacEncodings,
  hmacMessageProblem,
  hmacProblem,
  hmacTemplateProblem,
  isAwsRegion,
  isAwsService,
  isFormFieldName,
  jsonPointer,
  pathSegmentMax,
  segmentTemplate,
} from '../../core/placement.ts';
import { integer, keys, oneOf, Refusal, scalar, variant } from '../grammar.ts';

/** What says where a message ends, what is in it, or who it is for; hop-by-hop fields besides. */
const ownedFields = new Set(['host', 'content-length', 'content-type', 'content-encoding', 'expect', 'date', 'via', 'forwarded']);

const fieldName = scalar({ what: 'the name of a header field', write: 'a token such as X-Api-Key' }, (text) => {
  if (!tokenPattern.test(text) || text.length > 64) return undefined;
  const key = sameNameKey(text);
  const isOwned = ownedFields.has(key) || withoutHopByHop([[key, '']]).length === 0;
  return isOwned
    ? new Refusal(
        'is a field that frames or routes the message, and no credential may go there, write a field of its own, such as X-Api-Key',
      )
    : text;
});

const template = scalar(
  { what: 'a template', write: `text in quotes with ${credentialMark} in it, such as "Token ${credentialMark}"` },
  (text) => {
    if (aroundMark(text, credentialMark) === undefined)
      return new Refusal(`must have ${credentialMark} exactly once, write for example "Token ${credentialMark}"`);
    return writableValue(text) && text.length <= 256
      ? text
      : new Refusal('cannot be the value of a header field, write one line of ASCII without spaces at its ends');
  },
);

const username = scalar({ what: 'a user name', write: 'one line of ASCII without ":"' }, (text) =>
  /^[\x20-\x39\x3b-\x7e]{0,256}$/.test(text) ? text : undefined,
);

const queryName = scalar({ what: 'the name of a query parameter', write: 'letters, digits and . _ ~ -, such as api_key' }, (text) =>
  /^[A-Za-z0-9._~-]{1,64}$/.test(text) ? text : undefined,
);

/** cookie-name of RFC 6265 section 4.1.1. */
const cookieName = scalar({ what: 'the name of a cookie', write: 'a token such as session' }, (text) =>
  tokenPattern.test(text) && text.length <= 64 ? text : undefined,
);

const inSegment = scalar(
  { what: 'a template', write: `text in quotes with ${credentialMark} in it, such as "bot${credentialMark}"` },
  (text) => {
    if (aroundMark(text, credentialMark) === undefined)
      return new Refusal(`must have ${credentialMark} exactly once, write for example "bot${credentialMark}"`);
    return segmentTemplate(text) === undefined
      ? new Refusal("cannot stand in one segment of a path, write letters, digits and any of - . _ ~ : @ ! $ & ' ( ) * + , = around it")
      : text;
  },
);

const pointer = scalar({ what: 'a JSON pointer', write: '"/" and the name of the member, such as /auth/token' }, (text) => {
  if (text === '' || text === '/') return new Refusal('points to no member by name, write for example /auth/token');
  if (text.split('/').length - 1 > bodyFieldDepthMax) return new Refusal(`is too deep, write at most ${bodyFieldDepthMax} names`);
  if (/~(?![01])/.test(text)) return new Refusal('has a "~" that is not "~0" or "~1" (RFC 6901), write "~0" for "~" and "~1" for "/"');
  return /^[\x20-\x7e]+$/.test(text) && jsonPointer(text) !== undefined ? text : undefined;
});

const formField = scalar({ what: 'the name of a form field', write: 'one line of ASCII without spaces, such as client_secret' }, (text) =>
  isFormFieldName(text) ? text : undefined,
);

const bodyField = variant(
  'format',
  ['json', 'form'],
  [
    keys({ kind: z.literal('body_field'), format: z.literal('json'), field: pointer }, ''),
    keys({ kind: z.literal('body_field'), format: z.literal('form'), field: formField }, ''),
  ],
);

const message = scalar({ what: 'a message to sign', write: 'text in quotes, such as "{timestamp}.{body}"' }, (text) => {
  const problem = hmacMessageProblem(text);
  return problem === undefined ? text : new Refusal(problem);
});

const signatureTemplate = scalar(
  { what: 'a template', write: 'text in quotes with {signature} in it, such as "t={timestamp},v1={signature}"' },
  (text) => {
    const problem = hmacTemplateProblem(text);
    return problem === undefined ? text : new Refusal(problem);
  },
);

const hmac = keys(
  {
    kind: z.literal('hmac'),
    algorithm: oneOf(hmacAlgorithms, { isGuessed: false }).default('sha256'),
    message,
    encoding: oneOf(hmacEncodings).default('hex'),
    name: fieldName,
    template: signatureTemplate.default('{signature}'),
    timestampName: fieldName.optional(),
    nonceName: fieldName.optional(),
  },
  '',
).transform(({ timestampName = '', nonceName = '', ...written }, context) => {
  const whole = { ...written, timestampName, nonceName };
  const problem = context.issues.length === 0 ? hmacProblem(whole) : undefined;
  if (problem !== undefined) context.addIssue({ code: 'custom', message: problem });
  return whole;
});

const service = scalar({ what: 'a service', write: 'its signing name, such as s3 or execute-api' }, (text) =>
  text !== '' && isAwsService(text) ? text : undefined,
);
const region = scalar({ what: 'a region', write: 'for example eu-west-1; for sigv4a also "*", or several with commas' }, (text) =>
  text !== '' && isAwsRegion(text, 'sigv4a') ? text : undefined,
);

const awsSigV4 = keys(
  {
    kind: z.literal('aws_sigv4'),
    algorithm: oneOf(awsAlgorithms, { isGuessed: false }).default('sigv4'),
    service: service.optional(),
    region: region.optional(),
  },
  '',
).transform(({ service = '', region = '', ...written }, context) => {
  if (!isAwsRegion(region, written.algorithm))
    context.addIssue({
      code: 'custom',
      path: ['region'],
      message: 'is a set of regions, which sigv4 has not, write one, or algorithm: sigv4a',
    });
  return { ...written, service, region };
});

const kinds = [
  'bearer',
  'basic',
  'header',
  'query',
  'cookie',
  'path_segment',
  'body_field',
  'hmac',
  'aws_sigv4',
  'dpop',
  'client_certificate',
] as const satisfies readonly Placement['kind'][];

export const placement = variant('kind', kinds, [
  keys({ kind: z.literal('bearer') }, ''),
  keys({ kind: z.literal('basic'), username }, ''),
  keys({ kind: z.literal('header'), name: fieldName, template: template.default(credentialMark) }, ''),
  keys({ kind: z.literal('query'), name: queryName }, ''),
  keys({ kind: z.literal('cookie'), name: cookieName }, ''),
  keys({ kind: z.literal('path_segment'), segment: integer(1, pathSegmentMax), template: inSegment.default(credentialMark) }, ''),
  bodyField,
  hmac,
  awsSigV4,
  keys({ kind: z.literal('dpop') }, ''),
  keys({ kind: z.literal('client_certificate') }, ''),
]).transform((written): Placement => written);

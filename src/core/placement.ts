/** What each placement may say: shared by the configuration and the wire, so that neither takes what the other refuses. Pure. */
import type { AwsPlacement, HmacPlacement } from './grant.ts';
import { sameNameKey, tokenPattern, writableValue } from './headers.ts';

export const credentialMark = '{credential}';

/** The text before and after the one `mark`, or undefined. */
export const aroundMark = (template: string, mark: string): readonly [before: string, after: string] | undefined => {
  const [before, after, ...more] = template.split(mark);
  return before !== undefined && after !== undefined && more.length === 0 ? [before, after] : undefined;
};

/** Deepest and longest that anyone has asked for, with room: bounds what a scan of the path or of the document costs. */
export const pathSegmentMax = 32;
export const bodyFieldDepthMax = 16;
const bodyFieldCharsMax = 256;

/** pchar (RFC 3986 section 3.3) without ";" and without percent-encoding: what stands in a path in one spelling only. */
const literalSegment = /^[A-Za-z0-9\-._~!$&'()*+,=:@]{0,64}$/;

/** The literals around the credential in a path segment, or undefined for a template that is none. */
export const segmentTemplate = (template: string): readonly [before: string, after: string] | undefined => {
  const around = aroundMark(template, credentialMark);
  return around?.every((literal) => literalSegment.test(literal)) ? around : undefined;
};

/** Reference tokens of a JSON pointer to a member (RFC 6901), or undefined; "" points to the whole document and is none. */
export const jsonPointer = (text: string): readonly string[] | undefined => {
  if (!text.startsWith('/') || text.length > bodyFieldCharsMax || /~(?![01])/.test(text)) return undefined;
  const tokens = text.slice(1).split('/');
  return tokens.length > bodyFieldDepthMax ? undefined : tokens.map((token) => token.replaceAll('~1', '/').replaceAll('~0', '~'));
};

export const isFormFieldName = (text: string): boolean => text.length <= bodyFieldCharsMax && /^[\x21-\x7e]+$/.test(text);

// Signatures --------------------------------------------------------------------------------------------------------

export const hmacAlgorithms = ['sha256', 'sha512'] as const satisfies readonly HmacPlacement['algorithm'][];
export const hmacEncodings = ['hex', 'base64'] as const satisfies readonly HmacPlacement['encoding'][];
const hmacParts = ['method', 'host', 'path', 'query', 'timestamp', 'nonce', 'body', 'body_sha256'] as const;
export type HmacPart = (typeof hmacParts)[number];

/** Every `{word}`, the ones that mean nothing too: a slip of the pen must not be signed as it stands. */
export const marksIn = (text: string): string[] => [...text.matchAll(/\{([a-z0-9_]+)\}/gi)].map(([, name]) => name as string);

/** ASCII with line breaks: canonical strings have them. */
const messagePattern = /^[\x20-\x7e\r\n\t]{1,1024}$/;

/** What is wrong with the message to sign, or undefined: a sentence without its subject. */
export const hmacMessageProblem = (message: string): string | undefined => {
  if (!messagePattern.test(message)) return 'must be ASCII of at most 1,024 characters, write for example "{timestamp}.{body}"';
  const marks = marksIn(message);
  if (marks.some((mark) => !(hmacParts as readonly string[]).includes(mark)))
    return `has a part in braces that is not known, write any of ${hmacParts.map((part) => `{${part}}`).join(' ')}`;
  return marks.length > 0 ? undefined : 'signs nothing of the request, write for example "{timestamp}.{body}"';
};

export const hmacTemplateProblem = (template: string): string | undefined => {
  if (aroundMark(template, '{signature}') === undefined)
    return 'must have {signature} exactly once, write for example "t={timestamp},v1={signature}"';
  if (marksIn(template).some((mark) => mark !== 'signature' && mark !== 'timestamp' && mark !== 'nonce'))
    return 'has a part in braces that is not known, write any of {signature} {timestamp} {nonce}';
  return writableValue(template) && template.length <= 256
    ? undefined
    : 'cannot be the value of a header field, write one line of ASCII without spaces at its ends';
};

/** The field names that it writes, and clears. */
export const hmacFields = ({ name, timestampName, nonceName }: Pick<HmacPlacement, 'name' | 'timestampName' | 'nonceName'>): string[] =>
  [name, timestampName, nonceName].filter((field) => field !== '');

/** How the parts do not fit together, or undefined. */
export const hmacProblem = (placement: Omit<HmacPlacement, 'kind'>): string | undefined => {
  const { message, template, timestampName, nonceName } = placement;
  const fields = hmacFields(placement).map(sameNameKey);
  if (new Set(fields).size < fields.length) return 'writes two things into one field, write different names';
  const signed = marksIn(message);
  const sent = marksIn(template);
  if (signed.includes('timestamp') && timestampName === '' && !sent.includes('timestamp'))
    return 'signs a timestamp and does not send it, write timestampName, or {timestamp} in the template';
  return signed.includes('nonce') && nonceName === '' && !sent.includes('nonce')
    ? 'signs a nonce and does not send it, write nonceName, or {nonce} in the template'
    : undefined;
};

export const isHmacPlacement = (placement: HmacPlacement): boolean =>
  hmacFields(placement).every((field) => tokenPattern.test(field)) &&
  placement.name !== '' &&
  hmacMessageProblem(placement.message) === undefined &&
  hmacTemplateProblem(placement.template) === undefined &&
  hmacProblem(placement) === undefined;

export const awsAlgorithms = ['sigv4', 'sigv4a'] as const satisfies readonly AwsPlacement['algorithm'][];

/** A signing name such as `s3` or `execute-api`; '' for the one that the host says. */
export const isAwsService = (text: string): boolean => /^[a-z0-9-]{0,64}$/.test(text);

/** A region; for sigv4a a region set: several with commas, "*" for any; '' for the one that the host says. */
export const isAwsRegion = (text: string, algorithm: AwsPlacement['algorithm']): boolean =>
  text.length <= 256 && (algorithm === 'sigv4a' ? /^(?:[a-z0-9*-]+(?:,[a-z0-9*-]+)*)?$/ : /^[a-z0-9-]{0,64}$/).test(text);

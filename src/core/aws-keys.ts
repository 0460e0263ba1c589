/**
 * AWS access keys as a credential's text: JSON in the words of the SDKs' process credentials
 * (https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html).
 */
export interface AwsKeys {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** '' for long-lived keys. */
  readonly sessionToken: string;
  /** Wall clock; undefined where nothing says. */
  readonly expiresAtMs: number | undefined;
}

const idPattern = /^[\w]{16,128}$/;
const textPattern = /^[\x21-\x7e]+$/;

/** The keys, or undefined for anything else; never says what stands there. */
export const readAwsKeys = (text: string): AwsKeys | undefined => {
  const read = parsed(text);
  if (typeof read !== 'object' || read === null) return undefined;
  const {
    AccessKeyId: accessKeyId,
    SecretAccessKey: secretAccessKey,
    SessionToken: sessionToken = '',
    Expiration,
  } = read as Readonly<Record<string, unknown>>;
  if (typeof accessKeyId !== 'string' || !idPattern.test(accessKeyId)) return undefined;
  if (typeof secretAccessKey !== 'string' || !textPattern.test(secretAccessKey)) return undefined;
  if (typeof sessionToken !== 'string' || (sessionToken !== '' && !textPattern.test(sessionToken))) return undefined;
  const expiresAtMs = Expiration === undefined ? undefined : typeof Expiration === 'string' ? Date.parse(Expiration) : Number.NaN;
  if (Number.isNaN(expiresAtMs)) return undefined;
  return { accessKeyId, secretAccessKey, sessionToken, expiresAtMs };
};

export const awsKeysText = ({ accessKeyId, secretAccessKey, sessionToken }: AwsKeys): string =>
  JSON.stringify({
    Version: 1,
    AccessKeyId: accessKeyId,
    SecretAccessKey: secretAccessKey,
    ...(sessionToken === '' ? {} : { SessionToken: sessionToken }),
  });

const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
};

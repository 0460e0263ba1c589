/** An access token and the key that it is bound to (RFC 9449), as a credential's text: JSON. */
export interface BoundToken {
  readonly accessToken: string;
  /** PKCS #8, PEM: P-256. */
  readonly privateKeyPem: string;
}

/** b64token of RFC 6750 section 2.1. */
const tokenPattern = /^[\w\-.~+/]+=*$/;

/** The token, or undefined for anything else; never says what stands there. That the key is one is for its user to find. */
export const readBoundToken = (text: string): BoundToken | undefined => {
  try {
    const read = JSON.parse(text) as Readonly<Record<string, unknown>> | null;
    const { access_token: accessToken, private_key: privateKeyPem } = read ?? {};
    if (typeof accessToken !== 'string' || !tokenPattern.test(accessToken)) return undefined;
    return typeof privateKeyPem === 'string' && privateKeyPem !== '' ? { accessToken, privateKeyPem } : undefined;
  } catch {
    return undefined;
  }
};

export const boundTokenText = ({ accessToken, privateKeyPem }: BoundToken): string =>
  JSON.stringify({ access_token: accessToken, private_key: privateKeyPem });

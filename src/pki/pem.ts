/** Certificates between PEM and DER (RFC 7468). */

/** At most 64 characters a line, a newline at the end. */
export const pemOf = (der: Buffer): string =>
  `-----BEGIN CERTIFICATE-----\n${(der.toString('base64').match(/.{1,64}/g) ?? []).join('\n')}\n-----END CERTIFICATE-----\n`;

const block = /-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END CERTIFICATE-----/g;

/** Every CERTIFICATE block, in order; other text and blocks are passed over. Empty when there is none. */
export const dersOf = (pem: string): Buffer[] => [...pem.matchAll(block)].map(([, base64 = '']) => Buffer.from(base64, 'base64'));

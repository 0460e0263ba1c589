/** SPIFFE IDs, as far as we make and read them (SPIFFE-ID specification, sections 2.1 to 2.3). */
const trustDomainPattern = /^[a-z0-9._-]{1,255}$/;
const segmentPattern = /^[a-zA-Z0-9._-]+$/;

export type SpiffeId = `spiffe://${string}`;

export const isTrustDomain = (value: string): boolean => trustDomainPattern.test(value);

/** Reads an ID; undefined when it does not follow the grammar. At most 2048 bytes, no empty or dot segments. */
export const parseSpiffeId = (value: string): { trustDomain: string; path: string } | undefined => {
  const match = /^spiffe:\/\/([^/]*)((?:\/[^/]+)*)$/.exec(value);
  if (!match || value.length > 2048) return undefined;
  const [, trustDomain = '', path = ''] = match;
  if (!isTrustDomain(trustDomain)) return undefined;
  const segments = path.split('/').slice(1);
  if (segments.some((s) => !segmentPattern.test(s) || s === '.' || s === '..')) return undefined;
  return { trustDomain, path };
};

/** `spiffe://<trust domain>/<segments>`; throws on a segment that the grammar does not allow. */
export const spiffeId = (trustDomain: string, ...segments: string[]): SpiffeId => {
  const id = `spiffe://${[trustDomain, ...segments].join('/')}` as const;
  if (!parseSpiffeId(id)) throw new TypeError(`not a SPIFFE ID: ${JSON.stringify(id)}`);
  return id;
};

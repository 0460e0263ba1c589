/** Small texts that several parts of a configuration share: names, paths, identifiers, instants. */
import { isDnsSubdomain } from '../core/object-name.ts';
import { isTrustDomain, parseSpiffeId } from '../core/spiffe-id.ts';
import { Refusal, scalar } from './grammar.ts';

/** Names of attestors, workloads, providers, targets, policies and rules: they become metric labels and are shown everywhere. */
export const namePattern = /^[a-z0-9][a-z0-9-]{0,62}$/;

export const name = scalar({ what: 'a name', write: 'one of at most 63 lower-case letters, digits and "-", such as orders-api' }, (text) =>
  namePattern.test(text) ? text : undefined,
);

/** What Kubernetes lets most objects be called (RFC 1123): Secrets, ConfigMaps, service accounts; namespaces have no dots. */
export const objectName = ({ what, write }: { what: string; write: string }) =>
  scalar({ what, write }, (text) => (isDnsSubdomain(text) ? text : undefined));

/** One line of visible ASCII and inner spaces. */
export const printable = ({ what, write, max = 1_024 }: { what: string; write: string; max?: number }) =>
  scalar({ what, write }, (text) =>
    text !== '' && text.length <= max && /^[\x20-\x7e]+$/.test(text) && text.trim() === text ? text : undefined,
  );

/**
 * A path has a "/": so a secret that was pasted where its file belongs is refused here rather than looked for, and shown, later.
 */
export const filePath = (example: string) =>
  scalar({ what: 'a path', write: `a path with a "/", such as ${example}` }, (text) => {
    if (text.startsWith('~')) return new Refusal(`begins with "~", which is not expanded, write the whole path, such as ${example}`);
    return text.includes('/') && text.length <= 1_024 && /^[^\x00-\x1f\x7f]+$/.test(text) && text.trim() === text ? text : undefined;
  });

export const environmentName = scalar(
  { what: 'the name of an environment variable', write: 'its name in capitals, such as ORDERS_CLIENT_SECRET' },
  (text) => (/^[A-Z_][A-Z0-9_]{0,127}$/.test(text) ? text : undefined),
);

export const trustDomain = scalar({ what: 'a trust domain', write: 'a lower-case name such as outrider.test' }, (text) =>
  isTrustDomain(text) ? text : undefined,
);

export const spiffeIdText = scalar({ what: 'a SPIFFE ID', write: 'for example spiffe://outrider.test/ns/orders/sa/api' }, (text) => {
  const id = parseSpiffeId(text);
  if (id?.path === '')
    return new Refusal('names a whole trust domain, write the path of one workload too, such as spiffe://outrider.test/ns/orders/sa/api');
  return id === undefined ? undefined : text;
});

/** A date means its first instant in UTC. Yields ms since the epoch. */
export const instant = scalar({ what: 'a date', write: '2027-01-31 (its first instant, UTC) or 2027-01-31T18:00:00Z' }, (text) => {
  const match = /^(\d{4}-\d{2}-\d{2})(?:T\d{2}:\d{2}:\d{2}(?:Z|[+-]\d{2}:\d{2}))?$/.exec(text);
  const day = match && new Date(`${match[1]}T00:00:00Z`);
  // Date rolls 31 February over to March: a day that does not come back as it was written is none.
  if (!day || Number.isNaN(day.getTime()) || day.toISOString().slice(0, 10) !== match[1]) return undefined;
  const ms = Date.parse(text);
  return Number.isNaN(ms) ? undefined : ms;
});

/**
 * What becomes of a request by its names alone, as the listener and the pipeline judge it, without sockets: admission, route and
 * authorization joined as they are in production. For tables too long for connections; authority-sockets.test.ts shows that this is it.
 */
import { hostPort } from '../../../src/core/destination.ts';
import { asFault } from '../../../src/core/fault.ts';
import type { HeaderList } from '../../../src/core/headers.ts';
import type { Scheme } from '../../../src/core/destination.ts';
import { authorize } from '../../../src/proxy/authorize.ts';
import type { Accepted, AuthorityClaims, Granted } from '../../../src/proxy/exchange.ts';
import { admit, admitH2, readRequestTarget } from '../../../src/proxy/listener/admit.ts';
import { type ConnectionClaims, hostClaim } from '../../../src/proxy/listener/connection.ts';
import { route, type RoutingTable } from '../../../src/proxy/route.ts';
import { allowAll, grantOf } from '../../support/path.ts';

export interface Names {
  /** What the connection is for: CONNECT, a reverse route's destination, the name in a steered connection's first bytes. */
  readonly connect: string | undefined;
  readonly sni: string | undefined;
  /** HTTP/1.1: the authority of an absolute request target. HTTP/2: a Host field beside `:authority`. */
  readonly absolute: string | undefined;
  /** Host, or `:authority`. */
  readonly host: string | undefined;
}

export interface Judged {
  /** Where a credential went, where it passed without one, or why it was refused. */
  readonly kind: 'credential' | 'pass' | 'refused';
  readonly what: string;
}

export interface JudgeOptions {
  readonly table: RoutingTable;
  readonly scheme?: Scheme;
  readonly protocol: 'h1' | 'h2';
  readonly ownAuthorities?: readonly string[];
  /** Targets whose grant denies everything. */
  readonly denied?: readonly string[];
}

const base = (scheme: Scheme, claims: AuthorityClaims, rawTarget: string): Accepted => ({
  id: 'r',
  acceptedAtMs: 0,
  acceptedAtMonotonic: 0,
  traceId: '',
  protocol: 'http/1.1',
  scheme,
  method: 'GET',
  rawTarget,
  claims,
  headers: [],
  body: undefined,
  upgrade: undefined,
  expectsContinue: false,
  originalAddress: undefined,
  sink: undefined as never,
});

const acceptedH1 = ({ absolute, host }: Names, scheme: Scheme, claims: ConnectionClaims | undefined): Accepted => {
  const target = absolute === undefined ? '/x' : `${scheme}://${absolute}/x`;
  const headers: HeaderList = host === undefined ? [] : [['Host', host]];
  const admitted = admit({ method: 'GET', target, httpVersion: '1.1', headers });
  const read = readRequestTarget(target, claims?.scheme);
  return base(
    read.scheme,
    { connect: claims?.connect, sni: claims?.sni, absolute: read.absolute, host: hostClaim(admitted.host, claims) },
    read.rawTarget,
  );
};

const acceptedH2 = ({ absolute, host }: Names, scheme: Scheme, claims: ConnectionClaims | undefined): Accepted => {
  const admitted = admitH2([
    [':method', 'GET'],
    [':scheme', scheme],
    [':path', '/x'],
    ...(host === undefined ? [] : [[':authority', host] as const]),
    ...(absolute === undefined ? [] : [['host', absolute] as const]),
  ]);
  const { rawTarget } = readRequestTarget(admitted.path, claims?.scheme ?? scheme);
  return base(
    scheme,
    { connect: claims?.connect, sni: claims?.sni, absolute: undefined, host: hostClaim(admitted.authority, claims) },
    rawTarget,
  );
};

export const judge = (names: Names, { table, scheme = 'https', protocol, ownAuthorities = [], denied = [] }: JudgeOptions): Judged => {
  try {
    const isOnItsOwn = names.connect === undefined && names.sni === undefined;
    const claims = isOnItsOwn ? undefined : { connect: names.connect, sni: names.sni, scheme, ownAuthorities, originalAddress: undefined };
    const accepted = (protocol === 'h1' ? acceptedH1 : acceptedH2)(names, scheme, claims);
    const routed = route(accepted, table, { onUnmatched: 'tunnel' });
    const where = hostPort(routed.destination);
    if (routed.route.kind === 'pass') return { kind: 'pass', what: where };
    const { target } = routed.route;
    const rules = denied.includes(target.name) ? [{ ...allowAll, effect: 'deny' as const }] : [allowAll];
    authorize({ ...routed, identity: { spiffeId: 'w', attestationId: 'a' }, grant: grantOf(target, { rules }) } as Granted);
    return { kind: 'credential', what: where };
  } catch (thrown) {
    const fault = asFault(thrown);
    return { kind: 'refused', what: fault.code };
  }
};

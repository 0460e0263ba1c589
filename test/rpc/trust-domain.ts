/** A trust domain made at run time: its authority, SVIDs for anybody, and a broker and a collector that serve under them. */
import type { KeyObject } from 'node:crypto';
import type { Test } from 'tap';
import type { AccessEvent } from '../../src/core/access-event.ts';
import { Secret } from '../../src/core/secret.ts';
import type { Grant } from '../../src/core/grant.ts';
import { type SpiffeId, spiffeId } from '../../src/core/spiffe-id.ts';
import type { TargetSnapshot } from '../../src/core/target.ts';
import { systemClock } from '../../src/ops/clock.ts';
import { createLog, type Log } from '../../src/ops/log.ts';
import { type Authority, createAuthority } from '../../src/pki/authority.ts';
import { readCertificateRequest } from '../../src/pki/certificate-request.ts';
import { createKeyPair, type KeyPair } from '../../src/pki/key.ts';
import { issueSvid } from '../../src/pki/svid.ts';
import {
  type BrokerHandlers,
  type BrokerServerOptions,
  type EventsServerOptions,
  type RpcServer,
  type ServerIdentity,
  startBrokerServer,
  startEventsServer,
} from '../../src/rpc/server.ts';
import type { Svid } from '../../src/rpc/svid.ts';
import type { Peer } from '../../src/rpc/client.ts';

export const hourMs = 3_600_000;
export const brokerId = spiffeId('outrider.test', 'broker');
export const collectorId = spiffeId('outrider.test', 'collector');
export const workloadId = spiffeId('outrider.test', 'ns', 'demo', 'sa', 'demo-app');

/** What the SVIDs here say was attested. */
export const attestedAs = '{"version":1}';

export interface Domain {
  readonly authority: Authority;
  /** `attested`: what it says was attested; undefined: nothing, as certificates of this authority that are for targets. */
  readonly svid: (o?: { id?: SpiffeId; nowMs?: number; lifetimeMs?: number; key?: KeyPair; attested?: string | undefined }) => Svid;
  /** A role's own, which nobody attested. */
  readonly identity: (o?: { id?: SpiffeId; nowMs?: number; lifetimeMs?: number; clientCaPem?: string }) => ServerIdentity;
}

export const createDomain = (name = 'outrider.test'): Domain => {
  const nowMs = Date.now();
  const authority = createAuthority({
    commonName: name,
    key: createKeyPair(),
    nowMs: nowMs - 48 * hourMs,
    lifetimeMs: 96 * hourMs,
    spiffeTrustDomain: name,
  });
  const issue = (id: SpiffeId, publicKey: KeyObject, issuedAtMs: number, lifetimeMs: number, attested?: string) =>
    issueSvid(authority, { spiffeId: id, publicKey, nowMs: issuedAtMs, lifetimeMs, ...(attested !== undefined && { attested }) });
  return {
    authority,
    svid: (options = {}) => {
      const { id = workloadId, nowMs: issuedAtMs = nowMs, lifetimeMs = hourMs, key = createKeyPair() } = options;
      const attested = 'attested' in options ? options.attested : attestedAs;
      const { pem, notAfterMs } = issue(id, key.publicKey, issuedAtMs, lifetimeMs, attested);
      return {
        spiffeId: id,
        attestationId: 'attestation-1',
        certificateChainPem: pem,
        privateKey: key.privateKey,
        trustBundlePem: authority.certificatePem,
        expiresAtMs: notAfterMs,
        issuedAtMs,
      };
    },
    identity: ({ id = brokerId, nowMs: issuedAtMs = nowMs, lifetimeMs = hourMs, clientCaPem = authority.certificatePem } = {}) => {
      const key = createKeyPair();
      return { certificateChainPem: issue(id, key.publicKey, issuedAtMs, lifetimeMs).pem, privateKey: key.privateKey, clientCaPem };
    },
  };
};

export const evidence = { kind: 'projected_token', token: new Secret('a.projected.token') } as const;

export const grantFor = (target: string, o: Partial<Grant> = {}): Grant => ({
  id: `grant-for-${target}`,
  target,
  binding: { hosts: ['echo.outrider.test'], ports: [443], cleartextAllowed: false },
  configurationVersion: 'v1',
  expiresAtMs: Date.now() + 600_000,
  lifetimeMs: 600_000,
  credentials: [
    {
      placement: { kind: 'bearer' },
      value: new Secret('the-credential'),
      providerKind: 'jwt',
      provider: 'minted',
      fingerprint: 'ab12',
      expiresAtMs: Date.now() + 600_000,
    },
  ],
  rules: [{ policy: 'demo', policyVersion: 'p1', name: 'read', effect: 'allow', methods: ['GET'], paths: ['/**'], condition: '' }],
  ...o,
});

export const snapshot = (configurationVersion = 'v1'): TargetSnapshot => ({
  configurationVersion,
  targets: [
    {
      name: 'echo',
      hosts: ['echo.outrider.test', '2001:db8::7'],
      ports: [80, 443],
      cleartextAllowed: true,
      trustBundlePem: '',
      protocol: 'auto',
      tlsVersionMin: 'TLSv1.2',
      echo: 'redact',
      paths: 'canonical',
      placeholder: '',
    },
  ],
});

/** A broker's handlers that issue under `domain`, by `now`, and grant everything. */
export const handlersOf = (domain: Domain, o: Partial<BrokerHandlers> = {}, now: () => number = Date.now): BrokerHandlers => ({
  attest: async (_, certificateRequest) => {
    const publicKey = readCertificateRequest(certificateRequest);
    const { der, notAfterMs } = issueSvid(domain.authority, {
      spiffeId: workloadId,
      publicKey,
      attested: attestedAs,
      nowMs: now(),
      lifetimeMs: hourMs,
    });
    return {
      certificateChain: [der],
      trustBundle: [domain.authority.certificateDer],
      spiffeId: workloadId,
      expiresAtMs: notAfterMs,
      attestationId: 'attestation-1',
    };
  },
  getGrant: async (_, target) => grantFor(target),
  watch: (_, send) => send.snapshot(snapshot()),
  ...o,
});

export const silent: Log = createLog({ role: 'test', level: 'silent' });
export const listen = { host: '127.0.0.1', port: 0 } as const;
export const peerOf = (server: { readonly address: { readonly port: number } }, id: SpiffeId = brokerId): Peer => ({
  address: `127.0.0.1:${server.address.port}`,
  spiffeId: id,
});

export const broker = async (t: Test, domain: Domain, o: Partial<BrokerServerOptions> = {}): Promise<RpcServer> => {
  const server = await startBrokerServer({
    listen,
    identity: domain.identity(),
    handlers: handlersOf(domain),
    log: silent,
    clock: systemClock,
    ...o,
  });
  t.teardown(() => server.close());
  return server;
};

export const collector = async (
  t: Test,
  domain: Domain,
  record: EventsServerOptions['record'],
  o: Partial<EventsServerOptions> = {},
): Promise<RpcServer> => {
  const server = await startEventsServer({
    listen,
    identity: domain.identity({ id: collectorId }),
    record,
    find: async () => ({ events: [], isComplete: true }),
    log: silent,
    clock: systemClock,
    ...o,
  });
  t.teardown(() => server.close());
  return server;
};

export const event = (sequence: number, o: Partial<AccessEvent> = {}): AccessEvent => ({
  sequence,
  kind: 'intent',
  timeMs: Date.now(),
  requestId: `request-${sequence}`,
  workload: workloadId,
  attestationId: 'attestation-1',
  target: 'echo',
  destination: 'echo.outrider.test:443',
  scheme: 'https',
  method: 'GET',
  path: '/hello',
  decision: undefined,
  grantId: 'grant-1',
  credentials: [],
  outcome: undefined,
  traceId: '',
  lostCount: 0,
  attempt: 1,
  ...o,
});

/** A trust domain made at run time: its authority, SVIDs, and a stand-in broker that attests whoever shows a token. */
import type { AddressInfo } from 'node:net';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type SpiffeId, spiffeId } from '../../src/core/spiffe-id.ts';
import { systemClock } from '../../src/ops/clock.ts';
import { createLog } from '../../src/ops/log.ts';
import { createAuthority } from '../../src/pki/authority.ts';
import { readCertificateRequest } from '../../src/pki/certificate-request.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { dersOf } from '../../src/pki/pem.ts';
import { issueSvid } from '../../src/pki/svid.ts';
import { type RpcServer, type ServerIdentity, startBrokerServer } from '../../src/rpc/server.ts';
import type { Svid } from '../../src/rpc/svid.ts';
import type { IdentitySettings } from '../../src/settings/identity.ts';

export const silent = createLog({ role: 'test', level: 'silent' });
export const collectorId = spiffeId('outrider.test', 'ns', 'outrider', 'sa', 'collector');
const brokerId = spiffeId('outrider.test', 'ns', 'outrider', 'sa', 'broker');

const hour = 3_600_000;

export const createTrustDomain = () => {
  const authority = createAuthority({
    commonName: 'test trust domain',
    key: createKeyPair(),
    nowMs: Date.now(),
    lifetimeMs: hour,
    spiffeTrustDomain: 'outrider.test',
  });
  const issue = (id: SpiffeId, publicKey = createKeyPair().publicKey, lifetimeMs = hour) =>
    issueSvid(authority, { spiffeId: id, publicKey, attested: '{"version":1}', nowMs: Date.now(), lifetimeMs });

  const svid = (id: SpiffeId): Svid => {
    const { publicKey, privateKey } = createKeyPair();
    const { pem, notAfterMs } = issue(id, publicKey);
    return {
      spiffeId: id,
      attestationId: 'attestation-1',
      certificateChainPem: pem,
      privateKey,
      trustBundlePem: authority.certificatePem,
      expiresAtMs: notAfterMs,
      issuedAtMs: Date.now(),
    };
  };

  const serverIdentity = (id: SpiffeId): ServerIdentity => {
    const { certificateChainPem, privateKey, trustBundlePem } = svid(id);
    return { certificateChainPem, privateKey, clientCaPem: trustBundlePem };
  };

  /** Attests everyone as the collector, for `svidLifetimeMs`. */
  const startBroker = (svidLifetimeMs = hour): Promise<RpcServer> =>
    startBrokerServer({
      listen: { host: '127.0.0.1', port: 0 },
      identity: serverIdentity(brokerId),
      handlers: {
        attest: async (_, request) => {
          const { der, notAfterMs } = issue(collectorId, readCertificateRequest(request), svidLifetimeMs);
          return {
            certificateChain: [der],
            trustBundle: dersOf(authority.certificatePem),
            spiffeId: collectorId,
            expiresAtMs: notAfterMs,
            attestationId: 'attestation-2',
          };
        },
        getGrant: () => Promise.reject(new Error('nobody asks for a grant here')),
        watch: () => {},
      },
      log: silent,
      clock: systemClock,
    });

  /** The files that a role finds its broker by. */
  const identitySettings = (dir: string, broker: AddressInfo): IdentitySettings => {
    writeFileSync(join(dir, 'broker-ca.pem'), authority.certificatePem);
    writeFileSync(join(dir, 'token'), 'a-projected-token');
    return {
      broker: { address: `127.0.0.1:${broker.port}`, spiffeId: brokerId },
      brokerCaFile: join(dir, 'broker-ca.pem'),
      tokenFile: join(dir, 'token'),
    };
  };
  return { svid, serverIdentity, startBroker, identitySettings };
};

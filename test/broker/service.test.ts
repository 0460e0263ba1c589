import { X509Certificate } from 'node:crypto';
import t, { type Test } from 'tap';
import { openTrustDomain } from '../../src/broker/authority.ts';
import type { Provider } from '../../src/broker/provider.ts';
import { compileRegistry, type RegistrySettings } from '../../src/broker/registry.ts';
import { createBrokerService } from '../../src/broker/service.ts';
import type { Decide, Lease, StoredAuthority } from '../../src/broker/store.ts';
import { awsKeysText } from '../../src/core/aws-keys.ts';
import { boundTokenText } from '../../src/core/bound-token.ts';
import type { Attested, Evidence } from '../../src/core/evidence.ts';
import { Fault } from '../../src/core/fault.ts';
import type { Placement } from '../../src/core/grant.ts';
import { limits } from '../../src/core/limits.ts';
import { Secret } from '../../src/core/secret.ts';
import type { TargetSnapshot } from '../../src/core/target.ts';
import { createLog } from '../../src/ops/log.ts';
import { createMetrics } from '../../src/ops/metrics.ts';
import { createCertificateRequest } from '../../src/pki/certificate-request.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { attestedOf, issueSvid, spiffeIdOf } from '../../src/pki/svid.ts';
import type { CallerIdentity } from '../../src/rpc/server.ts';
import { createFakeClock } from '../fakes/clock.ts';

const demoApp: Attested = {
  attestor: 'cluster',
  attributes: { 'kubernetes.namespace': 'demo', 'kubernetes.service_account': 'demo-app', 'kubernetes.pod': 'demo-app-1' },
  spiffeSegments: ['ns', 'demo', 'sa', 'demo-app'],
  evidenceExpiresAtMs: 0,
};
const demoId = 'spiffe://outrider.test/ns/demo/sa/demo-app';
const canary = 'canary-credential-91b2';

const evidence: Evidence = { kind: 'projected_token', token: new Secret('canary-evidence') };

const settings: RegistrySettings = {
  workloads: [{ name: 'demo', attestor: undefined, match: { 'kubernetes.namespace': 'demo' }, owner: undefined, expiresAtMs: undefined }],
  providers: [{ kind: 'static_file', name: 'one', file: 'unused', recheckMs: 1 }],
  targets: ['echo', 'denied', 'unnamed'].map((name) => ({
    name,
    hosts: [`${name}.outrider.test`],
    ports: [443],
    cleartext: 'refused',
    caFile: undefined,
    protocol: 'auto',
    tlsVersionMin: 'TLSv1.2',
    echo: 'redact',
    paths: 'canonical',
    placeholder: '',
    credentials: [{ provider: 'one', placement: { kind: 'bearer' } }],
  })),
  policies: [
    {
      name: 'demo-policy',
      rules: [
        { name: 'use-echo', effect: 'allow', workloads: ['demo'], targets: ['echo'], methods: ['GET'], paths: [] },
        { name: 'not-admin', effect: 'deny', workloads: [], targets: ['echo'], methods: [], paths: ['/admin/**'] },
        { name: 'never', effect: 'deny', workloads: [], targets: ['denied'], methods: [], paths: [] },
      ],
    },
  ],
};

const changed = (more: Partial<RegistrySettings>): RegistrySettings => ({ ...settings, ...more });
const withoutPolicy = changed({ policies: [] });

const rig = async (t: Test) => {
  const clock = createFakeClock(Math.floor(Date.now() / 1000) * 1000);
  const lines: string[] = [];
  const log = createLog({ role: 'broker', level: 'debug', write: (line) => void lines.push(line) });
  const metrics = createMetrics('broker');
  const leases: Lease[] = [];
  let authorities: readonly StoredAuthority[] = [];
  const authorityStore = {
    name: 'memory',
    changeAuthorities: async (decide: Decide<StoredAuthority>) => (authorities = (await decide(authorities)) ?? authorities),
  };
  const store = {
    saveLease: async (lease: Lease): Promise<void> => {
      leases.push(lease);
    },
  };
  const trustDomain = await openTrustDomain({ name: 'outrider.test', store: authorityStore, clock, log });
  const asked: object[] = [];
  let attested: () => Promise<Attested> = async () => demoApp;
  let obtain: Provider['obtain'] = async () => ({ value: new Secret(canary), expiresAtMs: clock.now() + 600_000 });
  const providers = new Map<string, Provider>(
    ['one', 'two'].map((name) => [
      name,
      {
        kind: 'static_file',
        name,
        version: '',
        obtain: (options) => {
          asked.push({ name, ...options });
          return obtain(options);
        },
      },
    ]),
  );
  const configuration = (from: RegistrySettings, attestors = ['cluster']) => ({
    attestation: { attest: () => attested() },
    attestors: new Set(attestors),
    registry: compileRegistry(from, new Map()),
    providers,
    svidLifetimeMs: 3_600_000,
  });
  const make = (of = trustDomain) => createBrokerService(configuration(settings), { trustDomain: of, store, metrics, clock, log });
  const service = make();
  t.teardown(service.close);

  const attest = async (by = service): Promise<CallerIdentity & { attestationId: string }> => {
    const { certificateChain, attestationId } = await by.attest(evidence, createCertificateRequest(createKeyPair()));
    const certificate = new X509Certificate(certificateChain[0] as Buffer);
    return {
      spiffeId: spiffeIdOf(certificate.raw) as string,
      attested: attestedOf(certificate.raw) as string,
      certificateExpiresAtMs: certificate.validToDate.getTime(),
      attestationId,
    };
  };
  const watch = (caller: CallerIdentity, by = service) => {
    const snapshots: TargetSnapshot[] = [];
    const ending = new AbortController();
    by.watch(caller, { snapshot: (s) => void snapshots.push(s), revocation: () => t.fail('nothing is revoked') }, ending.signal);
    return { snapshots, names: () => snapshots.map(({ targets }) => targets.map(({ name }) => name)), end: () => ending.abort() };
  };
  return {
    clock,
    lines,
    metrics,
    leases,
    store,
    trustDomain,
    asked,
    service,
    make,
    attest,
    watch,
    apply: (from: RegistrySettings, attestors?: string[]) => service.apply(configuration(from, attestors)),
    openAnotherTrustDomain: () =>
      openTrustDomain({
        name: 'outrider.test',
        store: { name: 'another', changeAuthorities: async (decide) => (await decide([])) ?? [] },
        clock,
        log,
      }),
    setAttested: (next: () => Promise<Attested>) => {
      attested = next;
    },
    setObtain: (next: Provider['obtain']) => {
      obtain = next;
    },
  };
};

// Attest ------------------------------------------------------------------------------------------------------------

await t.test('a verified workload that is known gets an SVID for its key, and the bundle to verify others by', async (t) => {
  const { service, trustDomain, clock, metrics } = await rig(t);
  const key = createKeyPair();
  const answer = await service.attest(evidence, createCertificateRequest(key));
  const certificate = new X509Certificate(answer.certificateChain[0] as Buffer);
  t.equal(answer.spiffeId, demoId);
  t.equal(spiffeIdOf(certificate.raw), demoId);
  t.ok(certificate.publicKey.equals(key.publicKey));
  t.ok(certificate.verify(trustDomain.authority().key.publicKey));
  t.strictSame(answer.trustBundle, [trustDomain.authority().certificateDer]);
  t.equal(answer.expiresAtMs, clock.now() + 3_600_000, 'as long as is configured, whatever remains of the evidence');
  t.match(await metrics.expose(), 'outrider_broker_attestations_total{attestor="cluster",result="ok"} 1');
});

await t.test('a genuine workload that nobody registered gets nothing, and is told only its own two names', async (t) => {
  const { service, setAttested, lines, metrics } = await rig(t);
  setAttested(async () => ({ ...demoApp, attributes: { ...demoApp.attributes, 'kubernetes.namespace': 'other' } }));
  await t.rejects(service.attest(evidence, createCertificateRequest(createKeyPair())), {
    code: 'workload_unknown',
    detail: 'Nothing matches namespace other, service account demo-app.',
  });
  t.match(lines.join(''), /"kubernetes.pod":"demo-app-1"/, 'the log has what was attested');
  t.match(await metrics.expose(), 'outrider_broker_attestations_total{attestor="cluster",result="workload_unknown"} 1');
});

await t.test('evidence that does not verify, and a certificate request that does not, end the attestation', async (t) => {
  const { service, setAttested } = await rig(t);
  await t.rejects(service.attest(evidence, Buffer.from('no request')), { code: 'certificate_request_invalid' });
  setAttested(() => Promise.reject(new Fault('evidence_expired')));
  await t.rejects(service.attest(evidence, createCertificateRequest(createKeyPair())), { code: 'evidence_expired' });
});

await t.test('no evidence can name anyone in the place of the broker', async (t) => {
  const { service, setAttested } = await rig(t);
  setAttested(async () => ({ ...demoApp, spiffeSegments: ['outrider', 'broker'] }));
  await t.rejects(service.attest(evidence, createCertificateRequest(createKeyPair())), { code: 'internal' });
});

// GetGrant ----------------------------------------------------------------------------------------------------------

await t.test('a grant has the credential, its rules with denials first, where it may go, and a lease', async (t) => {
  const { service, attest, clock, leases, asked, metrics } = await rig(t);
  const caller = await attest();
  const grant = await service.getGrant(caller, 'echo', 'whatever');
  t.match(grant, {
    id: /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    target: 'echo',
    binding: { hosts: ['echo.outrider.test'], ports: [443], cleartextAllowed: false },
    expiresAtMs: clock.now() + 600_000,
    lifetimeMs: 600_000,
    credentials: [{ placement: { kind: 'bearer' }, providerKind: 'static_file', provider: 'one', fingerprint: /^[0-9a-f]{32}$/ }],
  });
  t.strictSame(
    grant.rules.map(({ name }) => name),
    ['not-admin', 'use-echo'],
  );
  t.equal(grant.credentials[0]?.value.reveal(), canary);
  t.strictSame(asked, [{ name: 'one', workload: demoId, target: 'echo', form: 'text' }]);
  t.match(leases, [
    { grantId: grant.id, workload: demoId, target: 'echo', policy: 'demo-policy', rule: 'use-echo', expiresAtMs: grant.expiresAtMs },
  ]);
  t.match(await metrics.expose(), 'outrider_broker_grants_total{target="echo",result="ok"} 1');
});

await t.test('equal credentials have equal fingerprints at all brokers of a trust domain, and others at those of another', async (t) => {
  const { service, attest, make, openAnotherTrustDomain } = await rig(t);
  const fingerprint = async (by = service): Promise<string | undefined> =>
    (await by.getGrant(await attest(by), 'echo', '')).credentials[0]?.fingerprint;
  t.equal(await fingerprint(), await fingerprint());
  t.equal(await fingerprint(), await fingerprint(make()), 'a proxy that asks another one sees that the credential is the same');
  t.not(await fingerprint(), await fingerprint(make(await openAnotherTrustDomain())));
});

await t.test('a denied target is refused with the decision, and no provider is asked', async (t) => {
  const { service, attest, asked, metrics } = await rig(t);
  const caller = await attest();
  await t.rejects(service.getGrant(caller, 'denied', ''), {
    code: 'policy_denied',
    decision: { verdict: 'deny', policy: 'demo-policy', rule: 'never' },
  });
  await t.rejects(service.getGrant(caller, 'unnamed', ''), { code: 'policy_denied', decision: { verdict: 'deny', policy: '', rule: '' } });
  t.strictSame(asked, []);
  t.match(await metrics.expose(), 'outrider_broker_grants_total{target="denied",result="policy_denied"} 1');
});

await t.test('an unknown target is unknown, and its name does not become a label', async (t) => {
  const { service, attest, metrics } = await rig(t);
  await t.rejects(service.getGrant(await attest(), 'made-up', ''), { code: 'target_unknown' });
  const exposed = await metrics.expose();
  t.match(exposed, 'outrider_broker_grants_total{target="",result="target_unknown"} 1');
  t.notMatch(exposed, /made-up/);
});

await t.test(
  'an SVID says what was attested to any broker of the trust domain: another replica, or the same one after a restart',
  async (t) => {
    const { attest, make, clock, lines } = await rig(t);
    const caller = await attest();
    const other = make();
    t.equal((await other.getGrant(caller, 'echo', '')).target, 'echo');
    t.match(lines.at(-1), caller.attestationId, 'its log names the attestation that was made elsewhere');
    other.watch(caller, { snapshot: () => undefined, revocation: () => undefined }, new AbortController().signal);
    clock.advance(3_600_000);
    await t.rejects(other.getGrant(caller, 'echo', ''), { code: 'identity_expired' }, 'until it expires');
  },
);

await t.test('a certificate that says in no way this broker reads what was attested is no identity here', async (t) => {
  const { service, attest, trustDomain, clock } = await rig(t);
  const caller = await attest();
  const certificate = { spiffeId: demoId, publicKey: createKeyPair().publicKey, nowMs: clock.now(), lifetimeMs: 60_000 } as const;
  const saying = (attested: string) => attestedOf(issueSvid(trustDomain.authority(), { ...certificate, attested }).der) as string;
  const id = { id: 'x', attestor: 'cluster', attributes: { 'kubernetes.namespace': 'demo' } };
  for (const [name, attested] of Object.entries({
    'no JSON': saying('{'),
    'a later version': saying(JSON.stringify({ version: 2, ...id })),
    'no attributes': saying(JSON.stringify({ version: 1, ...id, attributes: undefined })),
    'attributes that are no text': saying(JSON.stringify({ version: 1, ...id, attributes: { 'kubernetes.namespace': ['demo'] } })),
    'no attestor': saying(JSON.stringify({ version: 1, ...id, attestor: null })),
  })) {
    await t.rejects(service.getGrant({ ...caller, attested }, 'echo', ''), { code: 'identity_refused' }, name);
    const none = { snapshot: () => t.fail(name), revocation: () => undefined };
    t.throws(() => service.watch({ ...caller, attested }, none, new AbortController().signal), { code: 'identity_refused' }, name);
  }
  await t.resolves(
    service.getGrant({ ...caller, attested: saying(JSON.stringify({ version: 1, ...id })) }, 'echo', ''),
    'but as written it is',
  );
});

await t.test('what an attestor verified that has left the configuration is worth nothing any more', async (t) => {
  const { service, attest, apply } = await rig(t);
  const caller = await attest();
  apply(settings, ['another']);
  await t.rejects(service.getGrant(caller, 'echo', ''), { code: 'identity_refused' });
  apply(settings);
  await t.resolves(service.getGrant(caller, 'echo', ''));
});

await t.test('when an attestor leaves the configuration those it verified are told at that moment', async (t) => {
  const { attest, watch, apply } = await rig(t);
  const { names } = watch(await attest());
  apply(settings, ['another']);
  t.strictSame(names()[1], []);
});

await t.test('more than a certificate can carry is not attested', async (t) => {
  const { service, setAttested } = await rig(t);
  const attributes = { ...demoApp.attributes, 'token.subject': 'x'.repeat(limits.attestedBytesMax) };
  setAttested(async () => ({ ...demoApp, attributes }));
  await t.rejects(service.attest(evidence, createCertificateRequest(createKeyPair())), { code: 'evidence_invalid' });
});

await t.test('a workload taken out of the configuration, or expired, gets no more grants', async (t) => {
  const { service, attest, apply, clock } = await rig(t);
  const caller = await attest();
  apply(changed({ workloads: [] }));
  await t.rejects(service.getGrant(caller, 'echo', ''), { code: 'workload_unknown' });
  const expiresAtMs = clock.now() + 60_000;
  apply(changed({ workloads: settings.workloads.map((workload) => ({ ...workload, expiresAtMs })) }));
  t.equal((await service.getGrant(caller, 'echo', '')).expiresAtMs, expiresAtMs, 'a grant ends with the workload it was made for');
  clock.advance(60_000);
  await t.rejects(service.getGrant(caller, 'echo', ''), { code: 'workload_unknown' });
});

await t.test('a grant lives as long as its shortest credential, and never longer than the bound', async (t) => {
  const { service, attest, apply, clock, setObtain, asked } = await rig(t);
  const credentials = [
    { provider: 'one', placement: { kind: 'bearer' } },
    { provider: 'two', placement: { kind: 'query', name: 'key' } },
    { provider: 'one', placement: { kind: 'header', name: 'x-key', template: '{credential}' } },
  ] as const;
  apply(
    changed({
      providers: [...settings.providers, { kind: 'static_file', name: 'two', file: 'unused', recheckMs: 1 }],
      targets: settings.targets.map((target) => ({ ...target, credentials })),
    }),
  );
  const caller = await attest();
  let lives = [90_000, 30_000];
  setObtain(async () => ({ value: new Secret(canary), expiresAtMs: clock.now() + (lives.shift() as number) }));
  const grant = await service.getGrant(caller, 'echo', '');
  t.equal(grant.lifetimeMs, 30_000);
  t.strictSame(
    grant.credentials.map(({ provider, placement }) => `${provider} ${placement.kind}`),
    ['one bearer', 'two query', 'one header'],
  );
  t.equal(asked.length, 2, 'a provider of two placements is asked once');
  lives = [86_400_000, 86_400_000];
  t.equal((await service.getGrant(caller, 'echo', '')).lifetimeMs, limits.grantLifetimeMaxMs);
});

await t.test(
  'a grant that the target refused has its providers asked anew, for the workload and the target it was made for alone',
  async (t) => {
    const { service, attest, asked, make, openAnotherTrustDomain, apply, setAttested } = await rig(t);
    const caller = await attest();
    apply(changed({ policies: settings.policies.map((policy) => ({ ...policy, rules: [{ ...policy.rules[0], targets: [] } as never] })) }));
    const refused = await service.getGrant(caller, 'echo', '');
    const ofAnotherTarget = (await service.getGrant(caller, 'unnamed', '')).id;
    const elsewhere = (await make(await openAnotherTrustDomain()).getGrant(caller, 'echo', '')).id;
    setAttested(async () => ({ ...demoApp, spiffeSegments: ['ns', 'demo', 'sa', 'neighbour'] }));
    const neighbour = await attest();
    asked.length = 0;
    await make().getGrant(caller, 'echo', '', refused.id);
    await service.getGrant(caller, 'echo', '');
    for (const id of ['', 'no-such-grant', ofAnotherTarget, elsewhere, 'x'.repeat(5_000)]) {
      const { target, credentials } = await service.getGrant(caller, 'echo', '', id);
      t.strictSame([target, credentials.length], ['echo', 1], 'an id that is none of its own changes nothing');
    }
    await service.getGrant(neighbour, 'echo', '', refused.id);
    t.strictSame(
      asked.map((one) => (one as { fresh?: boolean }).fresh ?? false),
      [true, false, false, false, false, false, false, false],
      'by any broker of the trust domain',
    );
  },
);

await t.test('credentials that sign are told apart by what identifies them, not by what stands beside it', async (t) => {
  const { service, attest, apply, setObtain } = await rig(t);
  const caller = await attest();
  const fingerprintsOf = async (placement: Placement, texts: readonly string[]): Promise<readonly (string | undefined)[]> => {
    apply(changed({ targets: settings.targets.map((target) => ({ ...target, credentials: [{ provider: 'one', placement }] })) }));
    const found: (string | undefined)[] = [];
    for (const text of texts) {
      setObtain(async () => ({ value: new Secret(text), expiresAtMs: Date.now() + 600_000 }));
      found.push((await service.getGrant(caller, 'echo', '')).credentials[0]?.fingerprint);
    }
    return found;
  };
  const keys = { accessKeyId: 'EXAMPLE_ACCESS_KEY_1', secretAccessKey: 'one', sessionToken: '', expiresAtMs: undefined };
  const aws = await fingerprintsOf({ kind: 'aws_sigv4', algorithm: 'sigv4', service: '', region: '' }, [
    awsKeysText(keys),
    awsKeysText({ ...keys, sessionToken: 'another' }),
    awsKeysText({ ...keys, secretAccessKey: 'two' }),
  ]);
  t.equal(aws[0], aws[1], 'the same keys in another session');
  t.not(aws[0], aws[2]);
  const bound = await fingerprintsOf({ kind: 'dpop' }, [
    boundTokenText({ accessToken: 'a', privateKeyPem: 'k' }),
    boundTokenText({ accessToken: 'a', privateKeyPem: 'l' }),
    boundTokenText({ accessToken: 'b', privateKeyPem: 'k' }),
  ]);
  t.equal(bound[0], bound[1], 'the same token');
  t.not(bound[0], bound[2]);
});

await t.test('a provider that fails, and a lease that cannot be kept, end the grant', async (t) => {
  const { service, attest, setObtain, store } = await rig(t);
  const caller = await attest();
  setObtain(() => Promise.reject(new Fault('credential_unavailable', { detail: 'Provider one is away.' })));
  await t.rejects(service.getGrant(caller, 'echo', ''), { code: 'credential_unavailable' });
  setObtain(async () => ({ value: new Secret(canary), expiresAtMs: Date.now() + 600_000 }));
  store.saveLease = () => Promise.reject(new Error('disk full'));
  await t.rejects(service.getGrant(caller, 'echo', ''), { code: 'broker_error' });
});

await t.test('what changes while a credential is fetched is decided again before the grant is given', async (t) => {
  const { service, attest, apply, setObtain, clock, leases } = await rig(t);
  const caller = await attest();
  const obtained = { value: new Secret(canary), expiresAtMs: clock.now() + 600_000 };
  setObtain(async () => {
    apply(withoutPolicy);
    return obtained;
  });
  await t.rejects(service.getGrant(caller, 'echo', ''), { code: 'policy_denied' }, 'a policy that went');
  t.strictSame(leases, []);

  apply(settings);
  const stricter = changed({
    policies: settings.policies.map((policy) => ({ ...policy, rules: policy.rules.map((rule) => ({ ...rule, methods: ['HEAD'] })) })),
  });
  let times = 0;
  setObtain(async () => {
    times += 1;
    apply(stricter);
    return obtained;
  });
  const grant = await service.getGrant(caller, 'echo', '');
  t.equal(times, 2, 'begun again');
  t.strictSame(
    grant.rules.map(({ methods }) => methods),
    [['HEAD'], ['HEAD']],
  );

  let flips = 0;
  setObtain(async () => {
    flips += 1;
    apply(flips % 2 === 0 ? settings : stricter);
    return obtained;
  });
  apply(settings);
  await t.rejects(service.getGrant(caller, 'echo', ''), { code: 'broker_error' }, 'but not for ever');
});

// Watch -------------------------------------------------------------------------------------------------------------

await t.test('a watcher hears its targets at once, and again only when its own view changes', async (t) => {
  const { service, attest, watch, apply } = await rig(t);
  const caller = await attest();
  const { names, snapshots, end } = watch(caller);
  t.strictSame(names(), [['echo', 'denied']], 'denied ones too: they are intercepted to be refused');
  t.equal(service.watcherCount(), 1);
  apply(structuredClone(settings));
  apply(changed({ targets: settings.targets.map((target) => (target.name === 'unnamed' ? { ...target, ports: [8443] } : target)) }));
  t.equal(snapshots.length, 1, 'equal settings, or a target it does not use, are no news');
  apply(changed({ policies: settings.policies.map((policy) => ({ ...policy, rules: policy.rules.slice(0, 2) })) }));
  t.strictSame(names()[1], ['echo']);
  t.not(snapshots[1]?.configurationVersion, snapshots[0]?.configurationVersion);
  t.equal(
    (await service.getGrant(caller, 'echo', '')).configurationVersion,
    snapshots[1]?.configurationVersion,
    'grants speak of the same version',
  );
  end();
  apply(withoutPolicy);
  t.equal(snapshots.length, 2);
  t.equal(service.watcherCount(), 0);
});

await t.test('removing the policy empties the snapshot and denies the next grant', async (t) => {
  const { service, attest, watch, apply } = await rig(t);
  const caller = await attest();
  const { names } = watch(caller);
  await service.getGrant(caller, 'echo', '');
  apply(withoutPolicy);
  t.strictSame(names()[1], []);
  await t.rejects(service.getGrant(caller, 'echo', ''), { code: 'policy_denied' });
});

await t.test('when a workload expires its watchers are told at that moment', async (t) => {
  const { attest, watch, apply, clock } = await rig(t);
  apply(changed({ workloads: settings.workloads.map((workload) => ({ ...workload, expiresAtMs: clock.now() + 60_000 })) }));
  const { names } = watch(await attest());
  clock.advance(59_999);
  t.equal(names().length, 1);
  clock.advance(1);
  t.strictSame(names()[1], []);
});

await t.test('watchers are bounded, one broken stream does not keep news from the others, and one that ended is not added', async (t) => {
  const { service, attest, watch, apply } = await rig(t);
  const caller = await attest();
  let isBroken = false;
  const fragile = () => {
    if (isBroken) throw new Error('the stream is gone');
  };
  service.watch(caller, { snapshot: fragile, revocation: () => undefined }, new AbortController().signal);
  const { names } = watch(caller);
  isBroken = true;
  apply(withoutPolicy);
  t.equal(names().length, 2);
  service.watch(caller, { snapshot: () => t.fail('nobody listens'), revocation: () => undefined }, AbortSignal.abort());
  t.equal(service.watcherCount(), 2);
  for (let i = service.watcherCount(); i < limits.watchersMax; i += 1) watch(caller);
  t.throws(() => watch(caller), { code: 'overloaded' });
});

await t.test('no credential and no evidence is in any log line or metric', async (t) => {
  const { service, attest, setObtain, metrics, lines } = await rig(t);
  const caller = await attest();
  await service.getGrant(caller, 'echo', '');
  setObtain(() => Promise.reject(new Fault('credential_invalid', { cause: { body: canary } })));
  await t.rejects(service.getGrant(caller, 'echo', ''));
  t.ok(lines.length > 3);
  t.notMatch(lines.join('') + (await metrics.expose()), /canary/);
});

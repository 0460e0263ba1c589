import * as fc from 'fast-check';
import t from 'tap';
import { compileRegistry, type Registry, type RegistrySettings } from '../../src/broker/registry.ts';
import { limits } from '../../src/core/limits.ts';
import { decideGrant } from '../../src/core/policy.ts';
import type { Target } from '../../src/core/target.ts';
import { snapshotBytes } from '../../src/rpc/wire.ts';
import type { PolicySettings, RuleSettings, TargetSettings, WorkloadSettings } from '../../src/settings/broker.ts';

const now = Date.UTC(2026, 10, 22);

const workload = (name: string, match: Record<string, string>, more: Partial<WorkloadSettings> = {}): WorkloadSettings => ({
  name,
  attestor: undefined,
  match,
  owner: undefined,
  expiresAtMs: undefined,
  ...more,
});

const target = (name: string, more: Partial<TargetSettings> = {}): TargetSettings => ({
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
  credentials: [{ provider: 'own', placement: { kind: 'bearer' } }],
  ...more,
});

const rule = (name: string, effect: 'allow' | 'deny', more: Partial<RuleSettings> = {}): RuleSettings => ({
  name,
  effect,
  workloads: [],
  targets: [],
  methods: [],
  paths: [],
  ...more,
});

const policy = (name: string, ...rules: RuleSettings[]): PolicySettings => ({ name, rules });

const own = { kind: 'jwt', name: 'own', audience: 'https://echo.outrider.test', lifetimeMs: 300_000 } as const;

const settings = (more: Partial<RegistrySettings> = {}): RegistrySettings => ({
  workloads: [],
  targets: [],
  providers: [own],
  policies: [],
  ...more,
});

const compile = (more: Partial<RegistrySettings>, bundles: Record<string, string> = {}): Registry =>
  compileRegistry(settings(more), new Map(Object.entries(bundles)));

const identity = (attributes: Record<string, string>, attestor = 'cluster') => ({ attestor, attributes });
const demoApp = identity({ 'kubernetes.namespace': 'demo', 'kubernetes.service_account': 'demo-app' });

await t.test('the longest snapshot is found without compiling any, and is as long as when it is sent', (t) => {
  const names = ['a', 'b', 'c', 'long'];
  const targets = names.map((name) => target(name, name === 'long' ? { caFile: '/ca.pem' } : {}));
  const workloads = ['one', 'two', 'three'].map((name) => workload(name, { name }));
  const bytesOf = (one: Target): number => snapshotBytes({ configurationVersion: '', targets: [one] }).length;
  const oneRule = fc.record({ workloads: fc.subarray(['one', 'two', 'three']), targets: fc.subarray(names) });
  fc.assert(
    fc.property(fc.array(oneRule, { maxLength: 5 }), (rules) => {
      const policies = [policy('p', ...rules.map((each, i) => rule(`r${i}`, i % 2 === 0 ? 'allow' : 'deny', each)))];
      const registry = compile({ workloads, targets, policies }, { '/ca.pem': 'x'.repeat(5_000) });
      const longest = registry.longest(bytesOf) as { workload: string; bytes: number };
      const sent = workloads.map(({ name }) => {
        const { configurationVersion, targets: seen } = registry.snapshotFor([name]);
        return {
          name,
          summed: seen.reduce((sum, one) => sum + bytesOf(one), 0),
          whole: snapshotBytes({ configurationVersion, targets: seen }).length,
        };
      });
      const most = Math.max(...sent.map(({ summed }) => summed));
      const { whole } = sent.find(({ name }) => name === longest.workload) as (typeof sent)[number];
      return longest.bytes === most && whole <= longest.bytes + limits.messageBytesMax - limits.snapshotBytesMax;
    }),
  );
  t.equal(compile({}).longest(bytesOf), undefined);
  t.end();
});

await t.test('a workload matches when all its attributes do, exactly or up to a trailing *', (t) => {
  const { match } = compile({
    workloads: [
      workload('exact', { 'kubernetes.namespace': 'demo', 'kubernetes.service_account': 'demo-app' }),
      workload('prefix', { 'kubernetes.service_account': 'demo-*' }),
      workload('any-account', { 'kubernetes.namespace': 'demo', 'kubernetes.service_account': '*' }),
      workload('other-namespace', { 'kubernetes.namespace': 'prod', 'kubernetes.service_account': 'demo-app' }),
      workload('absent', { 'kubernetes.namespace': 'demo', 'kubernetes.node': '*' }),
      workload('inherited', { constructor: '*' }),
      workload('everyone', {}),
      workload('literal-star', { 'kubernetes.namespace': 'd*mo' }),
    ],
  });
  t.strictSame(match(demoApp, now), { workloads: ['exact', 'prefix', 'any-account'], untilMs: Number.POSITIVE_INFINITY });
  t.strictSame(match(identity({}), now).workloads, []);
  t.strictSame(match(identity({ 'kubernetes.service_account': 'demo-' }), now).workloads, ['prefix'], 'the rest may be empty');
  t.end();
});

await t.test('a workload may be tied to one attestor', (t) => {
  const { match } = compile({ workloads: [workload('here', { 'kubernetes.namespace': 'demo' }, { attestor: 'cluster' })] });
  t.strictSame(match(demoApp, now).workloads, ['here']);
  t.strictSame(match({ ...demoApp, attestor: 'elsewhere' }, now).workloads, []);
  t.end();
});

await t.test('an expired workload matches nothing, and a match says until when it holds', (t) => {
  const registry = compile({
    workloads: [
      workload('kept', { 'kubernetes.namespace': 'demo' }),
      workload('soon', { 'kubernetes.namespace': 'demo' }, { expiresAtMs: now + 1 }),
      workload('later', { 'kubernetes.namespace': 'demo' }, { expiresAtMs: now + 9 }),
    ],
  });
  t.strictSame(registry.match(demoApp, now), { workloads: ['kept', 'soon', 'later'], untilMs: now + 1 });
  t.strictSame(registry.match(demoApp, now + 1), { workloads: ['kept', 'later'], untilMs: now + 9 });
  t.strictSame(registry.match(demoApp, now + 9), { workloads: ['kept'], untilMs: Number.POSITIVE_INFINITY });
  t.strictSame([registry.nextExpiryMs(now), registry.nextExpiryMs(now + 1), registry.nextExpiryMs(now + 9)], [now + 1, now + 9, undefined]);
  t.end();
});

await t.test('matching by index finds what comparing with every workload finds', (t) => {
  const name = fc.constantFrom('kubernetes.namespace', 'kubernetes.service_account', 'kubernetes.pod');
  const value = fc.constantFrom('a', 'b', 'ab', 'a*', 'b*', '*');
  const workloads = fc.array(fc.dictionary(name, value), { maxLength: 8 });
  const attributes = fc.dictionary(name, fc.constantFrom('a', 'b', 'ab', 'c'));
  const naive = (match: Record<string, string>, given: Record<string, string>): boolean =>
    Object.keys(match).length > 0 &&
    Object.keys(match).every((key) => {
      const wanted = match[key] as string;
      const actual = given[key];
      return actual !== undefined && (wanted.endsWith('*') ? actual.startsWith(wanted.slice(0, -1)) : wanted === actual);
    });
  const seed = Math.floor(Math.random() * 2 ** 31);
  t.comment(`seed ${seed}`);
  fc.assert(
    fc.property(workloads, attributes, (matches, given) => {
      const { match } = compile({ workloads: matches.map((one, i) => workload(`w${i}`, one)) });
      const expected = matches.flatMap((one, i) => (naive(one, given) ? [`w${i}`] : []));
      return JSON.stringify(match(identity(given), now).workloads) === JSON.stringify(expected);
    }),
    { seed, numRuns: 1000 },
  );
  t.pass('1000 configurations');
  t.end();
});

await t.test('rules of all matching workloads apply, denials first, then in the order of the configuration', (t) => {
  const registry = compile({
    targets: [target('echo'), target('other')],
    policies: [
      policy(
        'one',
        rule('a-allow', 'allow', { workloads: ['w1'], targets: ['echo'] }),
        rule('a-deny', 'deny', { workloads: ['w2'], paths: ['/admin/**'] }),
      ),
      policy(
        'two',
        rule('b-deny', 'deny', { targets: ['echo'], methods: ['DELETE'] }),
        rule('b-allow', 'allow', { workloads: ['w1', 'w2'] }),
      ),
    ],
  });
  const names = (workloads: string[], on: string): string[] => registry.rulesFor(workloads, on).map(({ name }) => name);
  t.strictSame(names(['w1', 'w2'], 'echo'), ['a-deny', 'b-deny', 'a-allow', 'b-allow']);
  t.strictSame(names(['w2', 'w1'], 'echo'), names(['w1', 'w2'], 'echo'), 'whatever the order of workloads');
  t.strictSame(names(['w1'], 'echo'), ['b-deny', 'a-allow', 'b-allow']);
  t.strictSame(names(['w1', 'w2'], 'other'), ['a-deny', 'b-allow']);
  t.strictSame(names(['w1'], 'nowhere'), []);
  t.strictSame(names([], 'echo'), [], 'a rule for all workloads is for all that are known');
  t.match(registry.rulesFor(['w1'], 'echo')[0], {
    policy: 'two',
    policyVersion: /^[0-9a-f]{16}$/,
    methods: ['DELETE'],
    paths: [],
    condition: '',
  });
  t.end();
});

await t.test('what is intercepted is every target that a rule covers, denied ones too, and no other', (t) => {
  const targets = [target('allowed'), target('denied'), target('unnamed')];
  const snapshotOf = (...rules: RuleSettings[]): string[] =>
    compile({ targets, policies: [policy('p', ...rules)] })
      .snapshotFor(['w'])
      .targets.map(({ name }) => name);
  const allow = rule('allow', 'allow', { workloads: ['w'], targets: ['allowed'] });
  t.strictSame(snapshotOf(allow), ['allowed']);
  t.strictSame(snapshotOf(allow, rule('deny', 'deny', { targets: ['denied'] })), ['allowed', 'denied']);
  t.strictSame(snapshotOf(allow, rule('guard', 'deny', { paths: ['/admin/**'] })), ['allowed', 'denied', 'unnamed']);
  t.strictSame(snapshotOf(allow, rule('others', 'deny', { workloads: ['someone-else'] })), ['allowed']);
  const registry = compile({ targets, policies: [policy('p', allow, rule('deny', 'deny', { targets: ['denied'] }))] });
  t.match(decideGrant(registry.rulesFor(['w'], 'denied'), 'spiffe://outrider.test/w', 'denied'), {
    verdict: 'deny',
    rule: 'deny',
    policy: 'p',
  });
  t.strictSame(registry.snapshotFor([]).targets, []);
  t.end();
});

await t.test('a snapshot tells a proxy what it must know of a target, and nothing of credentials', (t) => {
  const treatment = { echo: 'refuse', paths: 'verbatim', placeholder: 'OUTRIDER_PLACEHOLDER' } as const;
  const more = { protocol: 'h2', tlsVersionMin: 'TLSv1.3', ...treatment } as const;
  const one = target('echo', { cleartext: 'allowed', caFile: '/etc/ca.pem', ports: [80, 443], ...more });
  const registry = compile({ targets: [one], policies: [policy('p', rule('r', 'allow'))] }, { '/etc/ca.pem': 'PEM' });
  t.strictSame(registry.snapshotFor(['w']).targets, [
    { name: 'echo', hosts: ['echo.outrider.test'], ports: [80, 443], cleartextAllowed: true, trustBundlePem: 'PEM', ...more },
  ]);
  t.throws(() => compile({ targets: [one] }), { name: 'AssertionError' }, 'a bundle that was not read is a bug');
  t.end();
});

await t.test("a version changes with everything that these workloads' decisions depend on, and with nothing else", (t) => {
  const base: RegistrySettings = settings({
    targets: [target('echo', { caFile: 'ca' }), target('elsewhere')],
    providers: [own, { ...own, name: 'unused' }],
    policies: [
      policy('p', rule('r', 'allow', { workloads: ['w'], targets: ['echo'] })),
      policy('q', rule('s', 'allow', { workloads: ['v'], targets: ['elsewhere'] })),
    ],
  });
  const versionOf = (more: Partial<RegistrySettings> = {}, bundle = 'PEM'): string =>
    compileRegistry({ ...base, ...more }, new Map([['ca', bundle]])).snapshotFor(['w']).configurationVersion;
  const [echo, elsewhere] = base.targets as [TargetSettings, TargetSettings];
  const [p, q] = base.policies as [PolicySettings, PolicySettings];
  const version = versionOf();
  t.equal(versionOf(structuredClone(base)), version, 'equal content, equal version');

  const changed: Record<string, string> = {
    host: versionOf({ targets: [{ ...echo, hosts: ['echo2.outrider.test'] }, elsewhere] }),
    placement: versionOf({
      targets: [{ ...echo, credentials: [{ provider: 'own', placement: { kind: 'query', name: 'key' } }] }, elsewhere],
    }),
    provider: versionOf({ providers: [{ ...own, audience: 'https://other.outrider.test' }, ...base.providers.slice(1)] }),
    protocol: versionOf({ targets: [{ ...echo, protocol: 'h2' }, elsewhere] }),
    'TLS floor': versionOf({ targets: [{ ...echo, tlsVersionMin: 'TLSv1.3' }, elsewhere] }),
    echo: versionOf({ targets: [{ ...echo, echo: 'refuse' }, elsewhere] }),
    paths: versionOf({ targets: [{ ...echo, paths: 'verbatim' }, elsewhere] }),
    placeholder: versionOf({ targets: [{ ...echo, placeholder: 'OUTRIDER_PLACEHOLDER' }, elsewhere] }),
    'trust bundle': versionOf({}, 'OTHER'),
    rule: versionOf({ policies: [policy('p', rule('r', 'allow', { workloads: ['w'], targets: ['echo'], methods: ['GET'] })), q] }),
    'rule added': versionOf({ policies: [p, q, policy('new', rule('d', 'deny', { workloads: ['w'], targets: ['echo'] }))] }),
    'rule gone': versionOf({ policies: [q] }),
  };
  for (const [what, other] of Object.entries(changed)) t.not(other, version, what);
  t.equal(new Set(Object.values(changed)).size, Object.keys(changed).length, 'each its own');

  const same: Record<string, string> = {
    'a target of others': versionOf({ targets: [echo, { ...elsewhere, hosts: ['e.outrider.test'] }] }),
    'an unused provider': versionOf({ providers: [own, { ...own, name: 'unused', audience: 'https://x.outrider.test' }] }),
    "others' policy": versionOf({ policies: [p] }),
    'another workload': versionOf({ workloads: [workload('x', { a: 'b' })] }),
  };
  for (const [what, other] of Object.entries(same)) t.equal(other, version, what);
  t.end();
});

await t.test('a lookup costs with 10,000 targets what it costs with 10', (t) => {
  const registryWith = (count: number): Registry => {
    const targets = Array.from({ length: count }, (_, i) => target(`t${i}`));
    return compile({
      targets,
      policies: targets.map(({ name }, i) => policy(`p${i}`, rule('r', 'allow', { workloads: ['w'], targets: [name] }))),
    });
  };
  // Counted, not timed: a lookup may touch nothing that grows with the number of targets.
  const rules = (registry: Registry, name: string): number => registry.rulesFor(['w'], name).length;
  const [small, large] = [registryWith(10), registryWith(10_000)];
  t.strictSame([rules(small, 't3'), rules(large, 't9999')], [1, 1]);
  t.equal(large.viewOf(['w']), large.viewOf(['w']), 'a view is compiled once');
  t.equal(large.rulesFor(['w'], 't9999'), large.rulesFor(['w'], 't9999'), 'and so are the rules of a target');
  const seconds = (registry: Registry, name: string): number => {
    const startedMs = performance.now();
    for (let i = 0; i < 20_000; i += 1) rules(registry, name);
    return performance.now() - startedMs;
  };
  const best = (measure: () => number): number => Math.min(measure(), measure(), measure(), measure(), measure());
  const ratio = best(() => seconds(large, 't9999')) / best(() => seconds(small, 't3'));
  t.ok(ratio < 10, `a thousand times the targets, ${ratio.toFixed(2)} times the cost`);
  t.end();
});

await t.test('targets that use a provider are counted once each', (t) => {
  const twice = target('twice', {
    credentials: [
      { provider: 'own', placement: { kind: 'bearer' } },
      { provider: 'own', placement: { kind: 'query', name: 'k' } },
    ],
  });
  const { targetsPerProvider } = compile({ targets: [target('echo'), twice], providers: [own, { ...own, name: 'unused' }] });
  t.strictSame(
    [...targetsPerProvider],
    [
      ['own', 2],
      ['unused', 0],
    ],
  );
  t.end();
});

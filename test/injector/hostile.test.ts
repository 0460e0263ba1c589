import t from 'tap';
import { decide } from '../../src/injector/decide.ts';
import { type Pod, readPod } from '../../src/injector/pod.ts';
import { aboutOf } from '../../src/injector/review.ts';
import { exampleSidecar } from '../support/injector-pods.ts';

/** As it comes from the API server: parsed, so that `__proto__` is a member like any other. */
const podOf = (metadata: object, env: readonly object[] = []): Pod =>
  readPod(JSON.parse(JSON.stringify({ metadata, spec: { containers: [{ name: 'app', env }] } }))) as Pod;

t.test('variables that are called as members of every object keep their values', async (t) => {
  const env = ['constructor', 'toString', 'hasOwnProperty', '__proto__'].map((name) => ({ name, value: 'of the user' }));
  const decision = decide(podOf({ name: 'p' }, env), exampleSidecar);
  if (decision.kind !== 'injected') return t.fail(JSON.stringify(decision));
  t.strictSame(decision.pod.spec.containers[0]?.env?.slice(0, env.length), env);
});

t.test('a pod with more mistakes than anybody reads is refused with the first of them, and their number', async (t) => {
  const annotations = Object.fromEntries(Array.from({ length: 20_000 }, (_, i) => [`outrider.dev/made-${i}`, 'x']));
  const decision = decide(podOf({ name: 'p', annotations }), exampleSidecar);
  if (decision.kind !== 'denied') return t.fail(decision.kind);
  t.equal(decision.reasons.length, 33);
  t.match(decision.reasons[0], /made-0 is not known/);
  t.equal(decision.reasons.at(-1), 'and 19968 more');
});

t.test('a variable that is written very often takes no more than its share of time', async (t) => {
  const env = Array.from({ length: 150_000 }, () => ({ name: 'NO_PROXY', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } }));
  const pod = podOf({ name: 'p' }, env);
  const started = process.cpuUsage();
  const decision = decide(pod, exampleSidecar);
  const { user, system } = process.cpuUsage(started);
  t.equal(decision.kind, 'injected');
  t.ok(user + system < 2_000_000, `${user + system} µs`);
});

t.test('names that are none are refused, by number rather than in their own words', async (t) => {
  for (const name of ['../../..', 'Upper', 'dots.are-for-subdomains', '-a', 'a'.repeat(64), '', 'free text: call 555'])
    for (const list of ['containers', 'initContainers']) {
      const spec = { containers: [{ name: 'app' }], [list]: [{ name, env: [{ name: 'HTTPS_PROXY', value: 'http://other:1' }] }] };
      const decision = decide(readPod({ metadata: {}, spec }) as Pod, exampleSidecar);
      t.strictSame(decision, { kind: 'denied', reasons: ['container 1: its name is no DNS label'] }, name);
    }
  t.strictSame(decide(podOf({ name: 'a/b' }), exampleSidecar), { kind: 'denied', reasons: ["the pod's name is no DNS subdomain"] });
  t.equal(decide(podOf({ name: 'a.b-c' }), exampleSidecar).kind, 'injected');
  t.equal(decide(podOf({ generateName: 'a-' }), exampleSidecar).kind, 'injected');
});

t.test('a remark is about what has a name, and about nothing else', async (t) => {
  const owner = { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'web-7d4', uid: '0f3c-1', controller: true };
  t.match(aboutOf(podOf({ ownerReferences: [owner] })), { kind: 'ReplicaSet', name: 'web-7d4' });
  for (const odd of [{ name: '../x' }, { kind: 'Call 555' }, { uid: 'a b' }, { apiVersion: 'apps/v1/../x y' }, { name: '' }])
    t.equal(aboutOf(podOf({ name: 'p', ownerReferences: [{ ...owner, ...odd }] })), undefined, JSON.stringify(odd));
  t.match(aboutOf(podOf({ name: 'p' })), { kind: 'Pod', name: 'p' });
  t.equal(aboutOf(podOf({ name: 'P p' })), undefined);
});

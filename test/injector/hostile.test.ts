import t from 'tap';
import { decide } from '../../src/injector/decide.ts';
import { type Pod, readPod } from '../../src/injector/pod.ts';
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

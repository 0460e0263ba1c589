import { execFile } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';
import { field, type RecordedRequest } from '../fakes/recorder.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { collectorId, host, startStack, type WholeStack, workloadId, writeWhole } from '../support/stack.ts';

interface Ended {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

const main = join(import.meta.dirname, '../../src/main.ts');

/** As the program of a pod: what it knows of the proxy is in its environment. */
const selfTest = (stack: WholeStack, changes: { flags?: object; env?: object } = {}): Promise<Ended> => {
  const { files, broker, collector, proxy } = stack;
  const flags = {
    url: `https://${host}/hello`,
    target: 'echo',
    broker: `127.0.0.1:${broker.grpc.port}`,
    'broker-id': 'spiffe://outrider.test/outrider/broker',
    'broker-ca': files.brokerCa,
    'token-file': files.token,
    collector: `127.0.0.1:${collector.grpc.port}`,
    'collector-id': collectorId,
    timeout: '20',
    ...changes.flags,
  };
  const env = {
    PATH: process.env['PATH'],
    // For the lines that tests execute (scripts/coverage.ts).
    ...(process.env['NODE_V8_COVERAGE'] === undefined ? {} : { NODE_V8_COVERAGE: process.env['NODE_V8_COVERAGE'] }),
    HTTPS_PROXY: `http://127.0.0.1:${proxy.listen.port}`,
    HTTP_PROXY: `http://127.0.0.1:${proxy.listen.port}`,
    NODE_EXTRA_CA_CERTS: files.bundle,
    ...changes.env,
  };
  const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value]);
  return new Promise((resolve) => {
    execFile(process.execPath, ['--disable-sigusr1', main, 'self-test', ...args], { env }, (error, out, err) =>
      resolve({ status: error === null ? 0 : Number(error.code), out, err }),
    );
  });
};

t.test('one request from inside a pod proves injection, policy and evidence', async (t) => {
  const stack = await startStack(t);
  const { status, out, err } = await selfTest(stack);
  t.equal(status, 0, err);
  const lines = out.trimEnd().split('\n');
  t.equal(lines[0], `answered: https://${host}/hello 200`);
  t.equal(lines[1], `identified: ${workloadId}`);
  const events = lines.slice(2, -1).map((line) => JSON.parse(line) as Record<string, unknown>);
  t.match(events, [
    { kind: 'intent', target: 'echo', reporter: workloadId },
    { kind: 'outcome', target: 'echo', outcome: { status: 200 } },
  ]);
  t.equal(events.length, 2, 'those of this very request, and no others');
  t.match(
    lines.at(-1),
    /^proven: .* was allowed by rule use-echo of policy demo under grant [0-9a-f-]{36}, and the collector has the evidence$/,
  );
  t.match(field(stack.origin.requests.at(-1) as RecordedRequest, 'authorization'), [/^Bearer /]);
  t.notMatch(out + err, /Bearer|eyJ/);
  const clear = await selfTest(stack, { flags: { url: `http://${host}/hello` } });
  t.equal(clear.status, 0, clear.err);
});

t.test('each part that fails is named, with where to look', async (t) => {
  const stack = await startStack(t);
  const strangeCa = join(stack.files.dir, 'strange-ca.pem');
  writeWhole(strangeCa, createTestAuthority().pem);
  const cases: Record<string, [changes: Parameters<typeof selfTest>[1], sentence: RegExp]> = {
    'a rule that denies': [{ flags: { url: `https://${host}/admin/x` } }, /answered 403, policy_denied: .*Look at the log of the proxy/],
    'no proxy': [{ env: { HTTPS_PROXY: 'http://127.0.0.1:1' } }, /could not be asked: .*Look whether this pod has a proxy/],
    'no token': [{ flags: { 'token-file': join(stack.files.dir, 'none') } }, /ENOENT/],
    'a broker by another authority': [{ flags: { 'broker-ca': strangeCa, timeout: '3' } }, /the broker gave no identity: broker_untrusted/],
    'a collector of another name': [
      { flags: { 'collector-id': `${collectorId}-2`, timeout: '4' } },
      /the collector could not be asked: broker_untrusted/,
    ],
    'a request that is none of the target': [
      { flags: { target: 'another', timeout: '4' } },
      /the collector has no intent and outcome of it/,
    ],
  };
  const ended = await Promise.all(Object.values(cases).map(([changes]) => selfTest(stack, changes)));
  for (const [i, [what, [, err]]] of Object.entries(cases).entries()) t.match(ended[i], { status: 1, err }, what);
});

t.test('wrong arguments are told apart from what could not be proven', async (t) => {
  const stack = await startStack(t);
  const wrong = [{ timeout: '0' }, { url: 'no url' }, { bad: 'x' }];
  for (const ended of await Promise.all(wrong.map((flags) => selfTest(stack, { flags })))) t.match(ended, { status: 2 });
});

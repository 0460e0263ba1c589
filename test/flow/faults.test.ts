import { rmSync } from 'node:fs';
import t, { type Test } from 'tap';
import type { TokenParts } from '../fakes/cluster-issuer.ts';
import { dial, exchange, tunnelTo, wholeResponse } from '../support/path.ts';
import { eventually, host, metric, prepareStack, type Stack, startStack } from '../support/stack.ts';

/** What stands in the way of a request, each with its own code, status and metric: seen by the program, over real gRPC. */
const ask = async (port: number, path = '/hello'): Promise<string> => {
  const socket = await dial(port);
  const answer = await exchange(socket, `GET http://${host}${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`, wholeResponse);
  socket.destroy();
  return answer;
};

const expectCode = async (
  t: Test,
  proxy: { listen: { port: number }; admin: { port: number } },
  status: number,
  code: string,
): Promise<void> => {
  const answer = await eventually(async () => {
    const text = await ask(proxy.listen.port);
    return text.includes(`"code":"${code}"`) ? text : undefined;
  });
  t.match(answer, new RegExp(`^HTTP/1\\.1 ${status} `), code);
  t.match(answer, /content-type: application\/problem\+json/i);
  t.ok((await metric(proxy.admin, 'outrider_proxy_faults_total', `code="${code}"`)) >= 1, `${code} is counted`);
  const ready = await fetch(`http://127.0.0.1:${proxy.admin.port}/readyz`);
  t.equal(ready.status, 503, 'and the proxy does not say it is ready');
};

const evidence: [name: string, spoil: (stack: Stack) => void, status: number, code: string][] = [
  ['missing', ({ files }) => rmSync(files.token), 503, 'evidence_missing'],
  ['expired', (stack) => stack.projectToken(aged(stack, -7200)), 503, 'evidence_expired'],
  ['not valid yet', (stack) => stack.projectToken(aged(stack, 7200)), 503, 'evidence_not_yet_valid'],
  [
    'for another audience',
    (stack) => stack.projectToken({ claims: { aud: ['https://kubernetes.default.svc'] } }),
    403,
    'evidence_audience',
  ],
  ['from another issuer', (stack) => stack.projectToken({ claims: { iss: 'https://other.outrider.test' } }), 403, 'evidence_issuer'],
  ['with another signature', (stack) => stack.projectToken({ signature: () => Buffer.alloc(256, 1) }), 403, 'evidence_invalid'],
  ['of an unknown workload', (stack) => stack.projectToken(ofAccount('stranger')), 403, 'workload_unknown'],
];

const aged = ({ issuer }: Stack, seconds: number): TokenParts => {
  const { iat, nbf, exp } = issuer.claims() as { iat: number; nbf: number; exp: number };
  return { claims: { iat: iat + seconds, nbf: nbf + seconds, exp: exp + seconds } };
};
const ofAccount = (name: string): TokenParts => ({
  claims: {
    sub: `system:serviceaccount:demo:${name}`,
    'kubernetes.io': { namespace: 'demo', serviceaccount: { name, uid: 'u1' }, pod: { name: `${name}-1`, uid: 'u2' } },
  },
});

for (const [name, spoil, status, code] of evidence) {
  t.test(`an identity token ${name}: ${code}, and it heals when the token does`, async (t) => {
    const stack = await prepareStack(t);
    spoil(stack);
    const broker = await stack.startBroker();
    const collector = await stack.startCollector(broker.grpc.port);
    const proxy = await stack.startProxy(broker.grpc.port, collector.grpc.port);
    await expectCode(t, proxy, status, code);
    t.equal(stack.origin.requests.length, 0, 'nothing was forwarded');
    stack.projectToken();
    await proxy.ready();
    t.match(await ask(proxy.listen.port), /^HTTP\/1\.1 200/);
    t.equal((await fetch(`http://127.0.0.1:${proxy.admin.port}/readyz`)).status, 200);
  });
}

t.test('nothing is forwarded, credentialed or not, before the proxy knows its targets', async (t) => {
  const stack = await prepareStack(t);
  // No broker yet: a port that was free a moment ago, found by starting and closing one.
  const placeholder = await stack.startBroker();
  const { port } = placeholder.grpc;
  await placeholder.close();
  const proxy = await stack.startProxy(port, port);
  await expectCode(t, proxy, 503, 'broker_unavailable');
  const { refusal } = await tunnelTo(proxy.listen.port, `${host}:443`);
  t.match(refusal, /^HTTP\/1\.1 503 /);
  t.match(
    (await tunnelTo(proxy.listen.port, 'elsewhere.outrider.test:443')).refusal,
    /^HTTP\/1\.1 503 /,
    'an unmatched tunnel neither: what is unmatched is not known yet',
  );
  t.equal(stack.origin.requests.length, 0);

  const asking = new AbortController();
  const answers: string[] = [];
  const loop = (async () => {
    while (!asking.signal.aborted) answers.push(await ask(proxy.listen.port));
  })();
  await stack.startBroker({ port });
  await eventually(() => answers.some((answer) => answer.startsWith('HTTP/1.1 200')));
  asking.abort();
  await loop;
  t.ok(
    answers.every((answer) => /^HTTP\/1\.1 (503|200) /.test(answer)),
    'refused, then served: nothing in between',
  );
  t.ok(
    stack.origin.requests.every(({ rawHeaders }) => rawHeaders.some((value) => value.startsWith('Bearer '))),
    'no request arrived un-injected',
  );
});

t.test('the broker goes away: a warm target goes on, a cold one gets broker_unavailable, and it heals', async (t) => {
  const targets = ['echo', 'cold']
    .map(
      (name) =>
        `  - { name: ${name}, hosts: [${name}.outrider.test], ports: [80, 443], cleartext: allowed, credentials: [{ provider: echo-token, placement: { kind: bearer } }] }`,
    )
    .join('\n');
  const policies = '  - name: demo\n    rules:\n      - { name: all, effect: allow, workloads: [demo-app], targets: [echo, cold] }';
  const stack = await startStack(t, { targets, policies });
  const { proxy, broker } = stack;
  t.match(await ask(proxy.listen.port), /^HTTP\/1\.1 200/);
  const { port } = broker.grpc;
  await broker.close();
  t.match(await ask(proxy.listen.port), /^HTTP\/1\.1 200/, 'the grant in the cache serves');
  const cold = async (): Promise<string> => {
    const socket = await dial(proxy.listen.port);
    const answer = await exchange(socket, 'GET http://cold.outrider.test/ HTTP/1.1\r\nHost: cold.outrider.test\r\n\r\n', wholeResponse);
    socket.destroy();
    return answer;
  };
  t.match(await cold(), /^HTTP\/1\.1 503 [^]*"code":"broker_unavailable"/);
  t.ok((await metric(proxy.admin, 'outrider_proxy_broker_calls_total', 'code="broker_unavailable"')) >= 1);
  await stack.startBroker({ port, targets, policies });
  // cold has no address: reaching the dial means that its grant was given.
  await eventually(async () => /"code":"target_unresolved"/.test(await cold()));
  t.pass('the new broker is used, by a new attestation');
});

t.test('the collector goes away: events wait, are counted, and past the bound credentials are refused', async (t) => {
  const stack = await startStack(t, { eventQueueMax: 100 });
  const { proxy, collector, events } = stack;
  await ask(proxy.listen.port);
  await eventually(() => events().length === 2);
  const { port } = collector.grpc;
  await collector.close();
  const answers: string[] = [];
  while (!answers.at(-1)?.includes('event_backlog')) answers.push(await ask(proxy.listen.port));
  t.match(answers.at(-1), /^HTTP\/1\.1 503 [^]*"code":"event_backlog"/);
  const served = answers.filter((answer) => answer.startsWith('HTTP/1.1 200')).length;
  t.ok(served > 20 && served <= 50, `${served} requests were served while their events could be kept`);
  t.ok((await metric(proxy.admin, 'outrider_proxy_events_queued')) >= served);
  t.ok((await metric(proxy.admin, 'outrider_proxy_faults_total', 'code="event_backlog"')) >= 1);
  t.equal((await fetch(`http://127.0.0.1:${proxy.admin.port}/readyz`)).status, 503);

  const restarted = await stack.startCollector(stack.broker.grpc.port, port);
  await eventually(async () => (await metric(proxy.admin, 'outrider_proxy_events_queued')) === 0);
  t.match(await ask(proxy.listen.port), /^HTTP\/1\.1 200/);
  await eventually(() => events().filter(({ kind }) => kind === 'outcome').length === served + 2);
  const requested = events().filter(({ kind }) => kind === 'intent').length;
  t.equal(requested, stack.origin.requests.length, 'requests seen by the target = intents stored');
  const lost = await metric(proxy.admin, 'outrider_proxy_events_lost_total');
  if (lost > 0) await eventually(async () => (await metric(restarted.admin, 'outrider_collector_events_lost_total')) === lost);
});

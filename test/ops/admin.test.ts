import { connect } from 'node:net';
import t from 'tap';
import { startAdmin } from '../../src/ops/admin.ts';
import { createMetrics } from '../../src/ops/metrics.ts';
import { exchange } from '../support/path.ts';

t.test('the admin endpoint tells liveness, readiness with what is missing, and metrics; it changes nothing', async (t) => {
  let missing = ['an identity', 'targets'];
  const admin = await startAdmin({ host: '127.0.0.1', port: 0, metrics: createMetrics('proxy'), readiness: () => missing });
  t.teardown(() => admin.close());
  const at = (path: string): string => `http://127.0.0.1:${admin.address.port}${path}`;
  const ask = async (path: string, init: RequestInit = {}) => {
    const response = await fetch(at(path), init);
    return { status: response.status, text: await response.text(), type: response.headers.get('content-type') };
  };
  t.match(await ask('/livez'), { status: 200, text: 'ok\n' });
  t.match(await ask('/readyz'), { status: 503, text: 'waiting for an identity\nwaiting for targets\n' });
  missing = [];
  t.match(await ask('/readyz?verbose'), { status: 200, text: 'ready\n' });
  t.match(await ask('/metrics'), { status: 200, type: /^text\/plain; version=/, text: /outrider_proxy_requests_total/ });
  t.match(await ask('/metrics', { method: 'HEAD' }), { status: 200, text: '' });
  for (const path of ['/', '/debug', '/quitquitquit', '/metrics/', '//metrics']) t.match(await ask(path), { status: 404 });
  for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']) t.match(await ask('/metrics', { method }), { status: 405 });
});

t.test('a port in use gets a sentence that says what to do', async (t) => {
  const options = { host: '127.0.0.1', metrics: createMetrics('proxy'), readiness: () => [] };
  const first = await startAdmin({ ...options, port: 0 });
  t.teardown(() => first.close());
  const { port } = first.address;
  await t.rejects(startAdmin({ ...options, port }), {
    name: 'ListenError',
    message: new RegExp(`^127\\.0\\.0\\.1:${port} is in use: stop the program .* or choose another port\\.$`),
  });
  await t.rejects(startAdmin({ ...options, host: '192.0.2.1', port: 0 }), { message: /is not an address of this machine/ });
});

t.test('garbage on the admin port ends that connection and nothing else', async (t) => {
  const admin = await startAdmin({ host: '127.0.0.1', port: 0, metrics: createMetrics('proxy'), readiness: () => [] });
  t.teardown(() => admin.close());
  const socket = connect(admin.address.port, '127.0.0.1');
  t.match(await exchange(socket, '\u0016\u0003\u0001 not http\r\n\r\n'), /^HTTP\/1\.1 400 /);
  t.equal((await fetch(`http://127.0.0.1:${admin.address.port}/livez`)).status, 200);
});

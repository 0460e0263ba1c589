import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import t from 'tap';
import {
  between,
  files,
  host,
  h2Over,
  h2Program,
  httpTarget,
  program,
  rawTarget,
  talk,
  tlsTunnel,
  tunnel,
  until,
  whole,
} from '../support/between.ts';
import { listen } from '../net/outbound/targets.ts';

/** The end of a proxy: everybody is told, who is in a request has it finished, who comes a moment too late is served. */
const get = (path: string, ...fields: readonly string[]): string =>
  [`GET http://${host}${path} HTTP/1.1`, `Host: ${host}`, ...fields, '', ''].join('\r\n');

t.test('answers that begin after the end was announced say so, and idle connections are closed a moment later', async (t) => {
  const answers: ServerResponse[] = [];
  const { path } = await between(
    t,
    httpTarget((request, response) => (request.url === '/late' ? void answers.push(response) : response.end('ok'))),
    { listener: { noticeMs: 200 } },
  );
  const [busy, idle, silent] = [await program(path), await program(path), await program(path)];
  busy.say(get('/late'));
  idle.say(get('/'));
  await idle.until(whole(200, 'ok'));
  await until(() => answers.length === 1);
  const drained = path.drain(5_000);
  const late = await program(path);
  late.say(get('/'));
  t.match(await late.until(/ok$/), /\r\nconnection: close\r\n/i, 'who did not know is served');
  t.equal(idle.socket.readableEnded, false, 'a kept connection may have a request on its way');
  t.equal(await silent.end, 'end');
  t.equal(await idle.end, 'end');
  answers[0]?.end('late');
  t.match(await busy.until(/late$/), /\r\nconnection: close\r\n/i);
  await drained;
  await t.rejects(program(path), { code: 'ECONNREFUSED' });
});

t.test('an idle connection that is used in the last moment is served', async (t) => {
  const { path } = await between(
    t,
    httpTarget((_request, response) => response.end('ok')),
    { listener: { noticeMs: 100 } },
  );
  const idle = await program(path);
  idle.say(get('/'));
  await idle.until(whole(200, 'ok'));
  const drained = path.drain(5_000);
  idle.say(get('/'));
  t.match(await idle.until(/ok[^]*ok$/), /\r\nconnection: close\r\n/i);
  await drained;
});

t.test('with nobody connected the end does not wait', async (t) => {
  const { path } = await between(
    t,
    httpTarget((_request, response) => response.end('ok')),
    { listener: { noticeMs: 60_000 } },
  );
  await path.drain(60_000);
  await t.rejects(program(path), { code: 'ECONNREFUSED' });
});

t.test('who has only just left may come again while the end is announced', async (t) => {
  const { path } = await between(
    t,
    httpTarget((_request, response) => response.end('ok')),
    { listener: { noticeMs: 500 } },
  );
  const first = await program(path);
  first.say(get('/', 'Connection: close'));
  await first.until(/ok$/);
  await first.end;
  // The proxy's own end of it closes a turn or two later.
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  const drained = path.drain(60_000);
  const again = await program(path);
  again.say(get('/'));
  await again.until(/ok$/);
  await drained;
  await t.rejects(program(path), { code: 'ECONNREFUSED' });
});

t.test('programs that speak HTTP/2 are sent GOAWAY at once, keep the streams they have, and may come again for a last one', async (t) => {
  const answers: ServerResponse[] = [];
  const { path } = await between(
    t,
    createServer({ ...files }, (request, response) => (request.url === '/late' ? void answers.push(response) : response.end('ok'))),
    { listener: { noticeMs: 500 } },
  );
  const session = await h2Program(t, path);
  const late = once(session.request({ ':path': '/late' }), 'response');
  await until(() => answers.length === 1);
  const goaway = once(session, 'goaway');
  const drained = path.drain(5_000);
  t.equal((await goaway)[0], 0, 'NO_ERROR');
  const again = h2Over(t, await tlsTunnel(path, ['h2']));
  t.match((await once(again.request({ ':path': '/' }), 'response'))[0], { ':status': 200 });
  answers[0]?.end('late');
  t.match((await late)[0], { ':status': 200 });
  await drained;
  t.ok(session.closed && again.closed);
});

t.test('a tunnel has the time of the drain and is closed then; a request that never ends is, too', async (t) => {
  const elsewhere = await listen(
    t,
    rawTarget(({ socket }) => void socket.on('data', (chunk: Buffer) => socket.write(chunk))),
  );
  const { path } = await between(
    t,
    httpTarget(() => undefined),
    { morePins: [{ host: 'elsewhere.test', port: 5432, address: '127.0.0.1', addressPort: elsewhere.port }] },
  );
  const joined = talk(await tunnel(path, 'elsewhere.test:5432'));
  joined.say('one');
  await joined.until(/one$/);
  const endless = await program(path);
  endless.say(get('/never'));
  await until(() => path.events.some(({ kind }) => kind === 'intent'));
  const startedAt = performance.now();
  const drained = path.drain(400);
  joined.say('two');
  await joined.until(/onetwo$/);
  await Promise.all([drained, joined.end, endless.end]);
  t.ok(performance.now() - startedAt >= 390, 'not before its time');
  await until(() => elsewhere.sockets.size === 0);
});

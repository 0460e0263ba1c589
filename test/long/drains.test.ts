import { once } from 'node:events';
import { mkdirSync, readFileSync } from 'node:fs';
import { connect as connectH2, type ClientHttp2Session } from 'node:http2';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { connect as connectTls } from 'node:tls';
import t from 'tap';
import { buildBundle } from '../../scripts/build.ts';
import { dial, exchange, secure, tunnelTo, wholeResponse } from '../support/path.ts';
import { fromBundle, type RoleProcess, startRole } from '../support/processes.ts';
import { brokerYaml, collectorYaml, eventually, host, prepareStack, proxyYaml } from '../support/stack.ts';

/**
 * Two proxies of the bundle, restarted in turn under load. Programs learn of it as programs do: from `Connection: close`, GOAWAY, and, for
 * new connections, from /readyz. No request that was sent is ever sent again, but for streams that GOAWAY names as not taken.
 */
const drains = Number(process.env['DRAINS'] ?? 100);
t.setTimeout(drains * 8_000 + 60_000);

type Kind = 'kept' | 'fresh' | 'intercepted' | 'h2';

t.test(`${drains} rolling restarts under load without a failed request, and every one of them is on record`, async (t) => {
  const stack = await prepareStack(t, (_request, response) => response.end('ok'));
  const { files } = stack;
  const bundle = join(files.dir, 'dist');
  await buildBundle(bundle);
  const program = fromBundle(bundle);
  const broker = await startRole(t, 'broker', files.dir, brokerYaml(files, stack.issuer.url), program);
  const collector = await startRole(t, 'collector', files.dir, collectorYaml(files, broker.ports['gRPC'] as number), program);
  await collector.ready;

  interface Place {
    readonly name: string;
    readonly trust: string;
    role: RoleProcess;
    isReady: boolean;
  }
  const start = async (name: string): Promise<Place> => {
    const dir = join(files.dir, name);
    mkdirSync(dir, { recursive: true });
    const own = { ...files, bundle: join(dir, 'ca-bundle.pem') };
    const yaml = proxyYaml(own, broker.ports['gRPC'] as number, collector.ports['gRPC'] as number, stack.origin).replace(
      /interception: .*/,
      `interception: { bundleFile: ${own.bundle}, stateFile: ${dir}/authority }`,
    );
    const role = await startRole(t, 'proxy', dir, yaml, program);
    await role.ready;
    return { name, trust: readFileSync(own.bundle, 'utf8'), role, isReady: true };
  };
  const places = [await start('one'), await start('two')];
  const portOf = ({ role }: Place): number => role.ports['proxy'] as number;
  /** One that was ready when it was last asked. */
  const choose = (): Place => {
    const ready = places.filter(({ isReady }) => isReady);
    return (ready.length === 0 ? places : ready)[Math.floor(Math.random() * Math.max(1, ready.length))] as Place;
  };
  const ask = async (place: Place): Promise<void> => {
    const { role } = place;
    const answer = await fetch(`http://127.0.0.1:${role.ports['admin']}/readyz`, { headers: { connection: 'close' } }).catch(
      () => undefined,
    );
    const isReady = answer?.status === 200;
    if (role === place.role) place.isReady = isReady;
    if (answer?.status === 503) sayings.add(await answer.text());
  };
  const sayings = new Set<string>();

  const done: Record<Kind, number> = { kept: 0, fresh: 0, intercepted: 0, h2: 0 };
  const failures: string[] = [];
  let notTaken = 0;
  let isOver = false;
  const inPlace = async (): Promise<Socket> => dial(portOf(choose()));
  const intercepted = async (): Promise<Duplex> => {
    const place = choose();
    const { socket, refusal } = await tunnelTo(portOf(place), `${host}:443`);
    if (refusal !== undefined) throw new Error(`CONNECT: ${refusal.split('\r\n', 1)[0]}`);
    return secure(socket, place.trust, host);
  };
  const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 10 + Math.random() * 20));

  const worker = async (kind: Exclude<Kind, 'h2'>): Promise<void> => {
    const target = kind === 'intercepted' ? '/x' : `http://${host}/x`;
    const fields = kind === 'fresh' ? 'Connection: close\r\n' : '';
    let socket: Duplex | undefined;
    while (!isOver) {
      try {
        socket ??= await (kind === 'intercepted' ? intercepted() : inPlace());
        const text = await exchange(socket as Socket, `GET ${target} HTTP/1.1\r\nHost: ${host}\r\n${fields}\r\n`, wholeResponse);
        if (text.startsWith('HTTP/1.1 200 ')) done[kind] += 1;
        else failures.push(`${kind}: ${JSON.stringify(text.slice(0, 300))}`);
        if (!wholeResponse(text) || /\r\nconnection: close\r\n/i.test(text)) {
          socket.destroy();
          socket = undefined;
        }
      } catch (error) {
        failures.push(`${kind}: ${(error as Error).message}`);
        socket = undefined;
      }
      await pause();
      // Closed between two requests: nothing was lost.
      if (socket?.readableEnded || socket?.destroyed) socket = undefined;
    }
    socket?.destroy();
  };

  const openH2 = async (): Promise<ClientHttp2Session> => {
    const place = choose();
    const { socket, refusal } = await tunnelTo(portOf(place), `${host}:443`);
    if (refusal !== undefined) throw new Error(`CONNECT: ${refusal.split('\r\n', 1)[0]}`);
    const secured = connectTls({ socket, ca: place.trust, servername: host, ALPNProtocols: ['h2'] });
    await once(secured, 'secureConnect');
    const session = connectH2(`https://${host}`, { createConnection: () => secured });
    session.on('error', () => undefined);
    return session;
  };
  const h2Worker = async (): Promise<void> => {
    let session: ClientHttp2Session | undefined;
    while (!isOver) {
      let last = Number.POSITIVE_INFINITY;
      try {
        session ??= await openH2();
        session.once('goaway', (_code, lastStreamId) => (last = lastStreamId));
        const stream = session.request({ ':path': '/x' });
        const [headers] = (await once(stream, 'response')) as [{ ':status'?: number }];
        stream.resume();
        await once(stream, 'close');
        if (headers[':status'] === 200) done.h2 += 1;
        else failures.push(`h2: ${headers[':status']}`);
      } catch (error) {
        // Refused, or above what GOAWAY says was taken (RFC 9113 section 6.8).
        const { code } = error as NodeJS.ErrnoException;
        if (last < Number.POSITIVE_INFINITY || code === 'ERR_HTTP2_GOAWAY_SESSION' || code === 'ERR_HTTP2_INVALID_SESSION') notTaken += 1;
        else failures.push(`h2: ${code} ${(error as Error).message}`);
        session = undefined;
      }
      await pause();
      if (session?.closed || session?.destroyed) session = undefined;
    }
    session?.destroy();
  };

  const asking = (async () => {
    while (!isOver) {
      await Promise.all(places.map(ask));
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  })();
  const workers = [
    ...(['kept', 'kept', 'kept', 'kept', 'fresh', 'fresh', 'intercepted', 'intercepted'] as const).map(worker),
    h2Worker(),
    h2Worker(),
  ];
  const sum = (): number => Object.values(done).reduce((all, one) => all + one, 0);
  await eventually(() => failures.length > 0 || Object.values(done).every((count) => count > 10));
  let slowestMs = 0;
  for (let i = 0; i < drains && failures.length === 0; i += 1) {
    const place = places[i % 2] as Place;
    const before = sum();
    const startedAt = performance.now();
    t.equal(await place.role.stop(), 0, `restart ${i + 1}: it ends well`);
    slowestMs = Math.max(slowestMs, performance.now() - startedAt);
    place.isReady = false;
    const { role } = await start(place.name);
    place.role = role;
    await eventually(() => place.isReady);
    t.ok(sum() > before, 'there was load');
  }
  isOver = true;
  await Promise.all([...workers, asking]);
  const requests = sum();
  t.comment(
    `${requests} requests (${JSON.stringify(done)}), ${notTaken} streams named as not taken; slowest drain ${slowestMs.toFixed(0)} ms`,
  );
  t.same(failures, []);
  for (const [kind, count] of Object.entries(done)) t.ok(count > drains, `${kind}: ${count}`);
  t.ok(
    [...sayings].some((text) => text.includes('draining')),
    'and /readyz said so',
  );
  for (const { role } of places) t.equal(await role.stop(), 0);
  const outcomes = (): number =>
    readFileSync(files.events, 'utf8')
      .split('\n')
      .filter((line) => line.includes('"kind":"outcome"')).length;
  t.equal(outcomes(), requests, 'each request has its outcome on record');
});

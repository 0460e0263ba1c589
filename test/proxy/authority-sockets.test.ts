import { once } from 'node:events';
import { type ClientHttp2Session, connect as connectH2 } from 'node:http2';
import { connect as connectTls, createSecureContext, type SecureContext, type TLSSocket } from 'node:tls';
import type { Socket } from 'node:net';
import t from 'tap';
import { Fault } from '../../src/core/fault.ts';
import { field, type Recorder, startRecorder } from '../fakes/recorder.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { directoryOf } from '../support/directory.ts';
import { allowAll, dial, exchange, grantOf, type Path, startPath, target, wholeResponse } from '../support/path.ts';

/**
 * THREATS E-1 to E-3 end to end: the same product as authority-table.test.ts, as far as programs can write it, over real sockets and
 * real TLS, with one target that records. Each request has a number, so that what came with a credential is known one by one.
 */
t.setTimeout(180_000);

const hosts = { allowed: 'allowed.outrider.test', other: 'other.outrider.test', denied: 'denied.outrider.test', attacker: 'attacker.test' };
const names = Object.values(hosts);
const orAbsent = [...names, undefined];
const authority = createTestAuthority();
const workers = 12;

let origin: Recorder;
let path: Path;
/** Made once: it holds the public roots too. */
let trusting: SecureContext;
const routes = names.map((host) => ({ listen: { host: '127.0.0.1', port: 0 }, to: { scheme: 'http' as const, host, port: 80 } }));

t.before(async () => {
  const contexts = new Map(names.map((name) => [name, createSecureContext(authority.serverFor(name))]));
  const files = {
    ...authority.serverFor(hosts.attacker),
    SNICallback: (name: string, done: (error: Error | null, context?: ReturnType<typeof createSecureContext>) => void) =>
      done(null, contexts.get(name)),
  };
  origin = await startRecorder(files);
  const targets = [hosts.allowed, hosts.other, hosts.denied].map((host) => target(host.split('.')[0] as string, { hosts: [host] }));
  path = await startPath({
    dir: directoryOf(t),
    targets,
    pins: names.flatMap((host) => [
      { host, port: 80, address: '127.0.0.1', addressPort: origin.httpPort },
      { host, port: 443, address: '127.0.0.1', addressPort: origin.httpsPort },
    ]),
    trustPem: authority.pem,
    routes,
    grants: {
      get: ({ target: name }) => {
        const found = targets.find((one) => one.name === name);
        if (!found) throw new Fault('target_unknown');
        return grantOf(found, name === 'denied' ? { rules: [{ ...allowAll, effect: 'deny' }] } : {});
      },
    },
    // Whatever address a program dialled; nothing is dialled there but what passes, and to loopback nothing does.
    originalOf: () => ({ address: '127.0.0.1', port: 443 }),
  });
});
t.before(() => {
  trusting = createSecureContext({ ca: [path.bundle, authority.pem] });
});
t.teardown(async () => {
  await path?.close();
  await origin?.close();
});

interface Case {
  readonly number: number;
  readonly way: string;
  /** CONNECT's, or the reverse route's; undefined: neither. */
  readonly first: string | undefined;
  readonly sni: string | undefined;
  readonly absolute: string | undefined;
  readonly host: string | undefined;
  readonly protocol: 'h1' | 'h2';
}

const product = (
  way: string,
  o: { first: readonly (string | undefined)[]; sni: readonly (string | undefined)[]; protocols?: readonly Case['protocol'][] },
): Omit<Case, 'number'>[] =>
  (o.protocols ?? ['h1', 'h2']).flatMap((protocol) =>
    o.first.flatMap((first) =>
      o.sni.flatMap((sni) =>
        orAbsent.flatMap((absolute) => orAbsent.map((host): Omit<Case, 'number'> => ({ way, first, sni, absolute, host, protocol }))),
      ),
    ),
  );

/** TLS with whoever answers; for the name that was asked for or any other of these. */
const handshake = async (socket: Socket, sni: string | undefined, protocol: Case['protocol']): Promise<TLSSocket> => {
  const secured = connectTls({
    socket,
    secureContext: trusting,
    ...(sni === undefined ? {} : { servername: sni }),
    ALPNProtocols: [protocol === 'h2' ? 'h2' : 'http/1.1'],
    checkServerIdentity: (_host, { subjectaltname }) =>
      names.some((name) => subjectaltname === `DNS:${name}`) ? undefined : new Error(`a certificate for ${subjectaltname}`),
  });
  await once(secured, 'secureConnect');
  return secured;
};

const askH1 = async (socket: Socket, { number, absolute, host }: Case, scheme: string): Promise<string> => {
  const head = `GET ${absolute === undefined ? '/x' : `${scheme}://${absolute}/x`} HTTP/1.1\r\n${host === undefined ? '' : `Host: ${host}\r\n`}X-Case: ${number}\r\nConnection: close\r\n\r\n`;
  return exchange(socket, head, wholeResponse);
};

const askH2 = async (session: ClientHttp2Session, { number, absolute, host }: Case, scheme: string): Promise<string> => {
  const stream = session.request({
    ':method': 'GET',
    ':scheme': scheme,
    ':path': '/x',
    // Without it, Node would write the session's.
    ':authority': host ?? '',
    ...(absolute === undefined ? {} : { host: absolute }),
    'x-case': String(number),
  });
  stream.on('error', () => undefined);
  stream.resume();
  const status = new Promise<string>((resolve) => {
    stream.once('response', (fields) => resolve(`HTTP/2 ${fields[':status']}`));
    stream.once('close', () => resolve(`reset ${stream.rstCode}`));
  });
  return status;
};

/** The answer's first line, or why there was none, of each; over HTTP/2 all at once on one connection. */
const run = async (group: readonly Case[], answers: string[]): Promise<void> => {
  const [one] = group as [Case, ...Case[]];
  const all = (answer: string): void => {
    for (const { number } of group) answers[number] = answer;
  };
  const { way, first, sni, protocol } = one;
  let socket: Socket | undefined;
  try {
    const scheme = way.includes('TLS') ? 'https' : 'http';
    if (way.startsWith('explicit') && first !== undefined) {
      socket = await dial(path.port);
      const authorityOf = `${first}:${scheme === 'https' ? 443 : 80}`;
      const answer = await exchange(socket, `CONNECT ${authorityOf} HTTP/1.1\r\nHost: ${authorityOf}\r\n\r\n`, (text) =>
        text.includes('\r\n\r\n'),
      );
      if (!answer.startsWith('HTTP/1.1 200')) return all(answer);
    } else if (way.startsWith('reverse')) socket = await dial(path.routes[names.indexOf(first as string)] as number);
    else if (way.startsWith('transparent')) socket = await dial(path.transparentPort as number);
    else socket = await dial(path.port);
    if (scheme === 'https' && (first !== undefined || way.startsWith('transparent'))) socket = await handshake(socket, sni, protocol);
    if (protocol === 'h1') return all(await askH1(socket, one, scheme));
    const held = socket;
    const session = connectH2('http://unused.test', { createConnection: () => held });
    session.on('error', () => undefined);
    await Promise.all(group.map(async (each) => (answers[each.number] = await askH2(session, each, scheme))));
    session.destroy();
  } catch (error) {
    all(`broken: ${(error as NodeJS.ErrnoException).code ?? String(error)}`);
  } finally {
    socket?.destroy();
  }
};

/** All that a request says; a steered connection's address is not a name. */
const said = ({ way, first, sni, absolute, host }: Case): Set<string | undefined> => {
  const all = [first, sni, absolute, host].filter((name) => name !== undefined);
  // The forward proxy itself takes absolute URLs alone.
  if (way === 'explicit, no tunnel' && (absolute === undefined || host === undefined)) return new Set();
  // A steered connection that says no name in its first bytes is for its address alone.
  if (way.startsWith('transparent') && sni === undefined) return new Set();
  // Without :authority, or Host, there is nothing to go by.
  return host === undefined ? new Set() : new Set(all);
};

t.test('over real sockets a credential is seen where all names agree, and nowhere else', async (t) => {
  const plain = [
    ...product('explicit, no tunnel', { first: [undefined], sni: [undefined], protocols: ['h1'] }),
    ...product('explicit, clear text', { first: names, sni: [undefined] }),
    ...product('explicit, TLS', { first: names, sni: orAbsent }),
    ...product('reverse', { first: names, sni: [undefined] }),
    ...product('transparent, TLS', { first: [undefined], sni: orAbsent }),
  ];
  const cases = plain.map((one, number): Case => ({ ...one, number }));
  const groups = Object.values(
    Object.groupBy(cases, ({ way, first, sni, protocol, number }) => [way, first, sni, protocol === 'h2' ? 'h2' : number].join()),
  ) as Case[][];
  const answers: string[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let group = groups[next++]; group; group = groups[next++]) await run(group, answers);
  };
  await Promise.all(Array.from({ length: workers }, worker));

  const credentialed = new Map<number, string>();
  for (const request of origin.requests) {
    const [credential] = field(request, 'authorization');
    if (credential !== undefined) credentialed.set(Number(field(request, 'x-case')[0]), credential);
  }
  const counts: Record<string, number> = {};
  const wrong: string[] = [];
  for (const one of cases) {
    const names_ = said(one);
    const [name] = names_;
    const isDue = names_.size === 1 && (name === hosts.allowed || name === hosts.other);
    const answer = (answers[one.number] ?? 'nothing').slice(0, 15).trim();
    counts[`${one.way.split(',')[0]} ${answer.replace(/\s.*? /, ' ')}`] =
      (counts[`${one.way.split(',')[0]} ${answer.replace(/\s.*? /, ' ')}`] ?? 0) + 1;
    const credential = credentialed.get(one.number);
    const due = isDue ? `Bearer credential-for-${name.split('.')[0]}` : undefined;
    if (credential !== due) wrong.push(`${JSON.stringify(one)}: ${credential ?? 'no credential'} rather than ${due ?? 'none'}; ${answer}`);
    // What disagrees is refused: never an answer of a target, but where no target is named and all goes to one place untouched.
    const isAttackers = one.first === hosts.attacker && one.way.startsWith('explicit');
    if (names_.size > 1 && !isAttackers && !/^(?:HTTP\/1\.1 4|HTTP\/2 4|broken|reset)/.test(answer))
      wrong.push(`${JSON.stringify(one)}: ${answer}`);
  }
  t.strictSame(wrong.slice(0, 8), []);
  t.equal(wrong.length, 0);
  t.comment(`${cases.length} cases, ${credentialed.size} with a credential, ${origin.requests.length} requests at the target`);
  t.comment(JSON.stringify(counts));
  t.ok(cases.length > 1_500 && credentialed.size > 20);
});

t.test('in a tunnel every request is judged anew, and the one that differs ends it', async (t) => {
  for (const protocol of ['h1', 'h2'] as const) {
    for (const odd of [hosts.other, hosts.denied, hosts.attacker, `${hosts.allowed}:8443`, `x@${hosts.allowed}`]) {
      const before = origin.requests.length;
      const socket = await dial(path.port);
      await exchange(socket, `CONNECT ${hosts.allowed}:443 HTTP/1.1\r\nHost: ${hosts.allowed}:443\r\n\r\n`, (text) =>
        text.includes('\r\n\r\n'),
      );
      const secured = await handshake(socket, hosts.allowed, protocol);
      const answers: string[] = [];
      if (protocol === 'h1')
        for (let i = 1; i <= 10 && !secured.destroyed; i += 1) {
          const answer = await exchange(secured, `GET /${i} HTTP/1.1\r\nHost: ${i === 7 ? odd : hosts.allowed}\r\n\r\n`, wholeResponse);
          if (answer !== '') answers.push(answer.slice(9, 12));
        }
      else {
        const session = connectH2('http://unused.test', { createConnection: () => secured });
        session.on('error', () => undefined);
        for (let i = 1; i <= 10; i += 1) {
          const stream = session.request({ ':path': `/${i}`, ':authority': i === 7 ? odd : hosts.allowed, ':scheme': 'https' });
          stream.on('error', () => undefined).resume();
          const status = new Promise<string>((resolve) => {
            stream.once('response', (fields) => resolve(String(fields[':status'])));
            stream.once('close', () => resolve('reset'));
          });
          answers.push(await status);
        }
        session.destroy();
      }
      socket.destroy();
      // HTTP/2 has no user in :authority at all: Node resets the stream.
      const refused = !odd.includes('@') ? '421' : protocol === 'h1' ? '400' : 'reset';
      // HTTP/2 has no connection to be confused: the other streams are their own requests.
      const rest = protocol === 'h1' ? [] : ['200', '200', '200'];
      t.strictSame(answers, ['200', '200', '200', '200', '200', '200', refused, ...rest], `${protocol}: ${odd}`);
      t.equal(origin.requests.length - before, protocol === 'h1' ? 6 : 9);
    }
  }
});

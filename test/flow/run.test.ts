import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import type { RequestListener } from 'node:http';
import { type AddressInfo, connect, createServer } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { bundleName, environmentOf, runDirectoryVariable, trustStoreName, trustVariables } from '../../src/core/program-environment.ts';
import { limits } from '../../src/core/limits.ts';
import { directoryOf } from '../support/directory.ts';
import { freePort } from '../support/free-port.ts';
import { fromSource } from '../support/processes.ts';
import { eventually, host, prepareStack, proxyYaml } from '../support/stack.ts';

t.setTimeout(180_000);

/** `outrider run` as a person, a script or a CI job starts it, around real programs; broker, collector and target are real too. */
const echo: RequestListener = (request, response) => {
  if (request.url === '/never') return;
  response.end(JSON.stringify({ path: request.url, authorization: request.headers.authorization }));
};

const stack = await prepareStack(t, echo);
const broker = await stack.startBroker({
  // It shows what it was sent.
  targets: `  - { name: echo, hosts: [${host}], ports: [443, 80], cleartext: allowed, echo: pass, credentials: [{ provider: echo-token, placement: { kind: bearer } }] }`,
});
const collector = await stack.startCollector(broker.grpc.port);
await collector.ready();

const yaml = (brokerPort = broker.grpc.port): string => proxyYaml(stack.files, brokerPort, collector.grpc.port, stack.origin);
const config = join(stack.files.dir, 'proxy.yaml');
writeFileSync(config, yaml());
const away = join(stack.files.dir, 'proxy-of-no-broker.yaml');
// Port 9 of this machine: nobody's.
writeFileSync(away, yaml(9));

/** What a login shell would have: none of this test's own variables. */
const plain: NodeJS.ProcessEnv = { PATH: process.env['PATH'], HOME: process.env['HOME'] };

interface Started {
  readonly child: ChildProcess;
  readonly out: () => string;
  readonly err: () => string;
  /** Where it keeps its files, of this process alone. */
  readonly temporary: string;
  readonly ended: Promise<{ status: number | null; signal: NodeJS.Signals | null; out: string; err: string }>;
}

interface Starting {
  readonly environment?: NodeJS.ProcessEnv;
  readonly input?: string;
  /** Words between the configuration and the command. */
  readonly options?: readonly string[];
  readonly file?: string;
  readonly program?: readonly string[];
}

const start = (
  t: Test,
  command: readonly string[],
  { environment = {}, input, options = ['--'], file = config, program }: Starting = {},
): Started => {
  const temporary = mkdtempSync(join(stack.files.dir, 'temporary-'));
  const [node, ...rest] = program ?? [process.execPath, ...fromSource, 'run', '--config', file, ...options, ...command];
  const child = spawn(node as string, rest, { env: { ...plain, TMPDIR: temporary, ...environment }, stdio: 'pipe' });
  t.teardown(() => child.kill('SIGKILL'));
  let [out, err] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  if (input !== undefined) child.stdin.end(input);
  const ended = once(child, 'close').then(([status, signal]) => ({
    status: status as number | null,
    signal: signal as NodeJS.Signals | null,
    out,
    err,
  }));
  return { child, out: () => out, err: () => err, temporary, ended };
};

const run = (t: Test, command: readonly string[], starting: Starting = {}) => start(t, command, { input: '', ...starting }).ended;

const js = (code: string, ...args: string[]): string[] => [process.execPath, '-e', code, ...args];

const lines = (text: string): string[] => text.split('\n').filter((line) => line !== '');

t.test('curl and fetch get a credential they never had, and its use is on record when the command has ended', async (t) => {
  const before = stack.origin.requests.length;
  const script = `curl -sS https://${host}/one && echo && exec "$0" -e "$1"`;
  const fetching = `fetch('https://${host}/two').then((r) => r.text()).then((text) => console.log(text))`;
  const { status, out, err } = await run(t, ['sh', '-c', script, process.execPath, fetching]);
  t.equal(err, '');
  t.equal(status, 0);
  const answers = lines(out).map((line) => JSON.parse(line) as unknown);
  t.match(answers, [
    { path: '/one', authorization: /^Bearer eyJ/ },
    { path: '/two', authorization: /^Bearer eyJ/ },
  ]);
  t.equal(stack.origin.requests.length, before + 2);
  // Not `eventually`: the command's end came after the collector's acknowledgement.
  const recorded = stack.events().filter(({ path }) => path === '/one' || path === '/two');
  t.same(
    recorded.map(({ kind, path }) => `${String(kind)} ${String(path)}`),
    ['intent /one', 'outcome /one', 'intent /two', 'outcome /two'],
  );
});

t.test('the exit status is the command’s own', async (t) => {
  for (const wanted of [0, 7, 255]) t.equal((await run(t, ['sh', '-c', `exit ${wanted}`])).status, wanted);
});

t.test('a command that a signal ended is reported as shells do: 128 and the number of the signal', async (t) => {
  t.equal((await run(t, ['sh', '-c', 'kill -KILL $$'])).status, 137);
  t.equal((await run(t, ['sh', '-c', 'kill -SEGV $$'])).status, 139);
});

t.test('a command that is not there is 127, one that cannot be executed 126, and each says so', async (t) => {
  const missing = await run(t, ['outrider-no-such-command']);
  t.strictSame([missing.status, missing.out, missing.err], [127, '', 'outrider run: outrider-no-such-command: not found\n']);
  const directory = await run(t, ['/tmp']);
  t.strictSame([directory.status, directory.out, directory.err], [126, '', 'outrider run: /tmp: cannot be executed (EACCES)\n']);
});

t.test('a script without a first line is run by the shell, as from a shell', async (t) => {
  const file = join(directoryOf(t), 'script');
  writeFileSync(file, 'echo "$HTTPS_PROXY $1"\n', { mode: 0o755 });
  const { status, out } = await run(t, [file, 'argument']);
  t.equal(status, 0);
  t.match(out, /^http:\/\/127\.0\.0\.1:\d+ argument\n$/);
});

t.test('the command’s words are its own: "--" may be left out, and its options are not ours', async (t) => {
  const print = 'console.log(JSON.stringify(process.argv.slice(1)))';
  const words = ['--help', '--config', 'x', '--', '-h', 'two words', ''];
  for (const options of [['--'], []]) {
    const { status, out } = await run(t, [process.execPath, '-e', print, '--', ...words], { options });
    t.equal(status, 0);
    t.strictSame(JSON.parse(out), words);
  }
});

t.test('standard input is the command’s, and so is its output, however much and however slowly it is read', async (t) => {
  const megabyte = 'x'.repeat(1024 * 1024);
  const counted = await run(t, ['wc', '-c'], { input: megabyte });
  t.equal(counted.out.trim(), String(megabyte.length));
  // A pipe that one of its owners makes non-blocking is so for all: programs that do not expect it break off.
  const { child, ended } = start(t, ['sh', '-c', 'head -c 4000000 /dev/zero; echo done >&2; head -c 4000000 /dev/zero >&2'], { input: '' });
  child.stdout?.pause();
  child.stderr?.pause();
  await once(child.stdout as NodeJS.ReadableStream, 'readable');
  child.stdout?.resume();
  child.stderr?.resume();
  const { status, out, err } = await ended;
  t.equal(status, 0);
  t.equal(out.length, 4_000_000);
  t.equal(err.length, 4_000_000 + 'done\n'.length);
});

t.test('every signal that is sent to it reaches the command, once', async (t) => {
  for (const signal of ['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGUSR2'] as const) {
    const code = `let seen = 0; process.on('${signal}', () => { seen += 1; console.log('${signal}', seen); });
      process.on('message', () => {}); process.stdin.resume().on('end', () => process.exit(seen)); console.log('up');`;
    const { child, out, ended } = start(t, js(code));
    await eventually(() => out() === 'up\n');
    child.kill(signal);
    await eventually(() => out().includes(signal));
    child.stdin?.end();
    const { status } = await ended;
    t.equal(status, 1, signal);
  }
});

t.test('a signal that the command does not catch ends both, with 128 and its number', async (t) => {
  for (const [signal, status] of [
    ['SIGTERM', 143],
    ['SIGINT', 130],
    ['SIGHUP', 129],
  ] as const) {
    const { child, out, temporary, ended } = start(t, ['sh', '-c', 'echo up; exec sleep 600']);
    await eventually(() => out() === 'up\n');
    child.kill(signal);
    t.equal((await ended).status, status);
    t.strictSame(readdirSync(temporary), []);
  }
});

t.test('SIGUSR1, which would open a debugger in Node, does nothing to us and means to the command what it always did', async (t) => {
  const { child, out, ended } = start(t, ['sh', '-c', 'trap "echo own" USR1; echo up; read line; kill -USR1 $$; echo end']);
  await eventually(() => out() === 'up\n');
  child.kill('SIGUSR1');
  child.stdin?.end('line\n');
  const { status, err } = await ended;
  t.strictSame([status, out(), err], [0, 'up\nown\nend\n', '']);
});

t.test('an interrupt from a terminal reaches the command once', async (t) => {
  if (process.platform !== 'linux') return t.comment('script(1) differs elsewhere: left out');
  // The first interrupt is answered, and a second one in the same moment would be seen before the timer.
  const code = `let seen = 0; process.on('SIGINT', () => { seen += 1; setTimeout(() => process.exit(40 + seen), 300); }); console.log('u' + 'p'); setInterval(() => {}, 1e6);`;
  const file = join(directoryOf(t), 'program.cjs');
  writeFileSync(file, code);
  const line = [process.execPath, ...fromSource, 'run', '--config', config, '--', process.execPath, file]
    .map((word) => `'${word}'`)
    .join(' ');
  const { child, out, ended } = start(t, [], { program: ['script', '--quiet', '--return', '--command', `exec ${line}`, '/dev/null'] });
  await eventually(() => out().includes('up'));
  child.stdin?.write('\x03');
  t.equal((await ended).status, 41);
});

t.test('while the broker is away the command is not run: 125, with the reason, and nothing is left', async (t) => {
  const marker = join(directoryOf(t), 'ran');
  const { ended, temporary } = start(t, ['touch', marker], { file: away, options: ['--ready-timeout', '1', '--'], input: '' });
  const { status, out, err } = await ended;
  t.equal(status, 125);
  t.equal(out, '');
  t.match(
    err,
    /^outrider run: the proxy was not ready after 1 s: waiting for an identity \(broker_unavailable\) and targets from the broker$/m,
  );
  t.notOk(existsSync(marker));
  t.strictSame(readdirSync(temporary), []);
});

t.test('a wait of more than a moment is explained, and may be interrupted', async (t) => {
  const { child, err, temporary, ended } = start(t, ['true'], { file: away });
  await eventually(() => err().includes('outrider run: waiting for an identity'));
  child.kill('SIGINT');
  t.equal((await ended).status, 130);
  t.equal(lines(err()).length, 1);
  t.strictSame(readdirSync(temporary), []);
});

t.test('a broker that comes up meanwhile is waited for', async (t) => {
  const late = await prepareStack(t, echo);
  // The broker's address, where at first nobody answers: a port that was only free a moment ago may be another's by then.
  let grpcPort = 0;
  const front = createServer((socket) => {
    if (grpcPort === 0) return socket.destroy();
    const behind = connect(grpcPort, '127.0.0.1');
    for (const one of [socket, behind]) one.on('error', () => [socket, behind].forEach((end) => end.destroy()));
    return socket.pipe(behind).pipe(socket);
  }).listen(0, '127.0.0.1');
  t.teardown(() => front.close());
  await once(front, 'listening');
  const file = join(late.files.dir, 'proxy.yaml');
  writeFileSync(file, proxyYaml(late.files, (front.address() as AddressInfo).port, collector.grpc.port, late.origin));
  const { err, ended } = start(t, ['echo', 'ran'], { file, input: '' });
  await eventually(() => err().includes('waiting for'));
  grpcPort = (await late.startBroker()).grpc.port;
  const { status, out } = await ended;
  t.strictSame([status, out], [0, 'ran\n']);
});

t.test('the environment has all that is promised, in a private directory that goes with the command', async (t) => {
  const { temporary, child, out, ended } = start(t, js('console.log(JSON.stringify(process.env)); process.stdin.resume()'));
  const environment = await eventually(() => (out().endsWith('\n') ? (JSON.parse(out()) as Record<string, string>) : undefined));
  const directory = environment[runDirectoryVariable] as string;
  t.equal(join(directory, '..'), temporary);
  t.equal(statSync(directory).mode & 0o777, 0o700);
  const place = {
    host: '127.0.0.1',
    port: Number(new URL(environment['HTTPS_PROXY'] as string).port),
    bundleFile: join(directory, bundleName),
    trustStoreFile: join(directory, trustStoreName),
  };
  t.match(environment, { ...environmentOf(place), PATH: plain['PATH'], TMPDIR: temporary });
  t.match(readFileSync(place.bundleFile, 'utf8'), /BEGIN CERTIFICATE/);
  t.ok(statSync(place.trustStoreFile).size > 0);
  child.stdin?.end();
  t.equal((await ended).status, 0);
  t.strictSame(readdirSync(temporary), []);
});

t.test('a bundle that the user chose is kept, and the proxy is trusted beside it', async (t) => {
  const before = stack.files.originCa;
  const curl = `curl -sS https://${host}/mine && grep -c BEGIN "$CURL_CA_BUNDLE" >&2`;
  const { status, out, err } = await run(t, ['sh', '-c', curl], { environment: { CURL_CA_BUNDLE: before } });
  t.equal(status, 0);
  t.match(JSON.parse(out), { authorization: /^Bearer eyJ/ });
  t.equal(err, '2\n', "the user's one root and the proxy's authority");
  const unreadable = await run(t, ['printenv', 'CURL_CA_BUNDLE'], { environment: { CURL_CA_BUNDLE: '/nowhere/roots.pem' } });
  t.equal(unreadable.out, '/nowhere/roots.pem\n');
  t.match(unreadable.err, /^outrider run: CURL_CA_BUNDLE is kept, as its file cannot be read/);
});

t.test('a run inside a run has its own proxy, and trusts it', async (t) => {
  const inner = [process.execPath, ...fromSource, 'run', '--config', config, 'sh', '-c'];
  const script = `curl -sS https://${host}/inner && echo && echo "$HTTPS_PROXY"`;
  const outer = `echo "$HTTPS_PROXY"; exec "$@" '${script}'`;
  const { status, out, err } = await run(t, ['sh', '-c', outer, 'sh', ...inner]);
  t.equal(err, '');
  t.equal(status, 0);
  const [outerProxy, answer, innerProxy] = lines(out);
  t.match(JSON.parse(answer as string), { path: '/inner', authorization: /^Bearer eyJ/ });
  t.not(outerProxy, innerProxy);
});

t.test('reverse routes open as they are written, steering ports do not; a taken port is told, and nothing is run', async (t) => {
  const [port, steering] = [await freePort(), await freePort()];
  const file = join(stack.files.dir, 'proxy-with-route.yaml');
  writeFileSync(file, `${yaml()}routes: [{ listen: "127.0.0.1:${port}", to: "https://${host}" }]\ntransparent: { port: ${steering} }\n`);
  const { child, out, ended } = start(t, ['sh', '-c', `curl -sS --noproxy '*' http://127.0.0.1:${port}/route && read line`], { file });
  const answer = await eventually(() => (out().endsWith('}') ? out() : undefined));
  t.match(JSON.parse(answer), { path: '/route', authorization: /^Bearer eyJ/ });
  await t.rejects(once(connect(steering, '127.0.0.1'), 'connect'), { code: 'ECONNREFUSED' });
  const second = await run(t, ['echo', 'ran'], { file });
  t.match(second, { status: 125, out: '', err: new RegExp(`^outrider run: 127\\.0\\.0\\.1:${port} is in use`) });
  child.stdin?.end('\n');
  t.equal((await ended).status, 0);
});

const takesConnections = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      resolve(true);
      socket.destroy();
    });
    // Stays: a listener that closes resets what it has not accepted yet.
    socket.on('error', () => resolve(false));
  });

t.test('what the command left in flight may finish, and a signal is the wish not to wait for it', async (t) => {
  const script = `curl -sS https://${host}/never > /dev/null 2>&1 & echo $HTTPS_PROXY; read line; exit 5`;
  const { child, out, temporary, ended } = start(t, ['sh', '-c', script]);
  await eventually(() => stack.origin.requests.some(({ url }) => url === '/never'));
  const port = Number(new URL(out()).port);
  child.stdin?.end('\n');
  // It takes no new connections, so the command has ended; and it is still there.
  await eventually(async () => !(await takesConnections(port)));
  t.equal(child.exitCode, null);
  const begun = performance.now();
  child.kill('SIGTERM');
  t.equal((await ended).status, 5, "the command's own status");
  t.ok(performance.now() - begun < limits.requestDrainMs / 2);
  t.strictSame(readdirSync(temporary), []);
});

t.test('what is wrong with the arguments or the configuration is 125 too, and nothing is run', async (t) => {
  const bad = join(stack.files.dir, 'bad.yaml');
  writeFileSync(bad, `${yaml()}unknown: 1\n`);
  for (const [starting, sentence] of [
    [{ file: bad }, /bad\.yaml:\d+:1 unknown: is not a known key/],
    [{ file: join(stack.files.dir, 'none.yaml') }, /none\.yaml:1:1 there is no such file/],
    [{ options: ['--ready-timeout', 'soon', '--'] }, /--ready-timeout takes a whole number of seconds/],
    [{ options: ['--no-such-option', '--'] }, /Unknown option/],
  ] as const) {
    const { status, out, err } = await run(t, ['echo', 'ran'], starting);
    t.strictSame([status, out], [125, '']);
    t.match(err, sentence);
  }
  t.match(await run(t, []), { status: 125, out: '', err: /^run needs a command/ });
});

t.test('should the proxy crash, the command is told to end', async (t) => {
  const code = 'process.on("SIGTERM", () => { console.log("told"); process.exit(3); }); console.log("up"); setInterval(() => {}, 1e6)';
  const crash = `data:text/javascript,process.on('SIGCONT', () => { throw new TypeError('a bug'); })`;
  const program = [process.execPath, '--import', crash, ...fromSource, 'run', '--config', config, '--', ...js(code)];
  const { child, out, temporary, ended } = start(t, [], { program });
  await eventually(() => out() === 'up\n');
  child.kill('SIGCONT');
  const { status, err } = await ended;
  t.equal(status, 1);
  t.equal(out(), 'up\ntold\n');
  t.match(err, /"name":"TypeError"/);
  t.strictSame(readdirSync(temporary), []);
});

t.test('every trust variable is in the help', async (t) => {
  const { status, out } = await run(t, [], { options: ['--help'] });
  t.equal(status, 0);
  for (const { name } of trustVariables) t.match(out, name);
});

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { buildBundle } from '../../scripts/build.ts';
import { coreWarning, exposures, type ProcessFacts, wordsOf } from '../../src/cli/hardening.ts';
import { dial, exchange, wholeResponse } from '../support/path.ts';
import { fromBundle, imageFlags, startRole } from '../support/processes.ts';
import { brokerYaml, collectorYaml, host, prepareStack, proxyYaml } from '../support/stack.ts';

/** What is left to read of a running role, as the image starts it: nothing that is secret (THREATS D-1, D-2, D-4). */

t.setTimeout(240_000);
const bundle = mkdtempSync(join(tmpdir(), 'outrider-hardening-'));
t.teardown(() => rmSync(bundle, { recursive: true }));
t.before(() => buildBundle(bundle));

const unverified = ['NODE_TLS_REJECT', 'UNAUTHORIZED'].join('_');
const facts = (changes: Partial<ProcessFacts> = {}): ProcessFacts => ({
  options: [...imageFlags],
  environment: {},
  isInspected: false,
  report: { reportOnSignal: false, reportOnFatalError: false, reportOnUncaughtException: false },
  coreBytes: 0,
  ...changes,
});

t.test('each of the ways to read a process from outside is a reason not to start, said in one sentence', (t) => {
  t.same(exposures(facts()), []);
  t.same(exposures(facts({ options: ['--max-old-space-size=200', '--import=file:///x'], environment: { NODE_DEBUG: 'module' } })), []);
  for (const option of [
    '--inspect',
    '--inspect=0.0.0.0:9229',
    '--inspect-brk',
    '--heapsnapshot-signal=SIGUSR2',
    '--heapsnapshot_near_heap_limit=3',
    '--heap-prof',
    '--report-on-signal',
    '--report-on-fatalerror',
    '--report-uncaught-exception',
    '--abort-on-uncaught-exception',
    '--tls-keylog=/tmp/keys',
    '--trace-tls',
    ['--insec', 'ure-http-parser'].join(''),
  ])
    t.match(exposures(facts({ options: [option] })), [/^Node's option --.*: take it off/], option);
  for (const debug of ['http', 'tls,net', 'HTTP2', '*', 'module http', 'ht*'])
    t.match(exposures(facts({ environment: { NODE_DEBUG: debug } })), [/NODE_DEBUG/], debug);
  t.match(exposures(facts({ environment: { [unverified]: '0' } })), [new RegExp(unverified)]);
  t.match(exposures(facts({ isInspected: true })), [/debugger is open/]);
  t.match(exposures(facts({ report: { reportOnSignal: true, reportOnFatalError: false, reportOnUncaughtException: false } })), [/reports/]);
  t.equal(exposures(facts({ options: ['--inspect', '--tls-keylog=x'], isInspected: true })).length, 2);
  t.equal(coreWarning({ coreBytes: 0 }), undefined);
  t.equal(coreWarning({ coreBytes: undefined }), undefined);
  t.match(coreWarning({ coreBytes: Number.POSITIVE_INFINITY }), /ulimit -c 0/);
  t.end();
});

const ended = async (t: Test, role: string, file: string, program: readonly string[], env: NodeJS.ProcessEnv) => {
  // Node that counts lines waits for its debugger to leave, where it was given one; and spawn() hands the variable down unless the
  // environment has the name.
  const without = { ...process.env, NODE_V8_COVERAGE: undefined };
  const child = spawn(process.execPath, [...program, role, '--config', file], { env: { ...without, ...env }, stdio: 'pipe' });
  t.teardown(() => child.kill('SIGKILL'));
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (said += chunk));
  const [code] = await once(child, 'close');
  return { code, said };
};

t.test('the words of NODE_OPTIONS are those that Node reads, quoted or not', (t) => {
  for (const text of [
    '--heapsnapshot-signal=SIGUSR2',
    '"--heapsnapshot-signal=SIGUSR2"  --title=a',
    '--heapsnap"shot-signal=SIGUSR2"',
    '"--heapsnapshot\\-signal=SIGUSR2" "--title=a \\"b\\" c"',
    '--title="a b" --heapsnapshot-signal="SIGUSR2"',
  ]) {
    const seen = spawnSync(process.execPath, ['-p', "process.kill(process.pid, 'SIGUSR2')"], {
      cwd: t.testdir(),
      env: { NODE_OPTIONS: text, NODE_V8_COVERAGE: undefined },
    });
    t.equal(seen.signal, null, `Node reads the option in ${text}`);
    t.match(exposures(facts({ options: wordsOf(text) })), [/--heapsnapshot-signal/], text);
  }
  t.same(wordsOf(''), []);
  t.end();
});

t.test('a role that others could read does not start, whichever way it was asked for', async (t) => {
  const { files, issuer } = await prepareStack(t);
  const file = join(files.dir, 'broker.yaml');
  writeFileSync(file, brokerYaml(files, issuer.url));
  for (const [options, pattern] of [
    ['"--heapsnapshot-signal=SIGUSR2"', /--heapsnapshot-signal writes the memory to a file/],
    ['--report-on-signal', /--report-on-signal writes the environment/],
    ['--inspect=127.0.0.1:0', /--inspect opens a debugger/],
    [`--tls-keylog=${files.dir}/keys`, /--tls-keylog/],
  ] as const) {
    const { code, said } = await ended(t, 'broker', file, fromBundle(bundle), { NODE_OPTIONS: options });
    t.equal(code, 1, options);
    t.match(said, pattern);
    t.notMatch(said, /broker listens/);
  }
  const onLine = await ended(t, 'broker', file, ['--report-on-fatalerror', ...fromBundle(bundle)], {});
  t.match(onLine, { code: 1, said: /--report-on-fatalerror/ });
});

t.test('code in strings does not run under the options of the image', (t) => {
  const attempts = [
    "eval('1')",
    "new Function('return 1')()",
    "(async () => {}).constructor('return 1')()",
    "(function* () {}).constructor('')()",
  ];
  const script = attempts.map((one) => `try { ${one}; console.log('ran'); } catch (error) { console.log(error.name); }`).join('\n');
  const { stdout } = spawnSync(process.execPath, [...imageFlags, '--input-type=module', '-e', script], { encoding: 'utf8' });
  t.same(
    stdout.trim().split('\n'),
    attempts.map(() => 'EvalError'),
  );
  t.ok(imageFlags.includes('--disable-sigusr1'));
  t.end();
});

/** Ports that a process listens on, by what the kernel says of its descriptors. */
const listeningPorts = (pid: number): number[] => {
  const inodes = new Set(linksOf(pid).flatMap(([, link]) => /^socket:\[(\d+)\]$/.exec(link)?.[1] ?? []));
  return ['tcp', 'tcp6'].flatMap((table) =>
    readFileSync(`/proc/${pid}/net/${table}`, 'utf8')
      .split('\n')
      .slice(1)
      .map((line) => line.trim().split(/\s+/))
      .filter((columns) => columns[3] === '0A' && inodes.has(columns[9] as string))
      .map((columns) => Number.parseInt((columns[1] as string).split(':')[1] as string, 16)),
  );
};
const linksOf = (pid: number): [name: string, link: string][] =>
  readdirSync(`/proc/${pid}/fd`).flatMap((name) => {
    try {
      return [[name, readlinkSync(`/proc/${pid}/fd/${name}`)]];
    } catch {
      return [];
    }
  });

t.test('the roles as the image starts them: no debugger, no dump, and no secret in arguments, environment or open files', async (t) => {
  if (!existsSync('/proc/self/fd')) return t.comment('left out: there is no /proc');
  const canary = `canary-${randomBytes(12).toString('hex')}`;
  const { files, issuer, origin } = await prepareStack(t);
  const secret = join(files.dir, 'secret');
  writeFileSync(secret, canary);
  const program = fromBundle(bundle);
  const changes = {
    providers: `  - { kind: static_file, name: echo-token, file: "${secret}" }`,
  };
  const broker = await startRole(t, 'broker', files.dir, brokerYaml(files, issuer.url, changes), program);
  const collector = await startRole(t, 'collector', files.dir, collectorYaml(files, broker.ports['gRPC'] as number), program);
  const settings = proxyYaml(files, broker.ports['gRPC'] as number, collector.ports['gRPC'] as number, origin);
  const proxy = await startRole(t, 'proxy', files.dir, settings, program);
  await Promise.all([collector.ready, proxy.ready]);
  const ask = async (): Promise<string> => {
    const socket = await dial(proxy.ports['proxy'] as number);
    const answer = await exchange(socket, `GET http://${host}/x HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`, wholeResponse);
    socket.destroy();
    return answer;
  };
  t.match(await ask(), /^HTTP\/1\.1 200 /);
  t.match(origin.raw().join(''), canary, 'the proxy holds the credential');

  // What `outrider run` starts: its environment is the program's to read.
  const script = 'cat /proc/$$/environ; cat /proc/$PPID/environ; curl -s "http://$0/x"';
  const running = spawn(process.execPath, [...program, 'run', '--config', join(files.dir, 'proxy.yaml'), '--', 'sh', '-c', script, host]);
  t.teardown(() => running.kill('SIGKILL'));
  let said = '';
  for (const stream of [running.stdout, running.stderr]) stream.on('data', (chunk: Buffer) => (said += chunk));
  t.equal((await once(running, 'close'))[0], 0, said);
  t.match(said, /HTTPS_PROXY=/i);
  t.match(said, /ok$/, 'its request was answered');
  t.notMatch(said, canary);

  const before = new Set(readdirSync(files.dir));
  for (const [role, { child, output, ports: named }] of Object.entries({ broker, collector, proxy })) {
    const pid = child.pid as number;
    const ports = listeningPorts(pid).toSorted((one, other) => one - other);
    t.ok(ports.length >= 2, `${role} listens on ${ports.join(', ')}`);
    child.kill('SIGUSR1');
    t.match(await (await fetch(`http://127.0.0.1:${named['admin']}/livez`)).text(), 'ok');
    t.same(
      listeningPorts(pid).toSorted((one, other) => one - other),
      ports,
      `${role}: SIGUSR1 opens no debugger`,
    );
    t.notMatch(output(), /Debugger listening/);
    for (const name of ['cmdline', 'environ']) t.notMatch(readFileSync(`/proc/${pid}/${name}`, 'latin1'), canary, `${role}: ${name}`);
    for (const [fd, link] of linksOf(pid)) {
      if (!link.startsWith('/') || !existsSync(link) || !statSync(link).isFile()) continue;
      t.notMatch(readFileSync(link, 'latin1'), canary, `${role}: descriptor ${fd}, ${link}`);
    }
  }
  t.match(await ask(), /^HTTP\/1\.1 200 /, 'and they serve on');
  // Nobody answers this signal: it ends the process, as it does any other, and writes nothing.
  proxy.child.kill('SIGUSR2');
  t.same(await once(proxy.child, 'exit'), [null, 'SIGUSR2']);
  t.same(
    readdirSync(files.dir).filter((name) => !before.has(name)),
    [],
    'no file was written',
  );
  for (const { output } of [broker, collector, proxy]) t.notMatch(output(), canary);
});

t.test('without the option of the image SIGUSR1 opens no debugger either', async (t) => {
  const { files, issuer } = await prepareStack(t);
  const program = fromBundle(bundle).filter((one) => one !== '--disable-sigusr1');
  const broker = await startRole(t, 'broker', files.dir, brokerYaml(files, issuer.url), program);
  const ports = listeningPorts(broker.child.pid as number).toSorted((one, other) => one - other);
  broker.child.kill('SIGUSR1');
  t.match(await (await fetch(`http://127.0.0.1:${broker.ports['admin']}/livez`)).text(), 'ok');
  t.same(
    listeningPorts(broker.child.pid as number).toSorted((one, other) => one - other),
    ports,
  );
  t.notMatch(broker.output(), /Debugger listening/);
});

t.test('where a core file may be written the role says so, and where none may be it does not', async (t) => {
  const { files, issuer } = await prepareStack(t);
  const under = (size: string) => ({ command: ['sh', '-c', `ulimit -c ${size} && exec "$0" "$@"`, process.execPath] });
  const silent = await startRole(t, 'broker', files.dir, brokerYaml(files, issuer.url), fromBundle(bundle), under('0'));
  t.notMatch(silent.output(), /core limit/);
  t.equal(await silent.stop(), 0);
  if (spawnSync('sh', ['-c', 'ulimit -c unlimited']).status !== 0) return t.comment('left out: this user may not raise the limit');
  const warned = await startRole(t, 'broker', files.dir, brokerYaml(files, issuer.url), fromBundle(bundle), under('unlimited'));
  t.match(warned.output(), /broker: if this process crashed.*core limit of 0/);
});

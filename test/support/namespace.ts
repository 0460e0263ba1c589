/**
 * A pod's network, for real: a network namespace with a link to the test's own side, IPv4 and IPv6, names of its own in /etc/hosts, and
 * programs run in it under a user of their choice. And the whole stack around one: the proxy inside, behind rules that `outrider steer`
 * installed; broker, collector and origin outside. Needs root and iptables.
 */
import { type ChildProcess, execFileSync, spawn, type SpawnOptions } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { RequestListener } from 'node:http';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { type BrokerYaml, collectorId, host, prepareStack, type Stack } from './stack.ts';
import { fromSource } from './processes.ts';

export interface Finished {
  readonly status: number | null;
  readonly out: string;
  readonly err: string;
}

export interface RunOptions {
  /** Default: the test's own user, which is not the proxy's. */
  readonly uid?: number;
  readonly env?: NodeJS.ProcessEnv;
  readonly input?: string;
  readonly timeoutMs?: number;
}

export interface Addresses {
  readonly ipv4: string;
  readonly ipv6: string;
}

export interface Pod {
  readonly name: string;
  /** The pod's own end of the link. */
  readonly inside: Addresses;
  /** The test's end: servers listen here, and the pod reaches them. A second pair is for whoever is not meant. */
  readonly outside: Addresses;
  readonly elsewhere: Addresses;
  /** What names mean in the pod from now on. */
  readonly nameHosts: (hosts: Readonly<Record<string, readonly string[]>>) => void;
  readonly start: (program: string, args: readonly string[], options?: RunOptions) => ChildProcess;
  readonly run: (program: string, args: readonly string[], options?: RunOptions) => Promise<Finished>;
  /** An `outrider` command in the pod, from source. */
  readonly outrider: (...args: readonly string[]) => Promise<Finished>;
}

/** The user that the image runs as. */
export const proxyUid = 65_532;

const can = (program: string, ...args: readonly string[]): boolean => {
  try {
    execFileSync(program, args, { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
};

/** What is missing for a pod here, or undefined. */
export const podObstacle = (): string | undefined => {
  if (process.platform !== 'linux') return 'network namespaces are a thing of Linux';
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  const missing = [
    ['ip', '-V'],
    ['iptables', '-V'],
    ['ip6tables', '-V'],
    ['setpriv', '--version'],
  ].filter(([program, version]) => !can(program as string, version as string));
  if (missing.length > 0) return `${missing.map(([program]) => program).join(', ')} is not installed`;
  const probe = `orp${process.pid}`;
  if (!can('ip', 'netns', 'add', probe)) return 'no network namespace may be made here';
  const hasTables = ['iptables', 'ip6tables'].every((program) => can('ip', 'netns', 'exec', probe, program, '-t', 'nat', '-S'));
  can('ip', 'netns', 'del', probe);
  return hasTables ? undefined : 'the kernel has no nat tables';
};

/**
 * Whether a test that needs a pod can run. OUTRIDER_REQUIRE_CLIENTS makes what is missing a failure; without it (a newcomer's machine)
 * the test is left out with a word.
 */
export const podsArePossible = (t: Test): boolean => {
  const obstacle = podObstacle();
  if (obstacle === undefined) return true;
  t.notOk(process.env['OUTRIDER_REQUIRE_CLIENTS'], `${obstacle}, where network namespaces are required`);
  t.comment(`${obstacle}: left out`);
  return false;
};

let made = 0;

const finished = async (child: ChildProcess): Promise<Finished> => {
  let [out, err] = ['', ''];
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => (out += chunk));
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => (err += chunk));
  const [status] = (await once(child, 'close')) as [number | null];
  return { status, out, err };
};

/** Addresses that no other process on this machine uses: by process id, from ranges for private use (10.192.0.0/11). */
const subnetOf = (index: number): { v4: (last: number) => string; v6: (last: number) => string } => {
  const base = (((process.pid & 0x7fff) << 2) + (index & 3)) << 4;
  return {
    v4: (last) => `10.${192 + (base >> 16)}.${(base >> 8) & 255}.${(base & 255) + last}`,
    v6: (last) => `fd6f:7574:${(process.pid & 0xffff).toString(16)}:${index.toString(16)}::${last}`,
  };
};

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

const removePod = (name: string): void => {
  // What still runs in there holds the namespace after its name is gone.
  const pids = can('ip', 'netns', 'pids', name) ? execFileSync('ip', ['netns', 'pids', name], { encoding: 'utf8' }).split('\n') : [];
  for (const pid of pids.filter((line) => /^\d+$/.test(line))) can('kill', '-KILL', pid);
  can('ip', 'link', 'del', name.replace('orp', 'orv'));
  can('ip', 'netns', 'del', name);
  rmSync(join('/etc/netns', name), { recursive: true, force: true });
};

/** Pods of test processes that were killed before they could clean up. */
const removeAbandoned = (): void => {
  const names = execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' }).matchAll(/^(orp(\d+)n\d+)\b/gm);
  for (const [, name, pid] of names) if (!isAlive(Number(pid))) removePod(name as string);
};

export const startPod = (t: Test): Pod => {
  if (made === 0) removeAbandoned();
  made += 1;
  const name = `orp${process.pid}n${made}`;
  const link = name.replace('orp', 'orv');
  const { v4, v6 } = subnetOf(made);
  const [inside, outside, elsewhere] = [1, 2, 3].map((last): Addresses => ({ ipv4: v4(last), ipv6: v6(last) })) as [
    Addresses,
    Addresses,
    Addresses,
  ];
  const etc = join('/etc/netns', name);
  const ip = (...args: readonly string[]): void => void execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  removePod(name);
  t.teardown(() => removePod(name));
  const nameHosts: Pod['nameHosts'] = (hosts) => {
    const lines = Object.entries(hosts).flatMap(([named, addresses]) => addresses.map((address) => `${address} ${named}`));
    writeFileSync(join(etc, 'hosts'), ['127.0.0.1 localhost', '::1 localhost', ...lines, ''].join('\n'));
  };
  mkdirSync(etc, { recursive: true });
  nameHosts({});
  // No name server: what is not in the file has no address, at once.
  writeFileSync(join(etc, 'resolv.conf'), '');
  ip('netns', 'add', name);
  ip('link', 'add', link, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name);
  for (const { ipv4, ipv6 } of [outside, elsewhere]) {
    ip('addr', 'add', `${ipv4}/28`, 'dev', link);
    ip('-6', 'addr', 'add', `${ipv6}/64`, 'dev', link, 'nodad');
  }
  ip('link', 'set', link, 'up');
  const within = (...args: readonly string[]): void => ip('-n', name, ...args);
  within('link', 'set', 'lo', 'up');
  within('addr', 'add', `${inside.ipv4}/28`, 'dev', 'eth0');
  within('-6', 'addr', 'add', `${inside.ipv6}/64`, 'dev', 'eth0', 'nodad');
  within('link', 'set', 'eth0', 'up');

  const start: Pod['start'] = (program, args, { uid, env = process.env, timeoutMs = 60_000 } = {}) => {
    const user = uid === undefined ? [] : ['setpriv', '--reuid', String(uid), '--regid', String(uid), '--clear-groups', ...codeRights(uid)];
    const options: SpawnOptions = { env, stdio: ['pipe', 'pipe', 'pipe'], timeout: timeoutMs, killSignal: 'SIGKILL' };
    return spawn('ip', ['netns', 'exec', name, ...user, program, ...args], options);
  };
  const run: Pod['run'] = (program, args, options = {}) => {
    const child = start(program, args, options);
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(options.input ?? '');
    return finished(child);
  };
  return {
    name,
    inside,
    outside,
    elsewhere,
    nameHosts,
    start,
    run,
    outrider: (...args) => run(process.execPath, [...fromSource, ...args]),
  };
};

/** A checkout that others may not read is read by this one capability; everywhere else the proxy has none. */
const codeRights = (uid: number): string[] => {
  const plain = ['--reuid', String(uid), '--regid', String(uid), '--clear-groups'];
  const isReadable =
    can('setpriv', ...plain, 'test', '-r', fromSource.at(-1) as string) && can('setpriv', ...plain, process.execPath, '-v');
  return isReadable ? ['--inh-caps=-all'] : ['--inh-caps=-all,+dac_read_search', '--ambient-caps=+dac_read_search'];
};

/** Listens at `address:port` and carries every byte to `toPort` of loopback, and back. */
export const relay = async (t: Test, address: string, port: number, toPort: number): Promise<void> => {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    const onward = connect({ port: toPort, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
    for (const [one, other] of [
      [socket, onward],
      [onward, socket],
    ] as const) {
      one.on('error', () => other.destroy());
      one.on('close', () => other.destroy());
      one.pipe(other);
    }
    t.teardown(() => socket.destroy());
  });
  server.listen(port, address);
  await once(server, 'listening');
  t.teardown(() => server.close());
};

export const transparentPort = 15_008;
const [listenPort, adminPort] = [15_001, 15_002];

export interface TransparentYaml extends BrokerYaml {
  readonly answer?: RequestListener;
  readonly onUnmatched?: string;
  /** More of the proxy's configuration, as YAML. */
  readonly more?: string;
  /** What runs the proxy, instead of the source: `fromBundle`. */
  readonly program?: readonly string[];
  /** More arguments of `steer install`. */
  readonly steer?: readonly string[];
}

export interface PodProxy {
  readonly child: ChildProcess;
  readonly output: () => string;
  readonly ready: Promise<void>;
  readonly stop: () => Promise<number | null>;
}

export interface TransparentStack extends Stack {
  readonly pod: Pod;
  /** The directory that the proxy reads and writes, its own; programs may read the bundle. */
  readonly podDir: string;
  readonly bundle: string;
  readonly proxy: PodProxy;
  /** A sum of the proxy's metrics, as `metric` of stack.ts. */
  readonly metric: (name: string, labels?: string) => Promise<number>;
}

const proxyYaml = (
  dir: string,
  { ipv4 }: Addresses,
  brokerPort: number,
  collectorPort: number,
  changes: TransparentYaml,
): string => `kind: proxy
listen: 127.0.0.1:${listenPort}
transparent: { port: ${transparentPort} }
admin: 127.0.0.1:${adminPort}
identity:
  broker: { address: "${ipv4}:${brokerPort}", spiffeId: spiffe://outrider.test/outrider/broker }
  brokerCaFile: ${dir}/broker-ca.pem
  tokenFile: ${dir}/token
collector: { address: "${ipv4}:${collectorPort}", spiffeId: ${collectorId} }
interception: { bundleFile: ${dir}/public/ca-bundle.pem, trustStoreFile: ${dir}/public/trust-store.p12 }
onUnmatched: ${changes.onUnmatched ?? 'tunnel'}
upstream:
  caFiles: [${dir}/origin-ca.pem]
  unmatchedPrivateAddresses: allowed
${changes.more ?? ''}
`;

/** Starts the proxy in the pod as its own user; resolves when it listens. */
export const startPodProxy = async (t: Test, pod: Pod, file: string, program: readonly string[] = fromSource): Promise<PodProxy> => {
  const child = pod.start(process.execPath, [...program, 'proxy', '--config', file], { uid: proxyUid, timeoutMs: 600_000 });
  let output = '';
  const saying = (wanted: RegExp): Promise<void> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        if (wanted.test(output)) resolve();
      };
      look();
      child.stdout?.on('data', look);
      child.once('exit', (code) => reject(new Error(`the proxy ended with ${code}: ${output}`)));
    });
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk: Buffer) => (output += chunk));
  const exited = once(child, 'exit') as Promise<[number | null]>;
  const stop = async (): Promise<number | null> => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
    return (await exited)[0];
  };
  t.teardown(stop);
  const ready = saying(/^proxy is ready$/m);
  ready.catch(() => undefined);
  await saying(/^proxy listens: /m);
  return { child, output: () => output, ready, stop };
};

/**
 * A pod with a ready proxy behind real rules. The target's name leads to the origin on the test's side, on its real ports, 443 and 80,
 * for both IP versions. Programs run by `pod.run` are steered; nothing tells them of a proxy.
 */
export const startTransparentStack = async (t: Test, changes: TransparentYaml = {}): Promise<TransparentStack> => {
  const stack = await prepareStack(t, changes.answer);
  const broker = await stack.startBroker(changes);
  const collector = await stack.startCollector(broker.grpc.port);
  await collector.ready();
  const pod = startPod(t);
  for (const port of [broker.grpc.port, collector.grpc.port]) await relay(t, pod.outside.ipv4, port, port);
  for (const address of [pod.outside.ipv4, pod.outside.ipv6]) {
    await relay(t, address, 443, stack.origin.httpsPort);
    await relay(t, address, 80, stack.origin.httpPort);
  }
  pod.nameHosts({ [host]: [pod.outside.ipv4, pod.outside.ipv6] });

  const podDir = mkdtempSync(join(tmpdir(), 'outrider-pod-'));
  t.teardown(() => rmSync(podDir, { recursive: true, force: true }));
  mkdirSync(join(podDir, 'public'));
  for (const [from, name] of [
    [stack.files.brokerCa, 'broker-ca.pem'],
    [stack.files.originCa, 'origin-ca.pem'],
    [stack.files.token, 'token'],
  ] as const) {
    copyFileSync(from, join(podDir, name));
    chmodSync(join(podDir, name), 0o600);
  }
  const file = join(podDir, 'proxy.yaml');
  writeFileSync(file, proxyYaml(podDir, pod.outside, broker.grpc.port, collector.grpc.port, changes));
  for (const owned of ['', 'public', 'broker-ca.pem', 'origin-ca.pem', 'token', 'proxy.yaml'])
    chownSync(join(podDir, owned), proxyUid, proxyUid);
  chmodSync(podDir, 0o755);

  const installed = await pod.outrider(
    'steer',
    'install',
    '--to',
    String(transparentPort),
    '--except-uid',
    String(proxyUid),
    ...(changes.steer ?? []),
  );
  if (installed.status !== 0) throw new Error(`steer install failed: ${installed.err}`);
  const proxy = await startPodProxy(t, pod, file, changes.program);
  await proxy.ready;
  return {
    ...stack,
    pod,
    podDir,
    bundle: join(podDir, 'public/ca-bundle.pem'),
    proxy,
    metric: async (name, labels = '') => {
      const { out } = await pod.run('curl', ['--silent', '--fail', `http://127.0.0.1:${adminPort}/metrics`]);
      return out
        .split('\n')
        .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
        .filter((line) => line.includes(labels))
        .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
    },
  };
};

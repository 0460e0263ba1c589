/**
 * The cluster's network: a network namespace with a bridge, in which the control plane runs; a namespace for each pod, linked to that bridge;
 * and a link by which the test reaches them all. Addresses are unique for each run (10.224.0.0/11), nothing leaves the machine, and there
 * is no way from one namespace to anywhere but the bridge and the addresses of Services. Needs root.
 */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';

export interface Network {
  /** Of the control plane, where the API server listens. */
  readonly controlPlane: string;
  /** Of the test: servers that it starts for pods listen here. */
  readonly test: string;
  /** Of the Service `kubernetes`, and the range of all Services. */
  readonly apiService: string;
  readonly serviceRange: string;
  /** A second one of the test's. */
  readonly elsewhere: string;
  /** `[program, …args]` so that it runs beside the control plane. */
  readonly within: (command: readonly string[], sandbox?: Sandbox) => readonly [string, ...string[]];
  readonly createSandbox: () => Sandbox;
  readonly close: () => void;
}

/** A pod's network. */
export interface Sandbox {
  readonly name: string;
  readonly address: string;
  readonly close: () => void;
}

const prefix = 'ork';

const ip = (...args: readonly string[]): string => execFileSync('ip', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

const tryIp = (...args: readonly string[]): boolean => {
  try {
    ip(...args);
    return true;
  } catch {
    return false;
  }
};

const isAlive = (pid: number): boolean => existsSync(`/proc/${pid}`);

const pidsIn = (name: string): number[] => {
  try {
    return ip('netns', 'pids', name).split('\n').filter(Boolean).map(Number);
  } catch {
    return [];
  }
};

/** What runs in a namespace ends with it. */
const removeNamespace = (name: string): void => {
  for (const pid of pidsIn(name)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It has ended meanwhile.
    }
  }
  tryIp('netns', 'del', name);
};

/** Namespaces of test processes that were killed before they could clean up. */
const removeAbandoned = (): void => {
  for (const [, name, pid] of ip('netns', 'list').matchAll(new RegExp(`^(${prefix}(\\d+)(?:p\\d+)?)\\b`, 'gm'))) {
    if (!isAlive(Number(pid))) removeNamespace(name as string);
  }
};

/** A /22 that no other run uses: by process id, then the next that is free. */
const freeSubnet = (): ((index: number) => string) => {
  const taken = ip('-4', '-oneline', 'addr', 'show');
  for (let attempt = 0; attempt < 2048; attempt += 1) {
    const base = ((process.pid + attempt) % 2048) * 1024;
    const at = (index: number): string => {
      const value = base + index;
      return `10.${224 + (value >> 16)}.${(value >> 8) & 255}.${value & 255}`;
    };
    if (!taken.includes(` ${at(2)}/`)) return at;
  }
  throw new Error('no free addresses in 10.224.0.0/11');
};

/** The first addresses are the cluster's own. */
const firstPod = 16;
const podsMax = 1000;

const serviceRange = '10.96.0.0/16';
const apiService = '10.96.0.1';

export const createNetwork = (): Network => {
  removeAbandoned();
  const name = `${prefix}${process.pid}`;
  const link = `${prefix}v${process.pid}`;
  const at = freeSubnet();
  let pods = 0;
  ip('netns', 'add', name);
  ip('-n', name, 'link', 'set', 'lo', 'up');
  // With an address of its own: else it takes one of its ports', another when pods come and go, and neighbours that know the old one wait.
  ip('-n', name, 'link', 'add', 'br0', 'address', '02:00:00:00:00:01', 'type', 'bridge');
  ip('-n', name, 'addr', 'add', `${at(1)}/22`, 'dev', 'br0');
  ip('-n', name, 'link', 'set', 'br0', 'up');
  // Addresses of Services lead here, where rules send them on (node/services.ts); those without an endpoint lead nowhere, at once.
  ip('-n', name, 'route', 'add', 'unreachable', serviceRange);
  const settings = ['ip_forward=1', 'conf.all.send_redirects=0', 'conf.br0.send_redirects=0'].map((setting) => `net.ipv4.${setting}`);
  ip('netns', 'exec', name, 'sysctl', '--quiet', '--write', ...settings);
  ip('link', 'add', link, 'type', 'veth', 'peer', 'name', 'test', 'netns', name);
  ip('-n', name, 'link', 'set', 'test', 'master', 'br0', 'up');
  for (const index of [2, 3]) ip('addr', 'add', `${at(index)}/22`, 'dev', link);
  ip('link', 'set', link, 'up');

  const createSandbox = (): Sandbox => {
    pods += 1;
    if (pods > podsMax) throw new Error('no address is left for another pod');
    const sandbox = `${name}p${pods}`;
    const address = at(firstPod + pods);
    ip('netns', 'add', sandbox);
    ip('-n', name, 'link', 'add', `p${pods}`, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', sandbox);
    ip('-n', name, 'link', 'set', `p${pods}`, 'master', 'br0', 'up');
    ip('-n', sandbox, 'link', 'set', 'lo', 'up');
    ip('-n', sandbox, 'addr', 'add', `${address}/22`, 'dev', 'eth0');
    ip('-n', sandbox, 'link', 'set', 'eth0', 'up');
    ip('-n', sandbox, 'route', 'add', 'default', 'via', at(1));
    return { name: sandbox, address, close: () => removeNamespace(sandbox) };
  };
  return {
    controlPlane: at(1),
    apiService,
    serviceRange,
    test: at(2),
    elsewhere: at(3),
    within: (command, sandbox) => ['nsenter', `--net=/run/netns/${sandbox?.name ?? name}`, '--', ...command],
    createSandbox,
    close: () => {
      for (let pod = 1; pod <= pods; pod += 1) if (existsSync(`/run/netns/${name}p${pod}`)) removeNamespace(`${name}p${pod}`);
      removeNamespace(name);
      tryIp('link', 'del', link);
    },
  };
};

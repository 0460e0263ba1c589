/**
 * A whole cluster for a test file: network, control plane, node, and Helm. Removed with the test, also when it fails; then the ends of all logs
 * are shown. Needs root and what prepare.ts builds.
 */
import { execFile } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import type { Test } from 'tap';
import { podObstacle } from '../support/namespace.ts';
import type { Api } from './api.ts';
import { type ControlPlane, startControlPlane } from './control-plane.ts';
import { createNetwork, type Network } from './network.ts';
import { type Node, startNode } from './node.ts';
import { binary, missingBinaries } from './prepare.ts';

export interface Cluster {
  readonly api: Api;
  readonly network: Network;
  readonly controlPlane: ControlPlane;
  readonly node: Node;
  /** For what the test writes. */
  readonly directory: string;
  readonly chart: string;
  readonly helm: (...args: readonly string[]) => Promise<string>;
}

const root = join(import.meta.dirname, '../..');
const built = join(root, 'dist');

/** What is missing for a cluster here, or undefined. */
const obstacle = (): string | undefined => {
  const missing = missingBinaries();
  if (missing.length > 0) return `${missing.join(', ')} is not built ("npm run pretest:kubernetes" does it)`;
  if (!existsSync(join(built, 'main.js'))) return 'there is no bundle ("npm run build" makes it)';
  return podObstacle();
};

/** As podsArePossible: left out with a word, unless OUTRIDER_REQUIRE_CLIENTS is set. */
export const clustersArePossible = (t: Test): boolean => {
  const found = obstacle();
  if (found === undefined) return true;
  t.notOk(process.env['OUTRIDER_REQUIRE_CLIENTS'], `${found}, where clusters are required`);
  t.comment(`${found}: left out`);
  return false;
};

const start = promisify(execFile);

export const startCluster = async (t: Test): Promise<Cluster> => {
  const directory = mkdtempSync(join(tmpdir(), 'outrider-cluster-'));
  chmodSync(directory, 0o755);
  const memory = existsSync('/dev/shm') ? mkdtempSync('/dev/shm/outrider-cluster-') : join(directory, 'memory');
  mkdirSync(memory, { recursive: true });
  const network = createNetwork();
  const closing: (() => Promise<void> | void)[] = [
    () => network.close(),
    () => {
      for (const made of [directory, memory]) rmSync(made, { recursive: true, force: true });
    },
  ];
  let logs: () => readonly string[] = () => [];
  t.teardown(async () => {
    if (!t.passing()) for (const line of logs()) t.comment(line);
    for (const close of closing) await close();
  });
  // Copies: what a test installs and runs is one thing, also while somebody edits or builds.
  const [chart, bundle] = [join(directory, 'chart'), join(directory, 'bundle')];
  cpSync(join(root, 'charts/outrider'), chart, { recursive: true });
  cpSync(built, bundle, { recursive: true });
  const controlPlane = await startControlPlane(network, join(directory, 'control-plane'));
  closing.unshift(controlPlane.close);
  const node = await startNode(controlPlane.api, network, join(directory, 'node'), memory, bundle);
  closing.unshift(node.close);
  const endOf = (text: string): string =>
    text
      .trimEnd()
      .split('\n')
      .slice(-5)
      .map((line) => line.slice(0, 250))
      .join('\n');
  logs = () => [
    ...(['kube-apiserver', 'kube-controller-manager'] as const).map((name) => `${name}:\n${endOf(controlPlane.tail(name))}`),
    ...node
      .logFiles()
      .filter(existsSync)
      .map((file) => `${basename(file)}:\n${endOf(readFileSync(file, 'utf8'))}`),
  ];

  const helm: Cluster['helm'] = async (...args) => {
    const home = join(directory, 'helm');
    const env = { PATH: process.env['PATH'], HOME: home, KUBECONFIG: controlPlane.kubeconfig };
    try {
      return (await start(binary('helm'), args, { env, timeout: 180_000, maxBuffer: 2 ** 26 })).stdout;
    } catch (error) {
      const { stdout = '', stderr = '', message } = error as Error & { stdout?: string; stderr?: string };
      throw new Error(`helm ${args.join(' ')}: ${stderr || message}\n${stdout}`, { cause: error });
    }
  };
  return { api: controlPlane.api, network, controlPlane, node, directory, chart, helm };
};

/**
 * Programs that judge the chart: helm and promtool. Helm is OUTRIDER_HELM, the one that test/kubernetes/prepare.ts builds, or one on PATH.
 * Where there is none, tests say so and leave the case out, unless OUTRIDER_REQUIRE_CLIENTS is set.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import type { Test } from 'tap';
import { parseAllDocuments } from 'yaml';
import { binary } from '../kubernetes/prepare.ts';
import { root } from './source-tree.ts';

export const chart = join(root, 'charts/outrider');

const onPath = (name: string): string | undefined =>
  (process.env['PATH'] ?? '')
    .split(delimiter)
    .map((dir) => join(dir, name))
    .find((file) => existsSync(file));

/** Built by test/kubernetes/prepare.ts. */
const built = existsSync(binary('helm')) ? binary('helm') : undefined;

const helm = process.env['OUTRIDER_HELM'] ?? built ?? onPath('helm');
const promtool = onPath('promtool');

/** Runs `body` with the program, or says that it was left out. */
const having =
  (name: string, program: string | undefined) =>
  (t: Test): boolean => {
    if (program !== undefined) return true;
    if (process.env['OUTRIDER_REQUIRE_CLIENTS'] === undefined) t.comment(`left out: there is no ${name} here`);
    else t.fail(`there is no ${name} here`);
    return false;
  };
export const hasHelm = (t: Test): boolean => having('helm', helm)(t);
export const hasPromtool = (t: Test): boolean => having('promtool', promtool)(t);

export interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

const run = (program: string | undefined, args: readonly string[], env: NodeJS.ProcessEnv = process.env): Ended => {
  const { status, stdout, stderr } = spawnSync(program as string, args, { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024, env });
  return { status, stdout, stderr };
};

/** Helm with a home of its own: what is configured on this machine is none of the test's business. */
export const runHelm = (...args: readonly string[]): Ended => {
  const home = mkdtempSync(join(tmpdir(), 'outrider-helm-'));
  try {
    const { PATH } = process.env;
    return run(helm, args, { PATH, HOME: home, HELM_CONFIG_HOME: home, HELM_CACHE_HOME: home, HELM_DATA_HOME: home });
  } finally {
    rmSync(home, { recursive: true });
  }
};
export const runPromtool = (...args: readonly string[]): Ended => run(promtool, args);

export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly [key: string]: unknown;
}

/** `helm template` for a Kubernetes version, text as it is. */
export const template = (args: readonly string[] = [], kubeVersion = '1.33.0'): Ended =>
  runHelm('template', 'outrider', chart, '--namespace', 'outrider', '--kube-version', kubeVersion, ...args);

export const manifestsIn = (text: string): Manifest[] =>
  parseAllDocuments(text)
    .map((document) => document.toJS() as Manifest | null)
    .filter((manifest) => manifest !== null);

/** Manifests for values; fails the test when there are none. */
export const render = (t: Test, args: readonly string[] = [], kubeVersion?: string): Manifest[] => {
  const { status, stdout, stderr } = template(args, kubeVersion);
  t.equal(status, 0, stderr);
  return manifestsIn(stdout);
};

export const named = (manifests: readonly Manifest[], kind: string, name: string): Manifest => {
  const found = manifests.find((manifest) => manifest.kind === kind && manifest.metadata.name === name);
  if (!found) throw new Error(`there is no ${kind} ${name}`);
  return found;
};

/**
 * `node test/kubernetes/prepare.ts`: builds what test/kubernetes runs against, with Go, from the published modules of the projects themselves:
 * kube-apiserver, kube-controller-manager, kubectl, etcd and Helm. Into a cache that later runs use (OUTRIDER_KUBERNETES_CACHE); what is there is not
 * built again. `KUBERNETES_VERSION=1.34.4` chooses another Kubernetes. Every module is pinned by its exact version, and Go checks what it
 * downloads against its sum database. What cannot be built is left out with a word, unless OUTRIDER_REQUIRE_CLIENTS is set.
 */
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';

export const defaultKubernetes = '1.37.2';
export const etcdVersion = '3.7.3';
export const helmVersion = '4.3.2';

export const kubernetesVersion = process.env['KUBERNETES_VERSION'] ?? defaultKubernetes;
const cache = process.env['OUTRIDER_KUBERNETES_CACHE'] ?? join(homedir(), '.cache/outrider-kubernetes');

export type Binary = 'etcd' | 'kube-apiserver' | 'kube-controller-manager' | 'kubectl' | 'helm';

interface Source {
  /** Folder of the cache. */
  readonly folder: string;
  readonly module: string;
  readonly version: string;
  readonly package: string;
  /** How long it takes on two cores with nothing downloaded or compiled before. */
  readonly usual: string;
  readonly linkerFlags?: string;
  readonly tags?: string;
}

const [, kubernetesMinor = ''] = kubernetesVersion.split('.');
const versionPackage = 'k8s.io/component-base/version';

const kubernetes = (name: string, usual: string): Source => ({
  folder: `kubernetes-${kubernetesVersion}`,
  module: 'k8s.io/kubernetes',
  version: `v${kubernetesVersion}`,
  package: `k8s.io/kubernetes/cmd/${name}`,
  usual,
  // What they say of themselves, which the chart's kubeVersion is compared with.
  linkerFlags: Object.entries({ gitVersion: `v${kubernetesVersion}`, gitMajor: '1', gitMinor: kubernetesMinor })
    .map(([name, value]) => `-X ${versionPackage}.${name}=${value}`)
    .join(' '),
  // Releases before 1.31 have cloud providers in them, whose module is not to be had for all of them.
  ...(Number(kubernetesMinor) < 31 ? { tags: 'providerless' } : {}),
});

const sources: Readonly<Record<Binary, Source>> = {
  etcd: {
    folder: `etcd-${etcdVersion}`,
    module: 'go.etcd.io/etcd/server/v3',
    version: `v${etcdVersion}`,
    package: 'go.etcd.io/etcd/server/v3',
    usual: 'one minute',
  },
  'kube-apiserver': kubernetes('kube-apiserver', 'four to six minutes'),
  'kube-controller-manager': kubernetes('kube-controller-manager', 'two minutes'),
  kubectl: kubernetes('kubectl', 'a minute'),
  helm: {
    folder: `helm-${helmVersion}`,
    module: 'helm.sh/helm/v4',
    version: `v${helmVersion}`,
    package: 'helm.sh/helm/v4/cmd/helm',
    usual: 'two minutes',
  },
};

/** Modules with the definitions of what operators add to the API, and where in them these are. */
const operators = {
  'cert-manager': { module: 'github.com/cert-manager/cert-manager', version: 'v1.21.2', folder: 'deploy/crds' },
  'prometheus-operator': {
    module: 'github.com/prometheus-operator/prometheus-operator',
    version: 'v0.85.0',
    folder: 'example/prometheus-operator-crd',
  },
} as const;

export type Operator = keyof typeof operators;

/** The folder with an operator's CustomResourceDefinitions, as YAML. */
export const definitions = (name: Operator): string => join(cache, `${name}-${operators[name].version}`);

export const binary = (name: Binary): string => join(cache, sources[name].folder, name);

/** What is not built yet. */
export const missingBinaries = (): readonly string[] => (Object.keys(sources) as Binary[]).filter((name) => !existsSync(binary(name)));

export const missingDefinitions = (): readonly string[] =>
  (Object.keys(operators) as Operator[]).filter((name) => !existsSync(definitions(name)));

const environment = {
  ...process.env,
  PATH: [process.env['PATH'], '/usr/local/go/bin'].join(delimiter),
  GOFLAGS: '-mod=mod -buildvcs=false',
};

const go = (directory: string, ...args: readonly string[]): string =>
  execFileSync('go', args, { cwd: directory, env: environment, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 2 ** 26 });

/**
 * A module that requires `source`. Kubernetes' own go.mod takes its staging modules (k8s.io/api and others) from its tree, which a module that
 * requires it does not have: they are published as v0.MINOR.PATCH.
 */
const moduleFile = (directory: string, { module, version }: Source): string => {
  const { GoMod: file } = JSON.parse(go(directory, 'mod', 'download', '-json', `${module}@${version}`)) as { GoMod: string };
  const text = readFileSync(file, 'utf8');
  const goVersion = /^go (\S+)/m.exec(text)?.[1] ?? '1.26';
  const staged = [...text.matchAll(/^\s*(?:replace )?(k8s\.io\/\S+) => \.\/staging/gm)].map(([, name]) => name as string);
  const published = version.replace(/^v1\./, 'v0.');
  return [
    `module components\n\ngo ${goVersion}\n\nrequire ${module} ${version}\n`,
    ...[...new Set(staged)].map((name) => `replace ${name} => ${name} ${published}`),
    '',
  ].join('\n');
};

const build = (name: Binary): void => {
  const source = sources[name];
  const folder = join(cache, source.folder);
  const directory = join(folder, 'module');
  mkdirSync(directory, { recursive: true });
  if (!existsSync(join(directory, 'go.mod'))) {
    writeFileSync(join(directory, 'go.mod'), 'module components\n');
    writeFileSync(join(directory, 'go.mod'), moduleFile(directory, source));
  }
  const made = `${binary(name)}.made`;
  go(
    directory,
    'build',
    '-trimpath',
    '-tags',
    source.tags ?? '',
    '-ldflags',
    `-s -w ${source.linkerFlags ?? ''}`,
    '-o',
    made,
    source.package,
  );
  renameSync(made, binary(name));
};

const copyDefinitions = (name: Operator): void => {
  const { module, version, folder } = operators[name];
  const made = `${definitions(name)}.made`;
  const { Dir: directory } = JSON.parse(go(cache, 'mod', 'download', '-json', `${module}@${version}`)) as { Dir: string };
  rmSync(made, { recursive: true, force: true });
  cpSync(join(directory, folder), made, { recursive: true });
  renameSync(made, definitions(name));
};

if (import.meta.main) {
  mkdirSync(cache, { recursive: true });
  for (const name of missingDefinitions() as Operator[]) {
    try {
      copyDefinitions(name);
    } catch (error) {
      console.log(`the definitions of ${name} are not to be had: ${(error as Error).message.split('\n', 1)[0]}`);
      if (process.env['OUTRIDER_REQUIRE_CLIENTS']) process.exitCode = 1;
    }
  }
  for (const name of missingBinaries() as Binary[]) {
    const { version, usual } = sources[name];
    console.log(`building ${name} ${version}; without Go's caches that takes ${usual} on two cores`);
    const begun = Date.now();
    try {
      build(name);
      console.log(`built ${name} in ${Math.round((Date.now() - begun) / 1000)} s`);
    } catch (error) {
      const { stderr = '', message } = error as Error & { stderr?: string };
      console.log(`${name} could not be built: ${message.split('\n', 1)[0]}\n${stderr.trimEnd().split('\n').slice(-10).join('\n')}`);
      rmSync(join(cache, sources[name].folder, 'module'), { recursive: true, force: true });
      if (process.env['OUTRIDER_REQUIRE_CLIENTS']) process.exitCode = 1;
    }
  }
}

/** Outrider as its chart installs it into a test's cluster, and what tests ask of it. */
import { writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import type { Kube } from './api.ts';
import type { Cluster } from './cluster.ts';
import { within } from './control-plane.ts';

export const release = 'outrider';
export const namespace = 'outrider';
export const trustDomain = 'outrider.test';
export const brokerId = `spiffe://${trustDomain}/outrider/broker`;

/** Values of the chart, as a person writes them. */
export type Values = Readonly<Record<string, unknown>>;

/** Written to a file, as the arguments of Helm that name it. */
export const valuesFile = ({ directory }: Pick<Cluster, 'directory'>, values: Values): readonly string[] => {
  const file = join(directory, 'values.json');
  writeFileSync(file, JSON.stringify({ trustDomain, ...values }));
  return ['--values', file];
};

const common = ['--namespace', namespace];

export type Role = 'broker' | 'collector' | 'injector';

/** Resolves when these roles are ready, all of them unless told otherwise. */
export const install = async (
  cluster: Cluster,
  values: Values = {},
  roles: readonly Role[] = ['broker', 'collector', 'injector'],
): Promise<void> => {
  await cluster.helm('install', release, cluster.chart, '--create-namespace', ...common, ...valuesFile(cluster, values));
  await readyRoles(cluster, roles);
};

export const upgrade = (cluster: Cluster, values: Values = {}, ...more: readonly string[]): Promise<string> =>
  cluster.helm('upgrade', release, cluster.chart, ...common, ...valuesFile(cluster, values), ...more);

const kinds: Readonly<Record<Role, string>> = { broker: 'deployments', collector: 'statefulsets', injector: 'deployments' };

/** Resolves when as many pods of the roles are ready as are wanted, all of the newest template. */
export const readyRoles = async ({ api }: Cluster, roles: readonly Role[]): Promise<void> => {
  for (const role of roles) {
    await within(`the ${role} to be ready`, 90_000, async () => {
      const found = await api.get(`/apis/apps/v1/namespaces/${namespace}/${kinds[role]}/${release}-${role}`);
      if (!found) return false;
      const { replicas, readyReplicas = 0, updatedReplicas = 0, observedGeneration } = found['status'] as Record<string, number>;
      const wanted = found['spec'].replicas as number;
      return (
        observedGeneration === found.metadata.generation && [replicas, readyReplicas, updatedReplicas].every((count) => count === wanted)
      );
    });
  }
};

/** Running pods of a role. */
export const podsOf = async ({ api }: Cluster, role: Role): Promise<readonly Kube[]> => {
  const pods = await api.list(`/api/v1/namespaces/${namespace}/pods?labelSelector=app.kubernetes.io%2Fcomponent%3D${role}`);
  return pods.filter(({ metadata, ...pod }) => metadata.deletionTimestamp === undefined && pod['status']?.phase === 'Running');
};

export const addressOf = (pod: Kube): string => pod['status'].podIP as string;

/** Of the trust domain, as the brokers published them. */
export const trustBundle = ({ api }: Cluster): Promise<string> =>
  within(
    'the trust bundle',
    20_000,
    async () => (await api.get(`/api/v1/namespaces/${namespace}/configmaps/outrider-trust`))?.['data']?.['ca.pem'] as string,
  );

/** GET in clear text: the body of a 200. */
export const httpGet = (host: string, port: number, path: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const outgoing = request({ host, port, path, agent: false, timeout: 5_000 }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
      response.on('end', () => (response.statusCode === 200 ? resolve(body) : reject(new Error(`${path}: ${response.statusCode}`))));
    });
    outgoing.on('timeout', () => outgoing.destroy(new Error(`${path}: no answer`)));
    outgoing.on('error', reject);
    outgoing.end();
  });

export const metricsPort = { broker: 15_004, collector: 15_006, injector: 15_011, proxy: 15_007 } as const;

/** One sample of a pod's metrics, summed over the series whose labels contain `labels`. */
export const metric = async (pod: Kube, port: number, name: string, labels = ''): Promise<number> =>
  (await httpGet(addressOf(pod), port, '/metrics'))
    .split('\n')
    .filter((line) => (line.startsWith(`${name}{`) || line.startsWith(`${name} `)) && line.includes(labels))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);

/** A namespace, with its default service account. */
export const createNamespace = async ({ api }: Cluster, name: string, labels: Readonly<Record<string, string>> = {}): Promise<void> => {
  await api.create('/api/v1/namespaces', { metadata: { name, labels } });
  await within(`the service account of namespace ${name}`, 20_000, () => api.get(`/api/v1/namespaces/${name}/serviceaccounts/default`));
};

/** A program's pod: a shell script, as an ordinary user. */
export const shell = (name: string, script: string, more: object = {}): object => ({
  name,
  image: 'app',
  command: ['/bin/sh', '-c', script],
  ...more,
});

export const isReady = (pod: Kube | undefined): boolean =>
  ((pod?.['status']?.conditions ?? []) as { type: string; status: string }[]).some(
    ({ type, status }) => type === 'Ready' && status === 'True',
  );

/** Resolves with the pod when it is ready. */
export const readyPod = ({ api }: Cluster, where: string, name: string, limitMs = 30_000): Promise<Kube> =>
  within(`pod ${where}/${name} to be ready`, limitMs, async () => {
    const pod = await api.get(`/api/v1/namespaces/${where}/pods/${name}`);
    if (pod?.['status']?.phase === 'Failed') throw new Error('it has failed');
    return isReady(pod) && pod;
  });

/** Resolves with the pod when its containers have ended, well or not. */
export const endedPod = ({ api }: Cluster, where: string, name: string, limitMs = 60_000): Promise<Kube> =>
  within(`pod ${where}/${name} to end`, limitMs, async () => {
    const pod = await api.get(`/api/v1/namespaces/${where}/pods/${name}`);
    return ['Succeeded', 'Failed'].includes(pod?.['status']?.phase as string) && pod;
  });

/**
 * Stands in for what of a node is not here: scheduler, kubelet, container runtime, kube-proxy, DNS and a provisioner of volumes. It registers one
 * Node, binds every pod to it and runs its containers as processes of this machine (node/process.ts says how far that goes).
 *
 * What it is not: there are no images (node/image.ts), no cgroups (limits are not enforced), no seccomp, no exec through the API, no
 * NetworkPolicy, no Windows, no hostNetwork; the scheduler looks at nothing; names are in each pod's /etc/hosts; back-off is shorter, and readiness is
 * looked for more often.
 */
import { chmodSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Api, Kube } from './api.ts';
import type { Network } from './network.ts';
import { startLogEndpoint } from './node/log-endpoint.ts';
import { graceOf, runPod, type RunningPod } from './node/pod.ts';
import { createServices } from './node/services.ts';

export const nodeName = 'stand-in';

export interface Node {
  /** A pod that runs, by its name. */
  readonly running: (namespace: string, name: string) => RunningPod | undefined;
  readonly log: (namespace: string, pod: string, container: string) => string;
  readonly logFiles: () => readonly string[];
  /** Where a claim's content is. */
  readonly claim: (namespace: string, name: string) => string;
  /** Of all pods: names that are no Services'. */
  readonly nameHosts: (hosts: Readonly<Record<string, string>>) => void;
  readonly close: () => Promise<void>;
}

const every = (periodMs: number, work: () => Promise<void>): (() => Promise<void>) => {
  let isOver = false;
  const run = async (): Promise<void> => {
    while (!isOver) {
      await work().catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, periodMs));
    }
  };
  const over = run();
  return () => {
    isOver = true;
    return over;
  };
};

export const startNode = async (api: Api, network: Network, directory: string, memory: string, bundle: string): Promise<Node> => {
  const logs = join(directory, 'logs');
  const claims = join(directory, 'claims');
  for (const made of [logs, claims, memory]) mkdirSync(made, { recursive: true });
  // Containers of any user come to their volumes through here.
  for (const made of [directory, claims, memory]) chmodSync(made, 0o755);
  const running = new Map<string, RunningPod>();
  const ending = new Map<string, Promise<void>>();
  const written = new Set<string>();
  let extra: Readonly<Record<string, string>> = {};
  const services = createServices(network);
  const logFile = (namespace: string, pod: string, container: string): string => join(logs, `${namespace}_${pod}_${container}.log`);
  const logEndpoint = await startLogEndpoint(network.test, logFile);

  await api.create('/api/v1/nodes', {
    metadata: {
      name: nodeName,
      labels: { 'kubernetes.io/hostname': nodeName, 'kubernetes.io/os': 'linux', 'topology.kubernetes.io/zone': 'here' },
    },
  });
  await api.merge(`/api/v1/nodes/${nodeName}/status`, {
    status: {
      addresses: [{ type: 'InternalIP', address: network.test }],
      daemonEndpoints: { kubeletEndpoint: { Port: logEndpoint.port } },
      capacity: { cpu: '2', memory: '8Gi', pods: '500' },
      allocatable: { cpu: '2', memory: '8Gi', pods: '500' },
      conditions: [{ type: 'Ready', status: 'True', reason: 'KubeletReady' }],
    },
  });
  const leases = '/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases';
  const lease = (): object => ({
    holderIdentity: nodeName,
    leaseDurationSeconds: 40,
    renewTime: new Date().toISOString().replace('Z', '000Z'),
  });
  await api.create(leases, { metadata: { name: nodeName }, spec: lease() });

  const claimPath = (namespace: string, name: string): string => join(claims, `${namespace}.${name}`);
  /** A volume made for the claim, which the real binder binds to it. */
  const claim = async (namespace: string, name: string): Promise<string> => {
    const found = await api.get(`/api/v1/namespaces/${namespace}/persistentvolumeclaims/${name}`);
    if (!found) throw new Error(`PersistentVolumeClaim ${name} is not there`);
    const path = claimPath(namespace, name);
    if (found['status']?.phase === 'Bound') return path;
    mkdirSync(path, { recursive: true });
    const { accessModes, resources, storageClassName } = found['spec'] as Kube;
    await api.call('POST', '/api/v1/persistentvolumes', {
      metadata: { name: `pv-${found.metadata.uid}` },
      spec: {
        accessModes,
        capacity: resources.requests,
        ...(storageClassName ? { storageClassName } : {}),
        persistentVolumeReclaimPolicy: 'Retain',
        hostPath: { path },
        claimRef: { apiVersion: 'v1', kind: 'PersistentVolumeClaim', namespace, name, uid: found.metadata.uid },
      },
    });
    throw new Error(`PersistentVolumeClaim ${name} is not bound yet`);
  };

  const start = (pod: Kube): void => {
    const { namespace = 'default', name, uid } = pod.metadata;
    running.set(
      uid,
      runPod(pod, {
        api,
        network,
        hostAddress: network.test,
        apiAddress: network.apiService,
        directory: join(directory, 'pods', uid),
        memory: join(memory, uid),
        logFile: (container) => {
          const file = logFile(namespace, name, container);
          written.add(file);
          return file;
        },
        bundle,
        claim,
        hosts: (where) => [...services.hosts(where), ...Object.entries(extra).map(([host, address]) => `${address} ${host}`)],
      }),
    );
  };

  const end = (pod: Kube): void => {
    const { namespace, name, uid } = pod.metadata;
    if (ending.has(uid)) return;
    const finish = async (): Promise<void> => {
      await running.get(uid)?.end(graceOf(pod));
      running.delete(uid);
      await api.call('DELETE', `/api/v1/namespaces/${namespace}/pods/${name}`, { gracePeriodSeconds: 0, preconditions: { uid } });
    };
    ending.set(
      uid,
      finish().catch(() => undefined),
    );
  };

  const bind = async ({ metadata: { namespace, name } }: Kube): Promise<void> => {
    const target = { apiVersion: 'v1', kind: 'Node', name: nodeName };
    await api.call('POST', `/api/v1/namespaces/${namespace}/pods/${name}/binding`, { metadata: { name }, target });
  };

  const onPod = (type: string, pod: Kube): void => {
    const { uid, deletionTimestamp } = pod.metadata;
    const isDone = ['Succeeded', 'Failed'].includes(pod['status']?.phase as string);
    if (type === 'DELETED') {
      if (running.has(uid)) end(pod);
    } else if (deletionTimestamp !== undefined) end(pod);
    else if (!pod['spec'].nodeName) void bind(pod).catch(() => undefined);
    else if (!running.has(uid) && !isDone && !ending.has(uid)) start(pod);
  };
  const watching = api.watch('/api/v1/pods', onPod);

  const removeVolumes = async (): Promise<void> => {
    for (const volume of await api.list('/api/v1/persistentvolumes')) {
      if (volume['status']?.phase !== 'Released') continue;
      await api.remove(`/api/v1/persistentvolumes/${volume.metadata.name}`);
      rmSync(volume['spec'].hostPath.path as string, { recursive: true, force: true });
    }
  };
  const routines = [
    every(250, async () => {
      services.update(...(await Promise.all([api.list('/api/v1/services'), api.list('/apis/discovery.k8s.io/v1/endpointslices')])));
      for (const one of running.values()) await one.refresh();
    }),
    every(1_000, removeVolumes),
    every(5_000, async () => {
      await api.merge(`${leases}/${nodeName}`, { spec: lease() });
    }),
  ];

  return {
    running: (namespace, name) =>
      [...running.values()].find(({ pod: { metadata } }) => metadata.namespace === namespace && metadata.name === name),
    log: (namespace, pod, container) => readFileSync(logFile(namespace, pod, container), 'utf8'),
    logFiles: () => [...written],
    claim: claimPath,
    nameHosts: (hosts) => (extra = hosts),
    close: async () => {
      watching.end();
      logEndpoint.close();
      const stopped = Promise.all(routines.map((stop) => stop()));
      // Nobody waits for what is ended in order here.
      await Promise.all([...running.values()].map((one) => one.end(0)));
      await Promise.all(ending.values());
      await stopped;
    },
  };
};

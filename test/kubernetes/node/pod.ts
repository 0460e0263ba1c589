/**
 * A pod's life as the kubelet leads it: network, volumes, init containers in order with native sidecars among them, then the app containers; its
 * status; and its end, app containers first, then the sidecars from the last to the first.
 */
import { mkdirSync, rmSync, statSync, writeFileSync, ftruncateSync, openSync, closeSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Api, Kube } from '../api.ts';
import type { Network, Sandbox } from '../network.ts';
import { type Lookups, planOf } from './container.ts';
import type { Plan } from './process.ts';
import { type RestartPolicy, supervise, type Supervised } from './supervised.ts';
import { createVolumes, type Volume } from './volume.ts';

export interface PodTerms {
  readonly api: Api;
  readonly network: Network;
  readonly hostAddress: string;
  readonly apiAddress: string;
  /** For everything that it writes. */
  readonly directory: string;
  readonly memory: string;
  readonly logFile: (container: string) => string;
  readonly bundle: string;
  readonly claim: (namespace: string, name: string) => Promise<string>;
  /** Lines of /etc/hosts for a namespace. */
  readonly hosts: (namespace: string) => readonly string[];
}

export interface RunningPod {
  readonly pod: Kube;
  readonly address: string;
  /** Where a volume's content is on this machine. */
  readonly volume: (name: string) => string;
  /** Its volumes and names, now and then. */
  readonly refresh: () => Promise<void>;
  /** Ends it within the grace and removes all that is left. */
  readonly end: (graceMs: number) => Promise<void>;
}

const isFile = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;

/** In place: it is bound as a file, and who reads meanwhile sees whole lines. */
const overwrite = (file: string, text: string): void => {
  const descriptor = openSync(file, 'r+');
  writeSync(descriptor, text, 0);
  ftruncateSync(descriptor, Buffer.byteLength(text));
  closeSync(descriptor);
};

export const runPod = (pod: Kube, terms: PodTerms): RunningPod => {
  const { api, network, directory, memory } = terms;
  const { name, namespace = 'default', uid, labels = {}, annotations = {} } = pod.metadata;
  const path = `/api/v1/namespaces/${namespace}/pods/${name}`;
  const spec = pod['spec'] as Kube;
  for (const made of [directory, memory, join(directory, 'etc'), join(directory, 'volumes')]) mkdirSync(made, { recursive: true });
  const sandbox: Sandbox = network.createSandbox();
  const startTime = new Date().toISOString().replace(/\.\d+/, '');

  const field = (wanted: string): string => {
    const keyed = /^metadata\.(labels|annotations)\['(.+)'\]$/.exec(wanted);
    if (keyed) return (keyed[1] === 'labels' ? labels : annotations)[keyed[2] as string] ?? '';
    const known: Record<string, string> = {
      'metadata.name': name,
      'metadata.namespace': namespace,
      'metadata.uid': uid,
      'spec.nodeName': spec['nodeName'] as string,
      'spec.serviceAccountName': spec['serviceAccountName'] as string,
      'status.podIP': sandbox.address,
      'status.podIPs': sandbox.address,
      'status.hostIP': terms.hostAddress,
    };
    if (wanted in known) return known[wanted] as string;
    throw new Error(`a field that nobody knows here: ${wanted}`);
  };
  const volumes: ReadonlyMap<string, Volume> = createVolumes(pod, {
    api,
    directory: join(directory, 'volumes'),
    memory,
    claim: terms.claim,
    field,
  });
  const volume = (wanted: string): string => {
    const found = volumes.get(wanted);
    if (!found) throw new Error(`pod ${name} has no volume ${wanted}`);
    return found.path;
  };
  const lookups: Lookups = {
    configMap: (wanted) => api.get(`/api/v1/namespaces/${namespace}/configmaps/${wanted}`),
    secret: (wanted) => api.get(`/api/v1/namespaces/${namespace}/secrets/${wanted}`),
    field,
    volume,
    isFile,
  };

  const etc = (file: string): string => join(directory, 'etc', file);
  const hosts = (): string =>
    ['127.0.0.1 localhost', '::1 localhost', `${sandbox.address} ${spec['hostname'] ?? name}`, ...terms.hosts(namespace), ''].join('\n');
  writeFileSync(etc('hosts'), hosts());
  // No name server: what is not in the file has no address, at once.
  writeFileSync(etc('resolv.conf'), '');
  writeFileSync(etc('hostname'), `${name}\n`);

  const plan =
    (container: Kube) =>
    (own: string): Promise<Plan> =>
      planOf(pod, container, lookups, {
        directory: own,
        log: terms.logFile(container['name'] as string),
        bundle: terms.bundle,
        inNetwork: (command) => network.within(command, sandbox),
        environment: {
          HOSTNAME: (spec['hostname'] as string | undefined) ?? name,
          KUBERNETES_SERVICE_HOST: terms.apiAddress,
          KUBERNETES_SERVICE_PORT: '443',
        },
        etc: ['hosts', 'resolv.conf', 'hostname'].map((file) => ({
          source: etc(file),
          target: `/etc/${file}`,
          isFile: true,
          isReadOnly: file !== 'hosts',
        })),
      });

  const initial: Supervised[] = [];
  const sidecars: Supervised[] = [];
  const apps: Supervised[] = [];
  let [phase, isInitialised, isOver, problem] = ['Pending', false, false, ''];

  const since = new Map<string, string>();
  const condition = (type: string, isTrue: boolean): object => {
    const now = isTrue ? 'True' : 'False';
    const key = `${type} ${now}`;
    if (!since.has(key)) {
      since.delete(`${type} ${isTrue ? 'False' : 'True'}`);
      since.set(key, new Date().toISOString().replace(/\.\d+/, ''));
    }
    return { type, status: now, lastTransitionTime: since.get(key) };
  };

  const status = (): object => {
    const statuses = (specs: readonly Kube[] = [], running: readonly Supervised[]): Kube[] =>
      specs.map(
        (one) =>
          running.find(({ name: running }) => running === one['name'])?.status() ??
          ({
            name: one['name'],
            image: one['image'],
            imageID: '',
            ready: false,
            restartCount: 0,
            state: { waiting: { reason: 'PodInitializing' } },
          } as unknown as Kube),
      );
    const isReady = isInitialised && phase === 'Running' && [...apps, ...sidecars].every((one) => one.isReady());
    return {
      phase,
      message: problem === '' ? null : problem,
      startTime,
      hostIP: terms.hostAddress,
      hostIPs: [{ ip: terms.hostAddress }],
      podIP: sandbox.address,
      podIPs: [{ ip: sandbox.address }],
      conditions: [
        condition('PodReadyToStartContainers', true),
        condition('Initialized', isInitialised),
        condition('ContainersReady', isReady),
        condition('Ready', isReady),
        condition('PodScheduled', true),
      ],
      // One that ran to its end is ready, as the kubelet has it.
      initContainerStatuses: statuses(spec['initContainers'] as Kube[], initial).map((one) =>
        one['state'].terminated?.exitCode === 0 ? { ...one, ready: true } : one,
      ),
      containerStatuses: statuses(spec['containers'] as Kube[], apps),
    };
  };

  let [isReporting, isStale, reported] = [false, false, ''];
  const report = async (): Promise<void> => {
    isStale = true;
    if (isReporting) return;
    isReporting = true;
    while (isStale && !isOver) {
      isStale = false;
      const now = status();
      if (JSON.stringify(now) === reported) continue;
      const { status: code } = await api
        .call('PATCH', `${path}/status`, { metadata: { uid }, status: now }, 'application/merge-patch+json')
        .catch(() => ({ status: 0 }));
      if (code === 200) reported = JSON.stringify(now);
      else if (code !== 404 && code !== 409) {
        isStale = true;
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }
    isReporting = false;
  };

  const begin = (container: Kube, policy: RestartPolicy): Supervised =>
    supervise({
      container,
      address: sandbox.address,
      policy,
      directory: join(directory, 'containers'),
      plan: plan(container),
      onChange: () => void report(),
    });

  const prepareVolumes = async (): Promise<void> => {
    while (!isOver) {
      try {
        for (const one of volumes.values()) await one.refresh();
        problem = '';
        return;
      } catch (error) {
        problem = (error as Error).message;
        void report();
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }
  };

  const finish = async (next: 'Succeeded' | 'Failed'): Promise<void> => {
    for (const one of sidecars.toReversed()) await one.end(graceOf(pod));
    phase = next;
    await report();
  };

  const live = async (): Promise<void> => {
    void report();
    await prepareVolumes();
    const policy = spec['restartPolicy'] as RestartPolicy;
    for (const container of (spec['initContainers'] ?? []) as Kube[]) {
      if (isOver) return;
      if (container['restartPolicy'] === 'Always') {
        const one = begin(container, 'Always');
        initial.push(one);
        sidecars.push(one);
        await Promise.race([one.started, one.ended]);
      } else {
        const one = begin(container, policy === 'Always' ? 'OnFailure' : policy);
        initial.push(one);
        const { exitCode } = await one.ended;
        if (exitCode !== 0 && !isOver) return finish('Failed');
      }
    }
    if (isOver) return;
    isInitialised = true;
    phase = 'Running';
    for (const container of spec['containers'] as Kube[]) apps.push(begin(container, policy));
    void report();
    const results = await Promise.all(apps.map((one) => one.ended));
    if (!isOver) await finish(results.every(({ exitCode }) => exitCode === 0) ? 'Succeeded' : 'Failed');
  };
  const life = live();

  return {
    pod,
    address: sandbox.address,
    volume,
    refresh: async () => {
      if (isOver) return;
      overwrite(etc('hosts'), hosts());
      // What is in a container keeps its last content when its source is gone for a moment.
      for (const one of isInitialised || sidecars.length > 0 ? volumes.values() : []) await one.refresh().catch(() => undefined);
    },
    end: async (graceMs) => {
      const until = Date.now() + graceMs;
      const left = (): number => Math.max(0, until - Date.now());
      isOver = true;
      await Promise.all([...apps, ...initial.filter((one) => !sidecars.includes(one))].map((one) => one.end(left())));
      for (const one of sidecars.toReversed()) await one.end(left());
      await life;
      sandbox.close();
      for (const made of [directory, memory]) rmSync(made, { recursive: true, force: true });
    },
  };
};

export const graceOf = (pod: Kube): number =>
  (pod.metadata.deletionGracePeriodSeconds ?? (pod['spec'].terminationGracePeriodSeconds as number | undefined) ?? 30) * 1000;

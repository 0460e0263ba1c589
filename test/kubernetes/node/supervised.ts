/** One container of a running pod: started, probed, started again when it ends and its policy says so, ended when the pod ends; and its status. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Kube } from '../api.ts';
import { probe, type Probing } from './probe.ts';
import { type ContainerProcess, type Ended, type Plan, startProcess } from './process.ts';

export type RestartPolicy = 'Always' | 'OnFailure' | 'Never';

export interface Supervised {
  readonly name: string;
  /** Resolves when it has ended for good. */
  readonly ended: Promise<Ended>;
  /** Resolves when it is started in the sense of sidecars: its startup probe passed, or it has none and runs. */
  readonly started: Promise<void>;
  readonly status: () => Kube;
  readonly isReady: () => boolean;
  /** What preStop sleeps, SIGTERM, and SIGKILL after the grace; resolves when it has ended. */
  readonly end: (graceMs: number) => Promise<void>;
}

interface Terms {
  readonly container: Kube;
  readonly address: string;
  readonly policy: RestartPolicy;
  readonly directory: string;
  /** Read anew for each start. */
  readonly plan: (directory: string) => Promise<Plan>;
  readonly onChange: () => void;
}

/** The kubelet waits ten seconds and more. */
const backOffMs = { first: 500, most: 5_000 };

export const supervise = ({ container, address, policy, directory, plan, onChange }: Terms): Supervised => {
  const name = container['name'] as string;
  const { promise: ended, resolve: hasEnded } = Promise.withResolvers<Ended>();
  const { promise: started, resolve: hasStarted } = Promise.withResolvers<void>();
  let [restarts, isEnding, isStarted, isReady] = [0, false, false, false];
  let state: Kube = { waiting: { reason: 'ContainerCreating' } } as unknown as Kube;
  let lastState: object = {};
  let current: ContainerProcess | undefined;
  let probes: Probing[] = [];
  let wake = (): void => undefined;

  const become = (change: () => void): void => {
    change();
    onChange();
  };

  const startProbes = (): void => {
    const { startupProbe, readinessProbe, livenessProbe } = container;
    const kill = (): void => current?.kill('SIGKILL');
    const afterStartup = (): void => {
      become(() => {
        isStarted = true;
        isReady = !readinessProbe;
      });
      hasStarted();
      if (readinessProbe) probes.push(probe(readinessProbe as Kube, container, address, (isGood) => become(() => (isReady = isGood))));
      if (livenessProbe) probes.push(probe(livenessProbe as Kube, container, address, (isGood) => isGood || kill()));
    };
    if (!startupProbe) return afterStartup();
    const startup = probe(startupProbe as Kube, container, address, (isGood) => {
      startup.end();
      if (isGood) afterStartup();
      else kill();
    });
    probes.push(startup);
  };

  const once = async (): Promise<Ended | undefined> => {
    const own = join(directory, `${name}.${restarts}`);
    mkdirSync(own, { recursive: true });
    let ready: Plan;
    try {
      ready = await plan(own);
    } catch (error) {
      become(() => (state = { waiting: { reason: 'CreateContainerConfigError', message: (error as Error).message } } as unknown as Kube));
      return undefined;
    }
    if (isEnding) return { exitCode: 0, signal: 0 };
    const startedAt = new Date().toISOString().replace(/\.\d+/, '');
    current = startProcess(ready);
    become(() => (state = { running: { startedAt } } as unknown as Kube));
    startProbes();
    const result = await current.exited;
    for (const one of probes) one.end();
    probes = [];
    const { exitCode, signal } = result;
    const finishedAt = new Date().toISOString().replace(/\.\d+/, '');
    become(() => {
      const reason = exitCode === 0 ? 'Completed' : 'Error';
      state = { terminated: { exitCode, ...(signal ? { signal } : {}), reason, startedAt, finishedAt } } as unknown as Kube;
      [isReady, isStarted] = [false, false];
    });
    return result;
  };

  const run = async (): Promise<void> => {
    for (let waitMs = backOffMs.first; ; waitMs = Math.min(waitMs * 2, backOffMs.most)) {
      const result = await once();
      const isDone = result && (isEnding || policy === 'Never' || (policy === 'OnFailure' && result.exitCode === 0));
      if (isDone || isEnding) return hasEnded(result ?? { exitCode: 0, signal: 0 });
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, waitMs);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      if (isEnding) return hasEnded(result ?? { exitCode: 0, signal: 0 });
      if (result) {
        lastState = state;
        restarts += 1;
        become(() => (state = { waiting: { reason: 'CrashLoopBackOff' } } as unknown as Kube));
      }
    }
  };
  void run();

  return {
    name,
    ended,
    started,
    isReady: () => isReady,
    status: () =>
      ({
        name,
        image: container['image'],
        imageID: `stand-in://${container['image']}`,
        containerID: `stand-in://${name}`,
        ready: isReady,
        started: isStarted,
        restartCount: restarts,
        state,
        lastState,
      }) as unknown as Kube,
    end: async (graceMs) => {
      isEnding = true;
      wake();
      const timers = [setTimeout(() => current?.kill('SIGKILL'), graceMs)];
      const sleepMs = Math.min(graceMs, ((container['lifecycle']?.preStop?.sleep?.seconds as number | undefined) ?? 0) * 1000);
      timers.push(setTimeout(() => current?.kill('SIGTERM'), sleepMs));
      await ended;
      for (const timer of timers) clearTimeout(timer);
    },
  };
};

/** Probes of a container, from the node's side to the pod's address: HTTP in clear text and TCP, which is all that the chart and the injector use. */
import { once } from 'node:events';
import { get } from 'node:http';
import { connect } from 'node:net';
import type { Kube } from '../api.ts';

const portOf = (container: Kube, port: number | string): number => {
  if (typeof port === 'number') return port;
  const named = ((container['ports'] ?? []) as { name?: string; containerPort: number }[]).find(({ name }) => name === port);
  if (!named) throw new Error(`container ${container['name']} has no port ${port}`);
  return named.containerPort;
};

const httpGet = (host: string, port: number, path: string, timeoutMs: number): Promise<boolean> =>
  new Promise((resolve) => {
    const outgoing = get(
      { host, port, path, timeout: timeoutMs, agent: false, headers: { 'user-agent': 'kube-probe/stand-in' } },
      (response) => {
        response.resume();
        const status = response.statusCode ?? 0;
        resolve(status >= 200 && status < 400);
      },
    );
    outgoing.on('timeout', () => outgoing.destroy());
    outgoing.on('error', () => resolve(false));
  });

const tcp = async (host: string, port: number, timeoutMs: number): Promise<boolean> => {
  const socket = connect({ host, port, timeout: timeoutMs });
  socket.on('timeout', () => socket.destroy(new Error('no answer')));
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
};

const attempt = (probe: Kube, container: Kube, address: string): Promise<boolean> => {
  const timeoutMs = ((probe['timeoutSeconds'] as number | undefined) ?? 1) * 1000;
  const { httpGet: http, tcpSocket } = probe;
  if (http && (http.scheme ?? 'HTTP') === 'HTTP')
    return httpGet(http.host ?? address, portOf(container, http.port), http.path ?? '/', timeoutMs);
  if (tcpSocket) return tcp(tcpSocket.host ?? address, portOf(container, tcpSocket.port), timeoutMs);
  throw new Error(`container ${container['name']}: a probe that nobody knows here`);
};

export interface Probing {
  readonly end: () => void;
}

/** Calls `onResult` each time the probe's thresholds decide anew. */
export const probe = (spec: Kube, container: Kube, address: string, onResult: (isGood: boolean) => void): Probing => {
  let [isOver, good, bad]: [boolean, number, number] = [false, 0, 0];
  const number = (name: string, otherwise: number): number => (spec[name] as number | undefined) ?? otherwise;
  const periodMs = number('periodSeconds', 10) * 1000;
  let countedAtMs = 0;
  const look = async (): Promise<void> => {
    const isGood = await attempt(spec, container, address);
    if (isOver) return;
    // Success is looked for more often than asked, so that a test does not wait for periods; failures count as often as asked.
    const counts = Date.now() - countedAtMs >= periodMs;
    if (isGood) [good, bad] = [good + 1, 0];
    else [good, bad] = [0, bad + (counts ? 1 : 0)];
    if (isGood && good === number('successThreshold', 1)) onResult(true);
    if (!isGood && counts) {
      countedAtMs = Date.now();
      if (bad === number('failureThreshold', 3)) onResult(false);
    }
    timer = setTimeout(() => void look(), isGood ? periodMs : Math.min(periodMs, 250));
  };
  let timer = setTimeout(() => void look(), number('initialDelaySeconds', 0) * 1000);
  return {
    end: () => {
      isOver = true;
      clearTimeout(timer);
    },
  };
};

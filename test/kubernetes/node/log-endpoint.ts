/** The part of a kubelet that `kubectl logs` and `helm test --logs` read by way of the API server: what a container has printed, without following it. */
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { createTestAuthority } from '../../support/certificates.ts';

export interface LogEndpoint {
  readonly port: number;
  readonly close: () => void;
}

/** `logFile`: of a container, by namespace, pod and name. API servers do not verify kubelets' certificates unless they are told to. */
export const startLogEndpoint = (
  host: string,
  logFile: (namespace: string, pod: string, container: string) => string,
): Promise<LogEndpoint> => {
  const server = createServer(createTestAuthority('stand-in kubelet').serverFor('localhost'), ({ url = '' }, response) => {
    const { pathname, searchParams } = new URL(url, 'https://localhost');
    const [, namespace, pod, container] = /^\/containerLogs\/([^/]+)\/([^/]+)\/([^/]+)$/.exec(pathname) ?? [];
    const file = namespace && pod && container ? logFile(namespace, pod, container) : '';
    if (!existsSync(file)) return void response.writeHead(404).end();
    const lines = readFileSync(file, 'utf8').split('\n');
    const tail = searchParams.get('tailLines');
    return void response.end(lines.slice(tail === null ? 0 : -1 - Number(tail)).join('\n'));
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, host, () =>
      resolve({
        port: (server.address() as AddressInfo).port,
        close: () => {
          server.close();
          server.closeAllConnections();
        },
      }),
    );
  });
};

/** The demo's target: echo over HTTP and HTTPS. */
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { listening } from '../../ops/admin.ts';
import type { Clock } from '../../ops/clock.ts';
import type { Running } from '../../ops/drain.ts';
import { bounds, closed, echo, startHttpEcho } from '../echo-target.ts';
import { createServing } from './serving.ts';

export interface Echo extends Running {
  readonly http: AddressInfo;
  readonly https: AddressInfo;
  /** What its HTTPS certificate chains to. */
  readonly caPem: string;
}

export interface EchoOptions {
  readonly host: string;
  readonly httpPort: number;
  readonly httpsPort: number;
  /** The name its certificate is for. */
  readonly name: string;
  readonly clock: Clock;
}

export const startEcho = async ({ host, httpPort, httpsPort, name, clock }: EchoOptions): Promise<Echo> => {
  const { caPem, certPem, keyPem } = createServing('Outrider demo targets', name, clock);
  const http = await startHttpEcho(host, httpPort);
  const https = createHttpsServer({ ...bounds, cert: certPem, key: keyPem }, echo);
  try {
    await listening(https, host, httpsPort);
  } catch (error) {
    await http.close();
    throw error;
  }
  return {
    http: http.address,
    https: https.address() as AddressInfo,
    caPem,
    close: async () => void (await Promise.all([http.close(), closed(https)])),
  };
};

/** How an operator writes where the cluster's API server is, and who the injector is there. */
import { url } from '../address.ts';
import { keys } from '../grammar.ts';
import { filePath } from '../text.ts';

export interface ClusterSettings {
  /** Base URL, e.g. https://kubernetes.default.svc */
  readonly apiServer: string;
  /** PEM to trust instead of the system's roots; undefined for those. Re-read on use. */
  readonly caFile: string | undefined;
  /** The injector's own token. Re-read on use. */
  readonly tokenFile: string;
}

const serviceAccount = '/var/run/secrets/kubernetes.io/serviceaccount';

export const cluster = keys(
  {
    apiServer: url({ write: 'https://kubernetes.default.svc', strict: true }),
    caFile: filePath(`${serviceAccount}/ca.crt`).optional(),
    tokenFile: filePath(`${serviceAccount}/token`),
  },
  `{apiServer: https://kubernetes.default.svc, tokenFile: ${serviceAccount}/token}`,
).transform(({ caFile, ...written }): ClusterSettings => ({ ...written, caFile }));

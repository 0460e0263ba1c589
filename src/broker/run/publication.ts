/**
 * The trust domain's bundle where the cluster can read it: key `ca.pem` of a ConfigMap that exists already, written when it differs and
 * left alone else. What is to be there is read after the ConfigMap was: so a replica that is behind cannot put back an older bundle,
 * because a newer one has changed the ConfigMap meanwhile. A failure holds nothing up and is repeated with the next look.
 */
import { isJsonObject, type JsonObject } from '../../core/json.ts';
import { ApiError, type ApiServer } from '../../net/api-server.ts';
import type { Log } from '../../ops/log.ts';

const entry = 'ca.pem';

export interface PublicationPlace {
  readonly namespace: string;
  readonly configMap: string;
}

/** Reads the ConfigMap; what comes back writes a bundle that was read after it, where that is another. Neither throws. */
export type Publication = () => Promise<(bundlePem: string) => Promise<void>>;

export const createPublication = (
  api: Pick<ApiServer, 'get' | 'replace'>,
  { namespace, configMap }: PublicationPlace,
  log: Log,
): Publication => {
  const path = `/api/v1/namespaces/${namespace}/configmaps/${configMap}`;
  const tried = async <T>(use: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await use();
    } catch (error) {
      const isTaken = error instanceof ApiError && error.isConflict;
      if (!isTaken) log.warn({ error }, "the trust domain's bundle could not be published; it is tried again");
      return undefined;
    }
  };
  return async () => {
    const object = await tried(async () => {
      const found = await api.get(path);
      if (found === undefined) throw new ApiError('GET', path, { status: 404, reason: 'NotFound' });
      return found;
    });
    return async (bundlePem) => {
      if (object === undefined || dataOf(object)[entry] === bundlePem) return;
      const written = await tried(() => api.replace(path, { ...object, data: { ...dataOf(object), [entry]: bundlePem } }));
      if (written !== undefined) log.info({ namespace, configMap }, "the trust domain's bundle is published");
    };
  };
};

const dataOf = ({ data }: JsonObject): JsonObject => (isJsonObject(data) ? data : {});

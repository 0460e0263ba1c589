/**
 * What injected pods know the broker by: the ConfigMap that the brokers keep current in our namespace, copied into every namespace with such
 * pods. The copies belong to the webhook's configuration, so that the cluster removes them with it. One that is not ours is left alone.
 */
import { isJsonObject, type JsonObject } from '../core/json.ts';
import { ApiError, type ApiServer } from '../net/api-server.ts';
import type { Log } from '../ops/log.ts';

/** In every namespace; what pods mount. */
export const trustConfigMap = 'outrider-trust';
/** The entry with the trust domain's authorities, PEM. */
export const trustEntry = 'ca.pem';

const managed = { 'app.kubernetes.io/managed-by': 'outrider' } as const;

export interface TrustOptions {
  readonly api: Pick<ApiServer, 'get' | 'create' | 'replace'>;
  /** Where the source is: ours. */
  readonly namespace: string;
  readonly configMap: string;
  /** The MutatingWebhookConfiguration that owns the copies. */
  readonly webhookConfiguration: string;
  readonly log: Log;
  /** A call to the API server failed, or somebody else has the name. */
  readonly onFailure: () => void;
}

export interface Trust {
  /** Whether the copy is there and current, as far as is known or can be brought about. Never throws. */
  readonly ensure: (namespace: string) => Promise<boolean>;
  /** Reads the source anew, then the copies of exactly these namespaces; says in how many it is. */
  readonly reconcile: (namespaces: Iterable<string>) => Promise<number>;
}

export const createTrust = ({ api, namespace: home, configMap, webhookConfiguration, log, onFailure }: TrustOptions): Trust => {
  let source: { readonly pem: string; readonly owner: JsonObject } | undefined;
  /** Where the copy was seen to be current. */
  let current = new Set<string>();

  const guarded = async (what: string, fields: object, call: () => Promise<boolean>): Promise<boolean> => {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      onFailure();
      log.warn({ error, ...fields }, what);
      return false;
    }
  };

  const readSource = (): Promise<boolean> =>
    guarded("the trust domain's authorities cannot be read; it is tried again", { configMap }, async () => {
      const found = await api.get(`/api/v1/namespaces/${home}/configmaps/${configMap}`);
      const pem = found && dataOf(found)[trustEntry];
      const owner = await api.get(`/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${webhookConfiguration}`);
      const uid = isJsonObject(owner?.['metadata']) ? owner['metadata']['uid'] : undefined;
      // Before the first broker has run there is nothing to copy.
      if (typeof pem !== 'string' || pem === '' || uid === undefined) return false;
      if (source !== undefined && source.pem !== pem) current = new Set();
      const { apiVersion, kind } = { apiVersion: 'admissionregistration.k8s.io/v1', kind: 'MutatingWebhookConfiguration' };
      source = { pem, owner: { apiVersion, kind, name: webhookConfiguration, uid } };
      return true;
    });

  const copyTo = async (namespace: string): Promise<boolean> => {
    if (source === undefined) return false;
    // The source itself is what pods mount here.
    if (namespace === home && configMap === trustConfigMap) return true;
    const { pem, owner } = source;
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const wanted = { labels: managed, ownerReferences: [owner] };
    const found = await api.get(`${path}/${trustConfigMap}`);
    if (found === undefined) {
      const metadata = { name: trustConfigMap, namespace, ...wanted };
      await api.create(path, { apiVersion: 'v1', kind: 'ConfigMap', metadata, data: { [trustEntry]: pem } });
      log.info({ namespace }, "the trust domain's authorities are in the namespace");
      return true;
    }
    if (!isOurs(found)) {
      onFailure();
      log.error(
        { namespace, configMap: trustConfigMap },
        'a ConfigMap of this name is not ours, and is left alone: pods here cannot start until it is renamed',
      );
      return false;
    }
    if (dataOf(found)[trustEntry] === pem) return true;
    await api.replace(`${path}/${trustConfigMap}`, {
      ...found,
      metadata: { ...metadataOf(found), ...wanted },
      data: { [trustEntry]: pem },
    });
    return true;
  };

  const ensure = async (namespace: string): Promise<boolean> => {
    if (source === undefined) await readSource();
    if (current.has(namespace)) return true;
    const isThere = await guarded("the trust domain's authorities could not be copied; it is tried again", { namespace }, () =>
      copyTo(namespace),
    );
    if (isThere) current.add(namespace);
    return isThere;
  };

  return {
    ensure,
    reconcile: async (namespaces) => {
      await readSource();
      // What was current may have been deleted or changed by hand since.
      current = new Set();
      let count = 0;
      for (const namespace of namespaces) if (await ensure(namespace)) count += 1;
      return count;
    },
  };
};

const metadataOf = ({ metadata }: JsonObject): JsonObject => (isJsonObject(metadata) ? metadata : {});
const dataOf = ({ data }: JsonObject): JsonObject => (isJsonObject(data) ? data : {});
const isOurs = (object: JsonObject): boolean => {
  const { labels } = metadataOf(object);
  return isJsonObject(labels) && Object.entries(managed).every(([name, value]) => labels[name] === value);
};

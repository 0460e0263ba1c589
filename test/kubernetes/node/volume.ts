/**
 * A pod's volumes as the kubelet makes them: projections of ConfigMaps, Secrets, the downward API and service-account tokens, kept current
 * and replaced at once (a new directory, then the link `..data`); emptyDir, in memory where asked; and a directory for each persistent volume claim.
 * Tokens come from TokenRequest, bound to the pod, and are asked for again at four fifths of their life.
 * https://kubernetes.io/docs/concepts/storage/projected-volumes/
 */
import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Api, Kube } from '../api.ts';

export interface Volume {
  readonly path: string;
  /** Makes it current; throws what keeps the pod from starting (a ConfigMap that is not there). */
  readonly refresh: () => Promise<void>;
}

export interface VolumePlace {
  readonly api: Api;
  /** Of the pod. */
  readonly directory: string;
  /** Of the pod, and in memory. */
  readonly memory: string;
  /** Where a claim's content is, by its namespace and name. */
  readonly claim: (namespace: string, name: string) => Promise<string>;
  /** Values of `fieldRef`. */
  readonly field: (path: string) => string;
}

interface Projected {
  readonly content: Buffer;
  readonly mode: number;
  readonly uid?: number;
}

type Files = Map<string, Projected>;

let projections = 0;

const replaceContent = (path: string, files: Files, fsGroup: number | undefined): void => {
  projections += 1;
  const own = `..${new Date().toISOString().replace(/[-:.]/g, '_')}.${projections}`;
  for (const [name, { content, mode, uid }] of files) {
    const file = join(path, own, name);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, content);
    // The group reads what it may: the kubelet's rule for fsGroup.
    chmodSync(file, fsGroup === undefined ? mode : mode | 0o040);
    if (uid !== undefined || fsGroup !== undefined) chownSync(file, uid ?? 0, fsGroup ?? 0);
  }
  mkdirSync(join(path, own), { recursive: true });
  symlinkSync(own, join(path, '..data_new'));
  renameSync(join(path, '..data_new'), join(path, '..data'));
  const top = new Set([...files.keys()].map((name) => name.split('/')[0] as string));
  for (const name of top) if (!existsSync(join(path, name))) symlinkSync(join('..data', name), join(path, name));
  for (const name of readdirSync(path)) {
    const isStale = name.startsWith('..2') ? name !== own : !name.startsWith('..') && !top.has(name);
    if (isStale) rmSync(join(path, name), { recursive: true, force: true });
  }
};

/** `data` and `binaryData` of a ConfigMap, `data` of a Secret; chosen and renamed by `items`. */
const keysOf = (kind: 'ConfigMap' | 'Secret', object: Kube, source: Kube, defaultMode: number): Files => {
  const decoded = (data: Record<string, string> | undefined, encoding: 'utf8' | 'base64') =>
    Object.entries(data ?? {}).map(([key, value]) => [key, Buffer.from(value, encoding)] as const);
  const content = new Map([
    ...decoded(object['data'] as Record<string, string>, kind === 'Secret' ? 'base64' : 'utf8'),
    ...decoded(object['binaryData'] as Record<string, string>, 'base64'),
  ]);
  const items =
    (source['items'] as { key: string; path: string; mode?: number }[] | undefined) ??
    [...content.keys()].map((key) => ({ key, path: key }));
  const files: Files = new Map();
  for (const { key, path, mode } of items as { key: string; path: string; mode?: number }[]) {
    const bytes = content.get(key);
    if (bytes) files.set(path, { content: bytes, mode: mode ?? defaultMode });
    else if (!source['optional']) throw new Error(`${kind} ${object.metadata.name} has no key ${key}`);
  }
  return files;
};

export const createVolumes = (pod: Kube, place: VolumePlace): ReadonlyMap<string, Volume> => {
  const namespace = pod.metadata.namespace as string;
  const { api } = place;
  const fsGroup = pod['spec'].securityContext?.fsGroup as number | undefined;

  const keyed = async (kind: 'ConfigMap' | 'Secret', name: string, source: Kube, mode: number): Promise<Files> => {
    const object = await api.get(`/api/v1/namespaces/${namespace}/${kind.toLowerCase()}s/${name}`);
    if (object) return keysOf(kind, object, source, mode);
    if (source['optional']) return new Map();
    throw new Error(`${kind} ${name} is not there`);
  };

  const fields = (items: readonly Kube[] = [], mode: number): Files =>
    new Map(
      items.map((item) => [item['path'] as string, { content: Buffer.from(place.field(item['fieldRef'].fieldPath as string)), mode }]),
    );

  /** When every container runs as one user, the token is that user's alone. */
  const tokenRights = (mode: number): { mode: number; uid?: number } => {
    const { securityContext, containers, initContainers = [] } = pod['spec'] as Kube;
    const uids = new Set(
      [...containers, ...initContainers].map((one: Kube) => one['securityContext']?.runAsUser ?? securityContext?.runAsUser),
    );
    const [uid] = uids;
    if (fsGroup !== undefined) return { mode: 0o600 };
    return uids.size === 1 && uid !== undefined ? { mode: 0o600, uid: uid as number } : { mode };
  };

  const token = (source: Kube): ((mode: number) => Promise<Files>) => {
    let [current, renewAtMs] = ['', 0];
    return async (mode) => {
      if (Date.now() >= renewAtMs) {
        const seconds = (source['expirationSeconds'] as number | undefined) ?? 3600;
        const { status } = await api.create(`/api/v1/namespaces/${namespace}/serviceaccounts/${pod['spec'].serviceAccountName}/token`, {
          apiVersion: 'authentication.k8s.io/v1',
          kind: 'TokenRequest',
          spec: {
            ...(source['audience'] ? { audiences: [source['audience']] } : {}),
            expirationSeconds: seconds,
            boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name: pod.metadata.name, uid: pod.metadata.uid },
          },
        });
        current = status.token as string;
        renewAtMs = Date.now() + seconds * 800;
      }
      return new Map([[source['path'] as string, { content: Buffer.from(current), ...tokenRights(mode) }]]);
    };
  };

  const projection = (path: string, parts: readonly ((mode: number) => Promise<Files>)[], mode = 0o644): Volume => {
    let before = '';
    return {
      path,
      refresh: async () => {
        const files: Files = new Map();
        for (const part of parts) for (const [name, file] of await part(mode)) files.set(name, file);
        const now = JSON.stringify([...files].map(([name, file]) => [name, file.content.toString('base64'), file.mode]));
        if (now === before) return;
        replaceContent(path, files, fsGroup);
        before = now;
      },
    };
  };

  const directory = (path: string, mode = 0o777): Volume => {
    mkdirSync(path, { recursive: true });
    chmodSync(path, mode);
    if (fsGroup !== undefined) {
      chownSync(path, 0, fsGroup);
      chmodSync(path, mode | 0o2070);
    }
    return { path, refresh: async () => undefined };
  };

  const one = (volume: Kube): Volume => {
    const path = join(place.directory, volume['name'] as string);
    const { emptyDir, configMap, secret, projected, downwardAPI, persistentVolumeClaim } = volume;
    if (emptyDir) return directory(emptyDir.medium === 'Memory' ? join(place.memory, volume['name'] as string) : path);
    mkdirSync(path, { recursive: true });
    if (configMap) return projection(path, [(mode) => keyed('ConfigMap', configMap.name, configMap, mode)], configMap.defaultMode);
    if (secret) return projection(path, [(mode) => keyed('Secret', secret.secretName, secret, mode)], secret.defaultMode);
    if (downwardAPI) return projection(path, [async (mode) => fields(downwardAPI.items, mode)], downwardAPI.defaultMode);
    if (projected) {
      const parts = (projected.sources as Kube[]).map((source) => {
        const { serviceAccountToken, configMap: map, secret: hidden, downwardAPI: downward } = source;
        if (serviceAccountToken) return token(serviceAccountToken as Kube);
        if (map) return (mode: number) => keyed('ConfigMap', map.name, map, mode);
        if (hidden) return (mode: number) => keyed('Secret', hidden.name, hidden, mode);
        if (downward) return async (mode: number) => fields(downward.items, mode);
        throw new Error(`a projected source that nobody knows here: ${Object.keys(source).join()}`);
      });
      return projection(path, parts, projected.defaultMode);
    }
    if (persistentVolumeClaim) {
      let made: Volume | undefined;
      return {
        get path() {
          return made?.path ?? path;
        },
        refresh: async () => {
          made ??= directory(await place.claim(namespace, persistentVolumeClaim.claimName as string));
        },
      };
    }
    throw new Error(`a volume that nobody knows here: ${Object.keys(volume).join()}`);
  };
  return new Map(((pod['spec'].volumes ?? []) as Kube[]).map((volume) => [volume['name'] as string, one(volume)]));
};

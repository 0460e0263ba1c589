/** All that a cluster holds, of every kind that its API server has, and the objects of a release as they are there. */
import { parseAllDocuments } from 'yaml';
import type { Api, Kube } from './api.ts';
import { type Cluster } from './cluster.ts';
import { namespace, release } from './installation.ts';

interface Resource {
  readonly name: string;
  readonly kind: string;
  readonly namespaced: boolean;
  readonly verbs: readonly string[];
}

/** Base path → what is there. */
const resources = async (api: Api): Promise<ReadonlyMap<string, readonly Resource[]>> => {
  const { body } = await api.call('GET', '/apis');
  const groups = (body['groups'] as { preferredVersion: { groupVersion: string } }[]).map(
    ({ preferredVersion }) => `/apis/${preferredVersion.groupVersion}`,
  );
  return new Map(
    await Promise.all(
      ['/api/v1', ...groups].map(async (base) => [base, ((await api.get(base))?.['resources'] as Resource[] | undefined) ?? []] as const),
    ),
  );
};

/** `/apis/apps/v1/deployments orders/api` for everything but events, which go by themselves. */
export const inventory = async (api: Api): Promise<ReadonlySet<string>> => {
  const found = new Set<string>();
  for (const [base, kinds] of await resources(api)) {
    const listable = kinds.filter(({ name, verbs }) => verbs.includes('list') && !['events', 'componentstatuses'].includes(name));
    for (const { name } of listable) {
      for (const { metadata } of await api.list(`${base}/${name}`))
        found.add(`${base}/${name} ${metadata.namespace ?? ''}/${metadata.name}`);
    }
  }
  return found;
};

export interface Released {
  readonly path: string;
  /** As the chart writes it. */
  readonly manifest: Kube;
}

/** The objects of the release, hooks aside. */
export const releasedObjects = async ({ api, helm }: Cluster): Promise<readonly Released[]> => {
  const known = await resources(api);
  return parseAllDocuments(await helm('get', 'manifest', release, '--namespace', namespace))
    .map((document) => document.toJS() as Kube | null)
    .filter((manifest) => manifest !== null)
    .map((manifest) => {
      const version = manifest.apiVersion as string;
      const base = version.includes('/') ? `/apis/${version}` : `/api/${version}`;
      const resource = known.get(base)?.find(({ kind, name }) => kind === manifest.kind && !name.includes('/'));
      if (!resource) throw new Error(`the API server has no ${version} ${manifest.kind}`);
      const where = resource.namespaced ? `/namespaces/${manifest.metadata.namespace ?? namespace}` : '';
      return { path: `${base}${where}/${resource.name}/${manifest.metadata.name}`, manifest };
    });
};

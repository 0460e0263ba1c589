/** What a container's spec asks for, read as the kubelet reads it: command, environment, user, capabilities and mounts. Pure but for what `lookup` reads. */
import { join } from 'node:path';
import type { Kube } from '../api.ts';
import { imageOf } from './image.ts';
import type { Mount, Plan } from './process.ts';

export interface Lookups {
  readonly configMap: (name: string) => Promise<Kube | undefined>;
  readonly secret: (name: string) => Promise<Kube | undefined>;
  readonly field: (path: string) => string;
  /** Where a volume's content is. */
  readonly volume: (name: string) => string;
  readonly isFile: (path: string) => boolean;
}

/** Of containerd, for a container that drops nothing. */
const usualCapabilities =
  'audit_write chown dac_override fowner fsetid kill mknod net_bind_service net_raw setfcap setgid setpcap setuid sys_chroot'.split(' ');

const capabilitiesOf = (context: Kube): readonly string[] | 'all' => {
  if (context['privileged'] === true) return 'all';
  const named = (list: readonly string[] = []): string[] => list.map((name) => name.toLowerCase().replace(/^cap_/, ''));
  const dropped = named(context['capabilities']?.drop as string[]);
  const kept = dropped.includes('all') ? [] : usualCapabilities.filter((name) => !dropped.includes(name));
  return [...new Set([...kept, ...named(context['capabilities']?.add as string[])])];
};

/** `$(NAME)` of what is known; `$$(NAME)` is `$(NAME)`. */
export const expand = (text: string, known: Readonly<Record<string, string>>): string =>
  text.replace(/\$(\$|\(([^()]*)\))/g, (whole, inner: string, name: string | undefined) =>
    inner === '$' ? '$' : name !== undefined && name in known ? (known[name] as string) : whole,
  );

const plainOf = (kind: 'configMap' | 'secret', object: Kube | undefined): Record<string, string> =>
  Object.fromEntries(
    Object.entries((object?.['data'] ?? {}) as Record<string, string>).map(([key, value]) => [
      key,
      kind === 'secret' ? Buffer.from(value, 'base64').toString() : value,
    ]),
  );

const environmentOf = async (
  container: Kube,
  base: Readonly<Record<string, string>>,
  lookups: Lookups,
): Promise<Record<string, string>> => {
  const known: Record<string, string> = { ...base };
  for (const source of (container['envFrom'] ?? []) as Kube[]) {
    const kind = source['configMapRef'] ? 'configMap' : 'secret';
    const { name, optional } = (source['configMapRef'] ?? source['secretRef']) as { name: string; optional?: boolean };
    const object = await lookups[kind](name);
    if (!object && !optional) throw new Error(`${kind} ${name} is not there`);
    for (const [key, value] of Object.entries(plainOf(kind, object))) known[`${source['prefix'] ?? ''}${key}`] = value;
  }
  for (const { name, value = '', valueFrom } of (container['env'] ?? []) as { name: string; value?: string; valueFrom?: Kube }[]) {
    if (!valueFrom) {
      known[name] = expand(value, known);
      continue;
    }
    const { fieldRef, configMapKeyRef, secretKeyRef, resourceFieldRef } = valueFrom;
    if (fieldRef) known[name] = lookups.field(fieldRef.fieldPath as string);
    else if (resourceFieldRef) known[name] = String(container['resources']?.limits?.memory ?? '0');
    else {
      const kind = configMapKeyRef ? 'configMap' : 'secret';
      const reference = (configMapKeyRef ?? secretKeyRef) as { name: string; key: string; optional?: boolean };
      const found = plainOf(kind, await lookups[kind](reference.name))[reference.key];
      if (found !== undefined) known[name] = found;
      else if (!reference.optional) throw new Error(`${kind} ${reference.name} has no key ${reference.key}`);
    }
  }
  return known;
};

export const planOf = async (
  pod: Kube,
  container: Kube,
  lookups: Lookups,
  place: Pick<Plan, 'directory' | 'log' | 'inNetwork'> & {
    readonly environment: Readonly<Record<string, string>>;
    readonly etc: readonly Mount[];
    readonly bundle: string;
  },
): Promise<Plan> => {
  const image = imageOf(container['image'] as string, place.bundle);
  const podContext = (pod['spec'].securityContext ?? {}) as Kube;
  const context = { ...podContext, ...(container['securityContext'] as Kube | undefined) } as Kube;
  const uid = (context['runAsUser'] as number | undefined) ?? image.uid;
  if (context['runAsNonRoot'] === true && uid === 0)
    throw new Error(`container ${container['name']} has runAsNonRoot and would run as root`);
  const known = await environmentOf(container, place.environment, lookups);
  const asked = ((container['command'] as string[] | undefined) ?? []).map((part) => expand(part, known));
  const args = ((container['args'] as string[] | undefined) ?? []).map((part) => expand(part, known));
  const command = [...(asked.length > 0 ? asked : image.entrypoint), ...(args.length > 0 || asked.length > 0 ? args : image.command)];
  if (command.length === 0)
    throw new Error(`container ${container['name']} has no command, and its image ${container['image']} is none of ours`);
  const ours = Object.entries(image.files).map(([target, source]) => ({
    source,
    target,
    isReadOnly: true,
    isFile: lookups.isFile(source),
  }));
  const volumes = ((container['volumeMounts'] ?? []) as Kube[]).map((mount): Mount => {
    const subPath = (mount['subPath'] as string | undefined) ?? (mount['subPathExpr'] ? expand(mount['subPathExpr'] as string, known) : '');
    const source = join(lookups.volume(mount['name'] as string), subPath);
    return { source, target: mount['mountPath'] as string, isReadOnly: mount['readOnly'] === true, isFile: lookups.isFile(source) };
  });
  return {
    ...place,
    command,
    environment: {
      PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      HOME: uid === 0 ? '/tmp' : '/',
      ...image.environment,
      ...known,
    },
    workingDirectory: (container['workingDir'] as string | undefined) ?? '/',
    uid,
    gid: (context['runAsGroup'] as number | undefined) ?? image.gid,
    groups: [
      ...new Set([
        ...((podContext['supplementalGroups'] as number[] | undefined) ?? []),
        ...(podContext['fsGroup'] ? [podContext['fsGroup'] as number] : []),
      ]),
    ],
    capabilities: capabilitiesOf(context),
    mayGainPrivileges: context['allowPrivilegeEscalation'] !== false,
    hasReadOnlyRoot: context['readOnlyRootFilesystem'] === true,
    mounts: [...ours, ...place.etc, ...volumes],
  };
};

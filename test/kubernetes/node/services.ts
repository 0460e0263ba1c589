/**
 * Services as pods see them: names in /etc/hosts in the place of cluster DNS, and cluster addresses that lead to ready endpoints, by NAT rules in the
 * namespace that all pods are linked to, in the place of kube-proxy. What an endpoint sees as its caller is therefore that namespace's address.
 */
import { execFileSync } from 'node:child_process';
import type { Kube } from '../api.ts';
import type { Network } from '../network.ts';

interface Slice {
  readonly endpoints: readonly { readonly address: string; readonly hostname: string | undefined }[];
  readonly ports: readonly { readonly name?: string; readonly port: number }[];
}

interface Port {
  readonly name?: string;
  readonly port: number;
  readonly protocol?: string;
}

export interface Services {
  /** Lines of /etc/hosts for a namespace. */
  readonly hosts: (namespace: string) => readonly string[];
  readonly update: (services: readonly Kube[], slices: readonly Kube[]) => void;
}

const serviceLabel = 'kubernetes.io/service-name';

const sliceOf = (slice: Kube): Slice => ({
  endpoints: ((slice['endpoints'] as { addresses: string[]; hostname?: string; conditions?: { ready?: boolean } }[] | null) ?? [])
    .filter(({ conditions }) => conditions?.ready !== false)
    .map(({ addresses, hostname }) => ({ address: addresses[0] as string, hostname })),
  ports: (slice['ports'] as { name?: string; port: number }[] | null) ?? [],
});

/** To one of them, each as often as the others. */
const spread = (match: string, places: readonly string[]): string[] =>
  places.map((place, index) => {
    const left = places.length - index;
    const chance = left === 1 ? '' : ` -m statistic --mode random --probability ${(1 / left).toFixed(5)}`;
    return `-A SERVICES ${match}${chance} -j DNAT --to-destination ${place}`;
  });

export const createServices = (network: Network): Services => {
  let known: readonly { readonly namespace: string; readonly name: string; readonly address: string }[] = [];
  let rules = '';
  return {
    hosts: (namespace) =>
      known.map(({ name, namespace: where, address }) => {
        const short = where === namespace ? ` ${name}` : '';
        return `${address} ${name}.${where}.svc.cluster.local ${name}.${where}.svc ${name}.${where}${short}`;
      }),
    update: (services, slices) => {
      const lines: string[] = [];
      const names: { namespace: string; name: string; address: string }[] = [];
      for (const { metadata, ...rest } of services) {
        const { name, namespace = 'default' } = metadata;
        const own = slices
          .filter((slice) => slice.metadata.namespace === namespace && slice.metadata.labels?.[serviceLabel] === name)
          .map(sliceOf);
        const { clusterIP, ports } = rest['spec'] as { clusterIP: string; ports?: Port[] };
        if (clusterIP === 'None') {
          for (const { address, hostname } of own.flatMap(({ endpoints }) => endpoints)) {
            for (const said of [name, ...(hostname === undefined ? [] : [`${hostname}.${name}`])])
              names.push({ namespace, name: said, address });
          }
          continue;
        }
        names.push({ namespace, name, address: clusterIP });
        for (const port of ports ?? []) {
          const places = own.flatMap(({ endpoints, ports: target }) => {
            const found = target.find((one) => (one.name ?? '') === (port.name ?? ''));
            return found ? endpoints.map(({ address }) => `${address}:${found.port}`) : [];
          });
          lines.push(...spread(`-d ${clusterIP}/32 -p ${(port.protocol ?? 'TCP').toLowerCase()} --dport ${port.port}`, places));
        }
      }
      known = names;
      const now = [
        '*nat',
        ':SERVICES - [0:0]',
        '-A PREROUTING -j SERVICES',
        '-A OUTPUT -j SERVICES',
        // The answer must come back this way, though both are on one bridge.
        '-A POSTROUTING -m conntrack --ctstate DNAT -j MASQUERADE',
        ...lines,
        'COMMIT',
        '',
      ].join('\n');
      if (now === rules) return;
      const [program, ...args] = network.within(['iptables-restore']);
      execFileSync(program, args, { input: now, stdio: ['pipe', 'ignore', 'pipe'] });
      rules = now;
    },
  };
};

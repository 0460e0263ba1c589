/** What a broker's configuration may say but should not stay: migration debt, and parts that do nothing. */
import type { BrokerSettings, TargetSettings } from '../broker.ts';
import { missingFiles } from '../missing-files.ts';
import { deadRules } from './dead-rules.ts';
import { brokerFiles } from './files.ts';

const dayMs = 24 * 3_600_000;
/** How long before its end a workload is warned of. */
const expiryNoticeMs = 14 * dayMs;

export const brokerWarnings = (settings: BrokerSettings, nowMs: number): readonly string[] => [
  ...settings.providers.flatMap(({ kind, name }) =>
    kind === 'static_file'
      ? [`provider ${name}: a static credential is migration debt: it does not expire and must be rotated by hand`]
      : [],
  ),
  ...unusedParts(settings),
  ...settings.targets.flatMap(({ name, cleartext }) =>
    cleartext === 'allowed' ? [`target ${name}: cleartext: allowed: whoever is on the way can read its credentials`] : [],
  ),
  ...settings.targets.flatMap(placementWarnings),
  ...workloadWarnings(settings, nowMs),
  ...deadRules(settings, nowMs),
  ...missingFiles(brokerFiles(settings)),
];

const logged = 'is written to the access logs of targets and of what stands before them, use a header where the target takes one';

const placementWarnings = ({ name, credentials }: TargetSettings): string[] => {
  const kinds = new Set(credentials.map(({ placement }) => placement.kind));
  return [
    ...(kinds.has('query') ? [`target ${name}: a credential in the query ${logged}`] : []),
    ...(kinds.has('path_segment') ? [`target ${name}: a credential in the path ${logged}`] : []),
    ...(kinds.has('body_field')
      ? [
          `target ${name}: a credential in the body: requests are read whole before they are sent, and refused without a body to write it into`,
        ]
      : []),
  ];
};

const unusedParts = ({ providers, targets, policies }: BrokerSettings): string[] => {
  const used = new Set(targets.flatMap(({ credentials }) => credentials.map(({ provider }) => provider)));
  const allowances = policies.flatMap(({ rules }) => rules.filter(({ effect }) => effect === 'allow'));
  const isAllowed = (target: string): boolean => allowances.some((rule) => rule.targets.length === 0 || rule.targets.includes(target));
  return [
    ...providers.filter(({ name }) => !used.has(name)).map(({ name }) => `provider ${name}: no target uses it`),
    ...targets.filter(({ name }) => !isAllowed(name)).map(({ name }) => `target ${name}: no policy allows its use`),
  ];
};

const workloadWarnings = ({ workloads }: BrokerSettings, nowMs: number): string[] =>
  workloads.flatMap(({ name, match, expiresAtMs }) => {
    const wide = Object.values(match).every((wanted) => wanted === '*')
      ? [`workload ${name}: matches everything that has these attributes`]
      : [];
    if (expiresAtMs === undefined || expiresAtMs - nowMs > expiryNoticeMs) return wide;
    const days = Math.ceil((expiresAtMs - nowMs) / dayMs);
    return [
      ...wide,
      expiresAtMs <= nowMs
        ? `workload ${name}: has expired and matches nothing`
        : `workload ${name}: expires within ${days} ${days === 1 ? 'day' : 'days'}`,
    ];
  });

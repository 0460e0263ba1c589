/** How the parts of a broker's configuration must fit: names that exist, once each, and no two that claim the same thing. */
import { createNameCheck, type Entry, itemsAt, type Problem, repeated, sharedListeners, textsOf, valueAt } from '../reference.ts';
import { placementReferences } from './places.ts';

const sections = ['attestors', 'workloads', 'providers', 'targets', 'policies'] as const;

export const brokerReferences = (document: unknown): Problem[] => [
  ...sharedListeners(document, [['listen'], ['issuer', 'listen'], ['admin']]),
  ...sections.flatMap((section) => repeatedNames(itemsAt(document, section))),
  ...rulesOf(document).flatMap(repeatedNames),
  ...repeatedIssuers(document),
  ...ownIssuer(document),
  ...unknownNames(document),
  ...sharedDestinations(document),
  ...placementReferences(document),
];

const at = ({ path }: Entry): string =>
  path
    .map((segment) => (typeof segment === 'number' ? `[${segment}]` : `.${String(segment)}`))
    .join('')
    .slice(1);
const parent = ({ path }: Entry): string => at({ path: path.slice(0, -1), value: undefined });

const repeatedNames = (entries: readonly Entry[]): Problem[] =>
  repeated(
    textsOf(entries, 'name'),
    ({ value }) => value,
    (first) => `is the name of ${parent(first)} already, write another`,
  );

const repeatedIssuers = (document: unknown): Problem[] =>
  repeated(
    textsOf(itemsAt(document, 'attestors'), 'issuer'),
    ({ value }) => value,
    (first) => `is the issuer of ${parent(first)} already, and a token is given to one attestor by its issuer, remove one of the two`,
  );

/** Else a workload could show a credential that it was given as evidence of what it is. */
const ownIssuer = (document: unknown): Problem[] =>
  textsOf(itemsAt(document, 'attestors'), 'issuer')
    .filter(({ value }) => value === valueAt(document, 'issuer', 'url'))
    .map(({ path }) => ({
      path,
      at: 'value',
      message: 'is issuer.url, whose tokens are credentials and prove no workload, write the issuer of the cluster',
    }));

/** The rules of each policy. */
const rulesOf = (document: unknown): readonly (readonly Entry[])[] =>
  itemsAt(document, 'policies').map(({ path }) => itemsAt(document, ...path, 'rules'));

const credentialsByTarget = (document: unknown): readonly (readonly Entry[])[] =>
  itemsAt(document, 'targets').map(({ path }) => itemsAt(document, ...path, 'credentials'));

const unknownNames = (document: unknown): Problem[] => {
  const check = createNameCheck();
  const known = (section: string): string[] => textsOf(itemsAt(document, section), 'name').map(({ value }) => value);
  const namedBy = (key: string): Entry[] =>
    rulesOf(document).flatMap((rules) => rules.flatMap(({ path }) => itemsAt(document, ...path, key)));
  return [
    ...check(textsOf(itemsAt(document, 'workloads'), 'attestor'), known('attestors'), 'attestor', 'attestors'),
    ...check(textsOf(credentialsByTarget(document).flat(), 'provider'), known('providers'), 'provider', 'providers'),
    ...check(namedBy('workloads'), known('workloads'), 'workload', 'workloads'),
    ...check(namedBy('targets'), known('targets'), 'target', 'targets'),
  ];
};

/** A request has exactly one target, or none: two that claim one host and port would leave its credential to chance. */
const sharedDestinations = (document: unknown): Problem[] => {
  const claims = itemsAt(document, 'targets').flatMap(({ path, value }) => {
    const ports: readonly unknown[] = valueAt(value, 'ports') === undefined ? [443] : itemsAt(value, 'ports').map((port) => port.value);
    const hosts = itemsAt(document, ...path, 'hosts').filter((host) => typeof host.value === 'string');
    return hosts.flatMap((host) => [...new Set(ports)].map((port) => ({ path: host.path, value: { host: host.value, port } })));
  });
  const shared = repeated(
    claims,
    ({ value }) => JSON.stringify([value.host, value.port]),
    (first) =>
      `with one of its ports is a destination of ${parent(first)} already, and a request must have one target, remove one of the two`,
  );
  const ports = itemsAt(document, 'targets').flatMap(({ path }) =>
    repeated(
      itemsAt(document, ...path, 'ports'),
      ({ value }) => JSON.stringify(value),
      () => 'is a port that is there already, remove it',
    ),
  );
  // A host that shares several ports is one mistake.
  return [...repeatedOnce(shared), ...ports];
};

const repeatedOnce = (problems: readonly Problem[]): Problem[] => {
  const seen = new Set<string>();
  return problems.filter(({ path }) => {
    const key = path.join('.');
    if (seen.has(key)) return false;
    seen.add(key);
    return true;
  });
};

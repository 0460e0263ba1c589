/** How the parts of an injector's configuration must fit together. */
import { amountOf, type Resource, resources } from '../../core/quantity.ts';
import { itemsAt, type Problem, repeated, sharedListeners, valueAt } from '../reference.ts';

/** Below it the proxy does not run (BENCHMARKS.md has what it needs). */
export const memoryLimitMin = '128Mi';

export const injectorReferences = (document: unknown): Problem[] => [
  ...sharedListeners(document, [['listen'], ['admin']]),
  ...repeated(
    itemsAt(document, 'sidecar', 'modes').filter(({ value }) => typeof value === 'string'),
    ({ value }) => String(value),
    () => 'is in the list already, remove one',
  ),
  ...steering(document),
  ...resources.flatMap((resource) => order(document, resource)),
];

const steering = (document: unknown): Problem[] => {
  const at = itemsAt(document, 'sidecar', 'modes').find(({ value }) => value === 'transparent');
  if (!at) return [];
  const problem = (message: string): Problem => ({ path: at.path, at: 'value', message });
  return [
    ...(valueAt(document, 'sidecar', 'steerImage') === undefined
      ? [problem('needs an image for its init container, write it as sidecar.steerImage, or remove transparent')]
      : []),
    ...(valueAt(document, 'sidecar', 'uid') === 'platform'
      ? [problem("needs a user of the proxy's own, which is not steered, write a number as sidecar.uid, or remove transparent")]
      : []),
  ];
};

/** request ≤ limit ≤ the most that may be asked for, and a limit that the proxy can live with. What is not written is as the defaults are. */
const order = (document: unknown, resource: Resource): Problem[] => {
  const read = (...path: readonly string[]): number | undefined => {
    const written = valueAt(document, 'sidecar', ...path, resource);
    return typeof written === 'string' || typeof written === 'number' ? amountOf(resource, String(written)) : undefined;
  };
  const request = read('resources', 'requests');
  const limit = read('resources', 'limits');
  const max = read('resourcesMax');
  const problem = (path: readonly string[], message: string): Problem => ({ path: ['sidecar', ...path, resource], at: 'value', message });
  const floor = resource === 'memory' ? (amountOf('memory', memoryLimitMin) as number) : 0;
  return [
    ...(request !== undefined && limit !== undefined && request > limit
      ? [problem(['resources', 'requests'], 'is more than the limit, write at most that')]
      : []),
    ...(limit !== undefined && limit < floor
      ? [problem(['resources', 'limits'], `is too little for the proxy, write at least ${memoryLimitMin}`)]
      : []),
    ...(max !== undefined && Math.max(request ?? 0, limit ?? 0) > max
      ? [problem(['resourcesMax'], 'is less than what pods get unasked, write at least that')]
      : []),
  ];
};

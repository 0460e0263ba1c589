/** Pods and settings for tests of the injector's pure part. */
import { join } from 'node:path';
import type { JsonObject } from '../../src/core/json.ts';
import { patchOf } from '../../src/injector/patch.ts';
import type { Pod } from '../../src/injector/pod.ts';
import { readSettings } from '../../src/settings/document.ts';
import type { InjectorSettings, SidecarSettings } from '../../src/settings/injector.ts';

export const exampleInjector = readSettings(
  join(import.meta.dirname, '../../config/examples/injector-kubernetes.yaml'),
) as InjectorSettings;
export const exampleSidecar: SidecarSettings = exampleInjector.sidecar;

/** The pod after the JSON patch between the two, applied as RFC 6902 says for `add`. */
export const applied = (before: Pod, after: Pod): JsonObject => {
  const copy = structuredClone(before) as unknown as Record<string, unknown>;
  for (const { op, path, value } of patchOf(before, after)) {
    const [parent = '', member = ''] = String(path).split('/').slice(1);
    if (op !== 'add') throw new Error(`an operation that was not expected: ${String(op)}`);
    (copy[parent] as Record<string, unknown>)[member] = structuredClone(value);
  }
  return copy;
};

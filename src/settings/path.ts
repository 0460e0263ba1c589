/**
 * Where a value stands in a configuration, as text: `providers[0].lifetime`. Keys that we know, and words, are shown; any other
 * key might be a secret in the wrong place and is shown as "*".
 */
export type Path = readonly PropertyKey[];

/** Names of attributes and parameters have digits and dots too, but not these: a run of letters and digits is what a secret looks like. */
const shownKey = /^[A-Za-z]{1,28}(?:[._-][A-Za-z]{1,28}){0,4}$/;

export const isShownKey = (key: string): boolean => shownKey.test(key);

export const pathText = (path: Path): string =>
  path
    .map((segment, depth) => {
      if (typeof segment === 'number') return `[${segment}]`;
      const key = String(segment);
      const shown = isShownKey(key) ? key : '*';
      if (shown.includes('.')) return `["${shown}"]`;
      return depth === 0 ? shown : `.${shown}`;
    })
    .join('');

/**
 * When each signing key is published, signs and goes: arithmetic over the stored keys, without a clock or a key in it.
 *
 *   published ──overlap──▶ signs ──lifetime──▶ its successor signs ──overlap──▶ gone
 *
 * A successor is published one overlap before it signs, so verifiers that keep the JWKS for a while know it in time; a key
 * stays published for one overlap after it stopped signing, so tokens it signed, which live no longer than an overlap, verify
 * to their end. A broker that slept through a rotation makes the successor late, and the key signs on until then.
 */
export interface ScheduledKey {
  readonly kid: string;
  readonly publishedFromMs: number;
  readonly signsFromMs: number;
}

export interface Rotation {
  readonly keyLifetimeMs: number;
  readonly keyOverlapMs: number;
}

/** Oldest first by when they sign: what every function here takes. */
export const inOrder = <K extends ScheduledKey>(keys: readonly K[]): readonly K[] =>
  keys.toSorted((a, b) => a.signsFromMs - b.signsFromMs || (a.kid < b.kid ? -1 : 1));

/** The latest key whose time has come; the first one when a clock ran backwards. */
export const signingKey = <K extends ScheduledKey>(keys: readonly K[], nowMs: number): K | undefined =>
  keys.findLast((key) => key.signsFromMs <= nowMs) ?? keys[0];

/** When key `i` leaves the JWKS; never while it has no successor. */
const goesAtMs = (keys: readonly ScheduledKey[], i: number, { keyOverlapMs }: Rotation): number => {
  const successor = keys[i + 1];
  return successor === undefined ? Number.POSITIVE_INFINITY : successor.signsFromMs + keyOverlapMs;
};

export const publishedKeys = <K extends ScheduledKey>(keys: readonly K[], nowMs: number, rotation: Rotation): readonly K[] =>
  keys.filter((_key, i) => nowMs < goesAtMs(keys, i, rotation));

export interface RotationPlan {
  /** The key to make now: when it is to sign. */
  readonly create: { readonly signsFromMs: number } | undefined;
  /** Keys that are no longer published. */
  readonly forget: readonly string[];
}

const successorDueMs = (latest: ScheduledKey, { keyLifetimeMs, keyOverlapMs }: Rotation): number =>
  latest.signsFromMs + keyLifetimeMs - keyOverlapMs;

/** `mustReplace`: the latest key is not of the configured algorithm, so its successor is due now. */
export const planRotation = (keys: readonly ScheduledKey[], nowMs: number, rotation: Rotation, mustReplace = false): RotationPlan => {
  const latest = keys.at(-1);
  const forget = keys.filter((_key, i) => nowMs >= goesAtMs(keys, i, rotation)).map(({ kid }) => kid);
  if (latest === undefined) return { create: { signsFromMs: nowMs }, forget };
  if (!mustReplace && nowMs < successorDueMs(latest, rotation)) return { create: undefined, forget };
  const publishedLongEnoughMs = nowMs + rotation.keyOverlapMs;
  const earliestMs = mustReplace ? latest.signsFromMs + 1 : latest.signsFromMs + rotation.keyLifetimeMs;
  const signsFromMs = Math.max(earliestMs, publishedLongEnoughMs);
  return { create: { signsFromMs }, forget };
};

/** When `planRotation` has something to do next. */
export const nextRotationMs = (keys: readonly ScheduledKey[], rotation: Rotation): number => {
  const latest = keys.at(-1);
  if (latest === undefined) return Number.NEGATIVE_INFINITY;
  return Math.min(successorDueMs(latest, rotation), ...keys.map((_key, i) => goesAtMs(keys, i, rotation)));
};

/** How long verifiers may keep a copy of the JWKS: any token verifies by a copy this old (see the property in the tests). */
export const keysCacheMs = ({ keyOverlapMs }: Rotation, tokenLifetimeMaxMs: number, cacheMaxMs: number): number =>
  Math.max(0, Math.min(cacheMaxMs, keyOverlapMs - tokenLifetimeMaxMs));

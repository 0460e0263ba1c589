/**
 * When each authority is made, signs and goes: arithmetic over the stored ones, without a clock or a key in it. For the trust domain's, and
 * for the injector's of its webhook.
 *
 *   made, in the bundle ──announcement──▶ signs ──▶ its successor signs ──▶ expires, leaves the bundle
 *
 * A successor is made at half the life of the one before and signs after an announcement (thirty days in a trust domain). Until then everybody who verifies can learn it:
 * proxies and collectors do within half an SVID's life, mounted bundles within minutes, copies that were made by hand (targets that
 * take our client certificates) at the pace of people. When it begins to sign, the old one has five months left, far more than
 * anything that it signed. A broker that slept through all of this announces as long as it can.
 */
export interface ScheduledAuthority {
  readonly notAfterMs: number;
  readonly signsFromMs: number;
}

export interface AuthoritySchedule {
  readonly lifetimeMs: number;
  /** How long a successor is in the bundle before it signs, when there is time. */
  readonly announcementMs: number;
  /** The longest life of what it signs: a successor signs this long before the end of the one before, so that no life is cut short. */
  readonly signedLifetimeMaxMs: number;
}

/** Oldest first by when they sign: what every function here takes. */
export const inOrder = <A extends ScheduledAuthority>(authorities: readonly A[]): readonly A[] =>
  authorities.toSorted((a, b) => a.signsFromMs - b.signsFromMs || a.notAfterMs - b.notAfterMs);

/** The latest whose time has come; the first one when a clock ran backwards. */
export const signingAuthority = <A extends ScheduledAuthority>(authorities: readonly A[], nowMs: number): A | undefined =>
  authorities.findLast(({ signsFromMs }) => signsFromMs <= nowMs) ?? authorities[0];

const successorDueMs = ({ notAfterMs }: ScheduledAuthority, { lifetimeMs }: AuthoritySchedule): number => notAfterMs - lifetimeMs / 2;

/** When a successor of `latest` that is learned of now may sign. */
export const announcedMs = (
  latest: ScheduledAuthority,
  nowMs: number,
  { announcementMs, signedLifetimeMaxMs }: AuthoritySchedule,
): number =>
  // After the one before it, whose time may not have come yet either.
  Math.max(nowMs, latest.signsFromMs + 1, Math.min(nowMs + announcementMs, latest.notAfterMs - signedLifetimeMaxMs));

export interface AuthorityPlan<A> {
  /** The authority to make now: when it is to sign. */
  readonly create: { readonly signsFromMs: number } | undefined;
  /** Those that have not expired. */
  readonly keep: readonly A[];
}

export const planAuthorities = <A extends ScheduledAuthority>(
  authorities: readonly A[],
  nowMs: number,
  schedule: AuthoritySchedule,
): AuthorityPlan<A> => {
  const keep = authorities.filter(({ notAfterMs }) => notAfterMs > nowMs);
  const latest = keep.at(-1);
  if (latest === undefined) return { create: { signsFromMs: nowMs }, keep };
  if (nowMs < successorDueMs(latest, schedule)) return { create: undefined, keep };
  return { create: { signsFromMs: announcedMs(latest, nowMs, schedule) }, keep };
};

/** When something changes next: a successor is due, another one signs, or one leaves the bundle. */
export const nextChangeMs = (authorities: readonly ScheduledAuthority[], nowMs: number, schedule: AuthoritySchedule): number => {
  const latest = authorities.at(-1);
  if (latest === undefined) return Number.NEGATIVE_INFINITY;
  const coming = authorities.map(({ signsFromMs }) => signsFromMs).filter((ms) => ms > nowMs);
  return Math.min(successorDueMs(latest, schedule), ...coming, ...authorities.map(({ notAfterMs }) => notAfterMs));
};

/** What the origin must have seen of every request: one credential, the proxy's. */
import type { Test } from 'tap';
import type { Arrival, Origin } from '../origin.ts';

/** What arrived since it was last asked, each with the proxy's credential in the place of whatever the client sent. */
export const credentialsOf = (t: Test, origin: Origin): readonly Arrival[] => {
  const arrivals = origin.taken();
  t.ok(arrivals.length > 0, 'the origin was reached');
  for (const { method, path, authorization } of arrivals) {
    t.equal(authorization.length, 1, `${method} ${path} carries one credential`);
    t.match(authorization[0], /^Bearer eyJ[\w-]+\.[\w-]+\.[\w-]+$/, 'and it is the one that the broker issued');
  }
  return arrivals;
};

/** Events as a collector gets them. */
import type { AccessEvent } from '../../src/core/access-event.ts';

export const workload = 'spiffe://outrider.test/ns/demo/sa/demo-app';

export const event = (sequence: number, fields: Partial<AccessEvent> = {}): AccessEvent => ({
  sequence,
  kind: 'intent',
  timeMs: Date.UTC(2026, 10, 22, 2, 59, 59, 250),
  requestId: `request-${sequence}`,
  workload,
  attestationId: 'attestation-1',
  target: 'echo',
  destination: 'echo.outrider.test:443',
  scheme: 'https',
  method: 'GET',
  path: '/hello',
  decision: { verdict: 'allow', policy: 'demo', policyVersion: 'v1', rule: 'read', reason: 'rule read allows GET /hello' },
  grantId: 'grant-1',
  credentials: [{ providerKind: 'jwt', provider: 'minted', placement: 'bearer', fingerprint: '0123456789abcdef' }],
  outcome: undefined,
  traceId: '',
  lostCount: 0,
  attempt: 1,
  ...fields,
});

/** Events `from` to `to`, both included. */
export const eventsFrom = (from: number, to: number, fields: Partial<AccessEvent> = {}): AccessEvent[] =>
  Array.from({ length: to - from + 1 }, (_, i) => event(from + i, fields));

/** One way to verify evidence. A new kind: a settings row, a file here, a line in broker/attest.ts, a form in the conformance suite. */
import type { Attested } from '../../core/evidence.ts';
import type { Clock } from '../../ops/clock.ts';
import type { Log } from '../../ops/log.ts';
import type { UnverifiedToken } from './compact-token.ts';

export interface Attestor {
  readonly name: string;
  /** Exactly the `iss` it answers for. */
  readonly issuer: string;
  readonly audience: string;
  /** Throws Fault evidence_*. */
  readonly verify: (token: UnverifiedToken) => Promise<Attested>;
}

export interface AttestorDeps {
  readonly clock: Clock;
  readonly log: Log;
}

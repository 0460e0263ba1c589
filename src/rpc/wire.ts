/**
 * Between messages (proto/) and the domain's own types (core/): the only place that knows both. What comes in is believed only as far
 * as it is checked here; a value that this version does not know is refused.
 */
export { type Attestation, attestationBytes, attestationOf, attestRequestBytes, attestRequestOf } from './wire/attestation.ts';
export {
  type Acknowledgement,
  acknowledgementBytes,
  acknowledgementOf,
  type EventBatch,
  eventBatchBytes,
  eventBatchOf,
} from './wire/event.ts';
export { WireError } from './wire/field.ts';
export { grantBytes, grantOf, grantRequestBytes, grantRequestOf } from './wire/grant.ts';
export { healthBytes, healthRequestOf } from './wire/health.ts';
export {
  type EventQuery,
  findRequestBytes,
  findRequestOf,
  findResponseBytes,
  findResponseOf,
  type FoundEvents,
} from './wire/query.ts';
export {
  checkWatchRequest,
  type Revocation,
  revocationBytes,
  snapshotBytes,
  type Update,
  updateOf,
  watchRequestBytes,
} from './wire/update.ts';

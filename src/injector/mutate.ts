/**
 * One review: read → decide → trust where the pod will be → answer, then the remarks. The trust domain's authorities are brought to the
 * namespace before the pod is admitted, but a pod is admitted without them too: the kubelet waits for the ConfigMap, and the next census
 * brings it; refusing would turn a moment without an API server into a failed rollout.
 */
import { limits } from '../core/limits.ts';
import type { Clock } from '../ops/clock.ts';
import type { Log } from '../ops/log.ts';
import type { Metrics } from '../ops/metrics.ts';
import type { SidecarSettings } from '../settings/injector.ts';
import { decide, type Decision } from './decide.ts';
import { patchOf } from './patch.ts';
import type { Remarks } from './remarks.ts';
import { aboutOf, answerOf, readReview, type Review } from './review.ts';
import type { WebhookAnswer } from './server.ts';
import type { Trust } from './trust.ts';

export interface MutationParts {
  readonly settings: SidecarSettings;
  readonly trust: Pick<Trust, 'ensure'>;
  readonly remarks: Pick<Remarks, 'send'>;
  readonly metrics: Pick<Metrics, 'add' | 'observe'>;
  readonly clock: Clock;
  readonly log: Log;
}

type Result = 'injected' | 'unchanged' | 'denied' | 'failed';

/** Never rejects. */
export const createMutation = (parts: MutationParts): ((body: string) => Promise<WebhookAnswer>) => {
  const { settings, metrics, clock, log } = parts;
  const answer = async (body: string): Promise<{ readonly result: Result; readonly answer: WebhookAnswer }> => {
    const review = readReview(body);
    if ('problem' in review) {
      log.warn({ problem: review.problem }, 'a review that cannot be answered');
      return { result: 'failed', answer: { status: 400, body: review.problem } };
    }
    const decision = decide(review.pod, settings);
    const result = resultOf(review, decision);
    if (decision.kind === 'injected' && !review.isDryRun) await ensured(parts, review.namespace);
    if (result !== 'unchanged') tell(parts, review, decision);
    return { result, answer: { status: 200, body: answerOf(review, decision) } };
  };
  return async (body) => {
    const startMs = clock.monotonic();
    let done: Awaited<ReturnType<typeof answer>>;
    try {
      done = await answer(body);
    } catch (error) {
      log.error({ error }, 'a review failed');
      done = { result: 'failed', answer: { status: 500, body: 'the injector failed, see its log' } };
    }
    metrics.add('outrider_injector_reviews_total', { result: done.result });
    metrics.observe('outrider_injector_review_duration_seconds', {}, (clock.monotonic() - startMs) / 1_000);
    return done.answer;
  };
};

/** A pod that comes back as we made it is unchanged. */
const resultOf = ({ pod }: Review, decision: Decision): Result =>
  decision.kind === 'injected' && patchOf(pod, decision.pod).length === 0 ? 'unchanged' : decision.kind;

const ensured = async ({ trust, clock }: MutationParts, namespace: string): Promise<void> => {
  let cancel = (): void => undefined;
  const deadline = new Promise<void>((resolve) => {
    cancel = clock.after(limits.trustEnsureTimeoutMs, resolve);
  });
  await Promise.race([trust.ensure(namespace), deadline]);
  cancel();
};

/** Names of pods and namespaces, never a variable's value. */
const tell = ({ remarks, log }: MutationParts, { pod, namespace, isDryRun }: Review, decision: Decision): void => {
  const about = aboutOf(pod);
  const fields = { namespace, kind: about?.kind, name: about?.name, isDryRun };
  if (decision.kind === 'denied') log.warn({ ...fields, reasons: decision.reasons }, 'a pod cannot be injected');
  if (decision.kind !== 'injected') return;
  log.info({ ...fields, notes: decision.notes }, 'a pod is injected');
  if (isDryRun || about === undefined || decision.notes.length === 0) return;
  remarks.send({ namespace, about, type: 'Normal', reason: 'OutriderInjected', message: decision.notes.join('; ') });
};

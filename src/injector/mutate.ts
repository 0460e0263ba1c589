/**
 * One review: read → decide → trust and remarks where the pod will be → answer. The trust domain's authorities are brought to the namespace
 * before the pod is admitted, but a pod is admitted without them too: the kubelet waits for the ConfigMap, and the next census brings it;
 * refusing would turn a moment without an API server into a failed rollout. Beside the answer nothing is done on a review's word alone.
 */
import { limits } from '../core/limits.ts';
import type { Clock } from '../ops/clock.ts';
import type { Log } from '../ops/log.ts';
import type { Metrics } from '../ops/metrics.ts';
import type { SidecarSettings } from '../settings/injector.ts';
import { decide, type Decision, earlierNotes } from './decide.ts';
import { patchOf } from './patch.ts';
import type { Places } from './places.ts';
import type { Remarks } from './remarks.ts';
import { aboutOf, answerOf, readReview, type Review } from './review.ts';
import type { WebhookAnswer } from './server.ts';
import type { Trust } from './trust.ts';

export interface MutationParts {
  readonly settings: SidecarSettings;
  readonly places: Pick<Places, 'isOne' | 'becomesOne'>;
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
    if (result !== 'unchanged') tell(parts, review, decision);
    if (decision.kind === 'injected' && !review.isDryRun)
      await withinDeadline(parts, bring(parts, review, result === 'unchanged' ? [] : decision.notes));
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

const withinDeadline = async ({ clock }: MutationParts, work: Promise<void>): Promise<void> => {
  let cancel = (): void => undefined;
  const deadline = new Promise<void>((resolve) => {
    cancel = clock.after(limits.trustEnsureTimeoutMs, resolve);
  });
  await Promise.race([work, deadline]);
  cancel();
};

/** What is done beside the answer. Only notes of this round become a remark: those that came with the pod may be anybody's words. */
const bring = async ({ places, trust, remarks }: MutationParts, { pod, namespace }: Review, notes: readonly string[]): Promise<void> => {
  const about = aboutOf(pod);
  const earlier = new Set(earlierNotes(pod));
  const message = notes.filter((note) => !earlier.has(note)).join('; ');
  const work = async (): Promise<void> => {
    if (about !== undefined && message !== '') remarks.send({ namespace, about, type: 'Normal', reason: 'OutriderInjected', message });
    await trust.ensure(namespace);
  };
  if (await places.isOne(namespace)) return work();
  void places.becomesOne(namespace).then((isOne) => (isOne ? work() : undefined));
};

/** Names of pods and namespaces, never a variable's value. */
const tell = ({ log }: MutationParts, { pod, namespace, isDryRun }: Review, decision: Decision): void => {
  const about = aboutOf(pod);
  const fields = { namespace, kind: about?.kind, name: about?.name, isDryRun };
  if (decision.kind === 'denied') log.warn({ ...fields, reasons: decision.reasons }, 'a pod cannot be injected');
  if (decision.kind === 'injected') log.info({ ...fields, notes: decision.notes }, 'a pod is injected');
};

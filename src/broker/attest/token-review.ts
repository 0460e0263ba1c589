/**
 * Verifies a projected service-account token by asking the API server (TokenReview), which also knows whether the pod still
 * exists. A call per token, forged ones included, whose signatures only the API server can judge. Nothing of the token becomes an attribute:
 * attributes are what the API server answers.
 * https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
 */
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import { outboundFetch } from '../../net/fetch.ts';
import type { TokenReviewAttestorSettings } from '../../settings/broker.ts';
import type { Attestor, AttestorDeps } from './attestor.ts';
import { attestedAs, checkIdentity, checkStandardClaims, checkSubject, type KubernetesIdentity } from './claims.ts';
import type { UnverifiedToken } from './compact-token.ts';
import { createSemaphore } from './semaphore.ts';
import { isJsonObject, type JsonObject } from '../../core/json.ts';
import { createNews } from '../../ops/news.ts';
import { readBearerFile, readCaFile } from '../../net/trust-files.ts';

const reviewPath = '/apis/authentication.k8s.io/v1/tokenreviews';

export const createTokenReviewAttestor = (settings: TokenReviewAttestorSettings, { clock, log }: AttestorDeps): Attestor => {
  const { name, issuer, audience } = settings;
  const reviews = createSemaphore({
    holdersMax: limits.tokenReviewsMax,
    waitingMax: limits.tokenReviewsWaitingMax,
    waitMs: limits.tokenReviewWaitMs,
    clock,
  });
  const isNews = createNews(clock);

  /** The API server's answer, or Fault evidence_unverifiable with a log line that says what to mend. */
  const review = async (token: UnverifiedToken): Promise<JsonObject> => {
    const unverifiable = (what: string, fields: { status?: number; error?: unknown }): Fault => {
      const { status = '', error } = fields;
      if (isNews(`${what} ${status} ${error instanceof Error ? error.message : ''}`))
        log.warn({ attestor: name, apiServer: settings.apiServer, ...fields }, what);
      return new Fault('evidence_unverifiable', { detail: 'The API server gave no verdict on the token.' });
    };
    if (!(await reviews.acquire())) throw unverifiable('too many TokenReviews are under way', {});
    try {
      const response = await postReview(settings, token);
      const { status } = response;
      if (status === 401) throw unverifiable("the API server does not accept the broker's own token", { status });
      if (status === 403) throw unverifiable('the broker may not create tokenreviews: bind it to system:auth-delegator', { status });
      if (status !== 200 && status !== 201) throw unverifiable('the API server failed to review a token', { status });
      const verdict = statusOf(await response.text());
      if (verdict === undefined) throw unverifiable('the API server did not answer with a TokenReview', { status });
      return verdict;
    } catch (error) {
      throw error instanceof Fault ? error : unverifiable('the API server cannot be asked to review a token', { error });
    } finally {
      reviews.release();
    }
  };

  return {
    name,
    issuer,
    audience,
    verify: async (token) => {
      const { expiresAtMs } = checkStandardClaims(token.claims, { issuer, audience }, clock.now());
      const status = await review(token);
      if (status['authenticated'] !== true) {
        log.info({ attestor: name, reason: reasonOf(status, token) }, 'the API server refused a token');
        throw new Fault('evidence_invalid', { detail: 'The API server does not accept the token.' });
      }
      const { audiences } = status as { audiences?: unknown };
      if (!Array.isArray(audiences) || !audiences.includes(audience)) {
        throw new Fault('evidence_audience', { detail: `The API server does not confirm the audience ${JSON.stringify(audience)}.` });
      }
      const identity = readUser(status['user']);
      checkSubject(token.claims['sub'], identity);
      // The configured issuer: the API server does not say which of its own it matched.
      return attestedAs(name, issuer, identity, expiresAtMs);
    },
  };
};

const postReview = async (settings: TokenReviewAttestorSettings, token: UnverifiedToken): Promise<Response> => {
  const caPem = await readCaFile(settings.caFile);
  const bearer = await readBearerFile(settings.authorizationTokenFile);
  const fetch = outboundFetch({ caPem, timeoutMs: limits.outboundTimeoutMs, bodyBytesMax: limits.outboundBodyBytesMax });
  return fetch(`${settings.apiServer.replace(/\/$/, '')}${reviewPath}`, {
    method: 'POST',
    headers: { accept: 'application/json', 'content-type': 'application/json', authorization: `Bearer ${bearer.reveal()}` },
    body: JSON.stringify({
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenReview',
      spec: { token: token.compact.reveal(), audiences: [settings.audience] },
    }),
  });
};

const statusOf = (text: string): JsonObject | undefined => {
  try {
    const body: unknown = JSON.parse(text);
    if (!isJsonObject(body) || body['kind'] !== 'TokenReview') return undefined;
    return isJsonObject(body['status']) ? body['status'] : undefined;
  } catch {
    return undefined;
  }
};

/** What the API server says against the token, for the log; withheld when it quotes the token. */
const reasonOf = (status: JsonObject, token: UnverifiedToken): string => {
  const { error } = status;
  if (typeof error !== 'string') return '';
  const quotes = token.compact
    .reveal()
    .split('.')
    .some((part) => error.includes(part));
  return quotes ? '(withheld: it quotes the token)' : error.slice(0, 300);
};

/** `status.user` as a service account bound to a pod, or Fault evidence_invalid. */
const readUser = (user: unknown): KubernetesIdentity => {
  const { username, uid, extra } = (isJsonObject(user) ? user : {}) as { username?: unknown; uid?: unknown; extra?: unknown };
  const [, namespace, serviceAccount] = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(typeof username === 'string' ? username : '') ?? [];
  if (namespace === undefined) throw new Fault('evidence_invalid', { detail: 'The token is not that of a service account.' });
  /** Every value of an extra is a list; one that does not hold exactly one value says nothing certain. */
  const only = (key: string): unknown => {
    const values = isJsonObject(extra) ? extra[`authentication.kubernetes.io/${key}`] : undefined;
    return Array.isArray(values) && values.length === 1 ? values[0] : undefined;
  };
  if (only('pod-name') === undefined) throw new Fault('evidence_invalid', { detail: 'The token is not bound to a pod.' });
  return checkIdentity({
    namespace,
    serviceAccount,
    serviceAccountUid: uid,
    pod: only('pod-name'),
    podUid: only('pod-uid'),
    node: only('node-name'),
    nodeUid: only('node-uid'),
  });
};

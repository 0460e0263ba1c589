/** What is particular to attestation by TokenReview: the call, its failures, and whose word counts. */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { limits } from '../../src/core/limits.ts';
import { answer } from '../fakes/api-server.ts';
import { startTokenReview } from '../fakes/attestors.ts';
import type { Json } from '../fakes/cluster-issuer.ts';
import { createTestAuthority } from '../support/certificates.ts';

t.test('the API server is asked about the token and our audience, with our own token, once for each attestation', async (t) => {
  const on = await startTokenReview(t);
  const token = on.issuer.token();
  await on.attest(token);
  await on.attest(token);
  t.same(
    on.apiServer.reviews,
    Array.from({ length: 2 }, () => ({ authorization: 'Bearer broker-token', token, audiences: ['outrider'] })),
  );
  t.same(on.issuer.requests, [], 'the issuer is not asked');
});

t.test('what the API server says counts, not what the token says', async (t) => {
  const on = await startTokenReview(t);
  on.apiServer.override = (response, status) => {
    const { user } = status as { user: { extra: Json } };
    const extra = {
      ...user.extra,
      'authentication.kubernetes.io/pod-name': ['another-pod'],
      'authentication.kubernetes.io/node-name': undefined,
    };
    answer(response, 201, { kind: 'TokenReview', status: { ...status, user: { ...user, uid: 'another-uid', extra } } });
  };
  const { attributes } = await on.attest(on.issuer.token());
  t.match(attributes, { 'kubernetes.pod': 'another-pod', 'kubernetes.service_account_uid': 'another-uid' });
  t.notOk('kubernetes.node' in attributes);
});

t.test("the token of a pod that was deleted is refused, and the API server's reason is logged", async (t) => {
  const on = await startTokenReview(t);
  t.equal(await on.result(on.issuer.token()), 'ok');
  on.apiServer.deletedPods.add('6f0f6ff0-6d29-4a6e-9f3a-0c6a9d9f1c22');
  t.equal(await on.result(on.issuer.token()), 'evidence_invalid');
  t.match(on.lines.at(-1), /invalid bearer token, service account token has been invalidated/);
});

t.test('a reason that quotes the token is not logged', async (t) => {
  const on = await startTokenReview(t);
  const token = on.issuer.token();
  for (const part of [token, ...token.split('.')]) {
    on.apiServer.override = (response) => answer(response, 201, { kind: 'TokenReview', status: { error: `cannot parse ${part} at all` } });
    t.equal(await on.result(token), 'evidence_invalid');
    t.match(on.lines.at(-1), /withheld/);
    t.notMatch(on.lines.join(''), part);
  }
});

t.test("authorities and the broker's own token are read anew for every call", async (t) => {
  const on = await startTokenReview(t);
  t.equal(await on.result(on.issuer.token()), 'ok');
  on.apiServer.callers.clear();
  on.apiServer.callers.set('rotated-token', true);
  writeFileSync(join(on.directory, 'token'), 'rotated-token');
  t.equal(await on.result(on.issuer.token()), 'ok');
  writeFileSync(join(on.directory, 'ca.pem'), createTestAuthority('someone else').pem);
  t.equal(await on.result(on.issuer.token()), 'evidence_unverifiable');
  t.equal(on.apiServer.reviews.length, 2, 'no token is sent to a server that is not trusted');
});

t.test('a failure of ours or of the API server is unverifiable, and the log says which', async (t) => {
  const on = await startTokenReview(t);
  const { apiServer, directory } = on;
  const reset = (): void => {
    apiServer.callers.clear();
    apiServer.callers.set('broker-token', true);
    apiServer.override = undefined;
    writeFileSync(join(directory, 'token'), 'broker-token');
    writeFileSync(join(directory, 'ca.pem'), apiServer.caPem);
  };
  const failures: [string, () => void, RegExp][] = [
    ['our token is not accepted', () => apiServer.callers.clear(), /does not accept the broker's own token/],
    ['we may not review tokens', () => apiServer.callers.set('broker-token', false), /may not create tokenreviews.*system:auth-delegator/],
    [
      'it fails',
      () => (apiServer.override = (response) => answer(response, 500, { kind: 'Status' })),
      /"status":500.*failed to review a token/,
    ],
    ['it is busy', () => (apiServer.override = (response) => answer(response, 429, { kind: 'Status' })), /"status":429/],
    [
      'it redirects',
      () => (apiServer.override = (response) => void response.writeHead(307, { location: `${apiServer.url}/x` }).end()),
      /"status":307/,
    ],
    ['it breaks off', () => (apiServer.override = (response) => void response.destroy()), /unreachable/],
    [
      'it answers with text',
      () => (apiServer.override = (response) => void response.writeHead(201).end('fine')),
      /did not answer with a TokenReview/,
    ],
    [
      'it answers with another kind',
      () => (apiServer.override = (response, status) => answer(response, 201, { kind: 'Review', status })),
      /did not answer with a TokenReview/,
    ],
    [
      'it answers without a status',
      () => (apiServer.override = (response) => answer(response, 201, { kind: 'TokenReview' })),
      /did not answer with a TokenReview/,
    ],
    [
      'it answers with too much',
      () => (apiServer.override = (response) => answer(response, 201, { x: 'x'.repeat(limits.outboundBodyBytesMax) })),
      /too_large/,
    ],
    ['our token file is gone', () => rmSync(join(directory, 'token')), /ENOENT/],
    ['our token file is empty', () => writeFileSync(join(directory, 'token'), '\n'), /does not hold one bearer token/],
    ['the CA file is empty', () => writeFileSync(join(directory, 'ca.pem'), ''), /holds no certificate/],
  ];
  for (const [name, fail, logged] of failures) {
    reset();
    fail();
    t.equal(await on.result(on.issuer.token()), 'evidence_unverifiable', name);
    t.match(on.lines.at(-1), logged, name);
  }
  reset();
  t.equal(await on.result(on.issuer.token()), 'ok');
  for (const line of on.lines) t.notMatch(line, /broker-token/);
});

const verdicts: readonly (readonly [name: string, change: (status: Json, user: Json, extra: Json) => Json, code: string])[] = [
  ['authenticated false', (status) => ({ ...status, authenticated: false }), 'evidence_invalid'],
  ['authenticated absent', (status) => ({ ...status, authenticated: undefined }), 'evidence_invalid'],
  ['authenticated as a word', (status) => ({ ...status, authenticated: 'true' }), 'evidence_invalid'],
  ['no audiences: an API server that does not know them', (status) => ({ ...status, audiences: undefined }), 'evidence_audience'],
  ['other audiences', (status) => ({ ...status, audiences: ['outrider-staging'] }), 'evidence_audience'],
  ['audiences as one string that contains ours', (status) => ({ ...status, audiences: 'outrider-staging' }), 'evidence_audience'],
  ['no user', (status) => ({ ...status, user: undefined }), 'evidence_invalid'],
  ['a person', (status, user) => ({ ...status, user: { ...user, username: 'admin' } }), 'evidence_invalid'],
  ['a node', (status, user) => ({ ...status, user: { ...user, username: 'system:node:demo:demo-app' } }), 'evidence_invalid'],
  [
    'a name in four parts',
    (status, user) => ({ ...status, user: { ...user, username: 'system:serviceaccount:demo:demo-app:x' } }),
    'evidence_invalid',
  ],
  [
    'another service account than the token names',
    (status, user) => ({ ...status, user: { ...user, username: 'system:serviceaccount:demo:other' } }),
    'evidence_invalid',
  ],
  ['no UID', (status, user) => ({ ...status, user: { ...user, uid: undefined } }), 'evidence_invalid'],
  ['no extra', (status, user) => ({ ...status, user: { ...user, extra: undefined } }), 'evidence_invalid'],
  [
    'two pods',
    (status, user, extra) => ({ ...status, user: { ...user, extra: { ...extra, 'authentication.kubernetes.io/pod-name': ['a', 'b'] } } }),
    'evidence_invalid',
  ],
  [
    'a pod that is no list',
    (status, user, extra) => ({ ...status, user: { ...user, extra: { ...extra, 'authentication.kubernetes.io/pod-name': 'a' } } }),
    'evidence_invalid',
  ],
  [
    'a pod without a UID',
    (status, user, extra) => ({ ...status, user: { ...user, extra: { ...extra, 'authentication.kubernetes.io/pod-uid': [] } } }),
    'evidence_invalid',
  ],
  [
    'a pod with a name that is none',
    (status, user, extra) => ({ ...status, user: { ...user, extra: { ...extra, 'authentication.kubernetes.io/pod-name': ['a/b'] } } }),
    'evidence_invalid',
  ],
  ['nothing changed', (status) => status, 'ok'],
];
t.test('a verdict that is not a plain yes for a pod of ours is refused', async (t) => {
  const on = await startTokenReview(t);
  for (const [name, change, code] of verdicts) {
    on.apiServer.override = (response, status) => {
      const { user } = status as { user: Json };
      answer(response, 201, { kind: 'TokenReview', status: change(status, user, user['extra'] as Json) });
    };
    t.equal(await on.result(on.issuer.token()), code, name);
  }
});

t.test('an API server that stays silent is given up in time, and no more than a bounded number of calls wait for it', async (t) => {
  const on = await startTokenReview(t);
  on.apiServer.override = () => {};
  const token = on.issuer.token();
  const begun = performance.now();
  // By a timer of this process, which a machine that stands still holds back as long.
  let isLate = false;
  const late = setTimeout(() => (isLate = true), limits.outboundTimeoutMs * 1.5);
  const waiting = Array.from({ length: limits.tokenReviewsMax }, () => on.result(token));
  const inLine = Array.from({ length: limits.tokenReviewsWaitingMax }, () => on.result(token));
  t.equal(await on.result(token), 'evidence_unverifiable');
  t.match(on.lines.at(-1), /too many TokenReviews are under way/);
  on.clock.advance(limits.tokenReviewWaitMs);
  t.ok((await Promise.all(inLine)).every((result) => result === 'evidence_unverifiable'));
  t.ok(performance.now() - begun < limits.outboundTimeoutMs, 'the one too many is refused at once, and those in line after their time');
  t.ok((await Promise.all(waiting)).every((result) => result === 'evidence_unverifiable'));
  t.match(on.lines.at(-1), /timeout/);
  t.notOk(isLate, 'all were given up in time');
  clearTimeout(late);
  on.apiServer.override = undefined;
  t.equal(await on.result(token), 'ok', 'and the places are free again');
});

t.test('forged tokens that hold all places keep nobody out: whoever comes waits for one', async (t) => {
  const on = await startTokenReview(t);
  const token = on.issuer.token();
  const held: (() => void)[] = [];
  let heldAll: () => void = () => undefined;
  const full = new Promise<void>((resolve) => (heldAll = resolve));
  on.apiServer.override = (response) => {
    held.push(() => answer(response, 201, { kind: 'TokenReview', status: { authenticated: false } }));
    if (held.length === limits.tokenReviewsMax) heldAll();
  };
  const forged = Array.from({ length: limits.tokenReviewsMax }, () => on.result(token));
  await full;
  const honest = on.result(token);
  on.apiServer.override = undefined;
  held.shift()?.();
  t.equal(await honest, 'ok', 'while all others still hold theirs');
  for (const release of held) release();
  t.strictSame(new Set(await Promise.all(forged)), new Set(['evidence_invalid']));
});

t.test('one reason is logged once in a while, however often it is met, and another one at once', async (t) => {
  const on = await startTokenReview(t);
  const token = on.issuer.token();
  const warnings = (): number => on.lines.filter((line) => line.includes('failed to review a token')).length;
  const meet = async (status: number): Promise<void> => {
    on.apiServer.override = (response) => answer(response, status, { kind: 'Status' });
    t.equal(await on.result(token), 'evidence_unverifiable');
  };
  for (const status of [500, 500, 500]) await meet(status);
  t.equal(warnings(), 1);
  await meet(429);
  t.equal(warnings(), 2);
  on.clock.advance(limits.refusalLogIntervalMs);
  await meet(500);
  t.equal(warnings(), 3);
});

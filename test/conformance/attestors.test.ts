/**
 * What every attestor of Kubernetes tokens does, run against each form: by the issuer's JWKS, and by TokenReview. Every refusal
 * has its exact code and a twin that differs in nothing but the fault and is accepted. The attacks are those of THREATS P-6.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Attesting, startProjectedToken, startTokenReview } from '../fakes/attestors.ts';
import type { Json } from '../fakes/cluster-issuer.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { algorithms, elliptic, encodings, keyTricks, signatures } from './attestors/attacks.ts';
import { audiences, bindings, issuers, times } from './attestors/claims.ts';
import { bound, seconds } from './attestors/vector.ts';

interface Form {
  readonly name: string;
  readonly start: (t: Test) => Promise<Attesting & { readonly reviews?: () => number }>;
}

const forms: readonly Form[] = [
  { name: 'projected_token', start: startProjectedToken },
  {
    name: 'token_review',
    start: async (t) => {
      const started = await startTokenReview(t);
      return { ...started, reviews: () => started.apiServer.reviews.length };
    },
  },
];

/** Refused before anything is asked of an issuer or API server, being unreadable or plainly not for us. */
const unasked = new Set(
  [...times, ...audiences, ...issuers, ...algorithms, ...encodings].filter(({ name }) => !/ES256 with an RSA|prototype/.test(name)),
);

for (const { name: form, start } of forms) {
  t.test(`${form}: a genuine token yields what it says, no more and no less`, async (t) => {
    const on = await start(t);
    const attested = await on.attest(on.issuer.token());
    t.same(attested, {
      attestor: 'cluster',
      attributes: {
        'kubernetes.namespace': 'demo',
        'kubernetes.service_account': 'demo-app',
        'kubernetes.service_account_uid': 'b0a1c2d3-0b7e-4b11-8a4e-5f6a7b8c9d33',
        'kubernetes.pod': 'demo-app-5d9c7b7c9-x2x4k',
        'kubernetes.pod_uid': '6f0f6ff0-6d29-4a6e-9f3a-0c6a9d9f1c22',
        'kubernetes.node': 'node-1.outrider.test',
        'kubernetes.node_uid': '9c3e3a3c-1f0a-4f5a-9a51-2f2a4b0e5f11',
        'token.issuer': on.issuer.url,
        'token.subject': 'system:serviceaccount:demo:demo-app',
      },
      spiffeSegments: ['ns', 'demo', 'sa', 'demo-app'],
      evidenceExpiresAtMs: (seconds(on) + 3600) * 1000,
    });
    const { attributes } = await on.attest(on.issuer.token({ claims: bound(on, { node: undefined }) }));
    t.notOk('kubernetes.node' in attributes || 'kubernetes.node_uid' in attributes, 'no node where the token names none');
    t.same(on.attempts, ['cluster ok', 'cluster ok']);
  });

  t.test(`${form}: nothing at all is evidence_missing`, async (t) => {
    const on = await start(t);
    t.equal(await on.result(''), 'evidence_missing');
    t.same(on.attempts, [' evidence_missing']);
  });

  for (const algorithm of ['RS256', 'ES256', 'ES384', 'ES512'] as const) {
    t.test(
      `${form}: ${algorithm} is accepted, and a rotated key beside the old one during the overlap, then the old one no more`,
      async (t) => {
        const on = await start(t);
        const before = on.issuer.token();
        t.equal(await on.result(before), 'ok');
        on.issuer.rotate(algorithm);
        on.clock.advance(5_000);
        t.equal(await on.result(on.issuer.token()), 'ok', 'signed by the new key');
        t.equal(await on.result(before), 'ok', 'signed by the old key, still published');
        on.issuer.keys.shift();
        on.clock.advance(600_000);
        t.equal(await on.result(on.issuer.token()), 'ok');
        t.equal(await on.result(before), 'evidence_invalid', 'signed by a key that was withdrawn');
      },
    );
  }

  t.test(`${form}: clocks may differ by a minute and no more`, async (t) => {
    const on = await start(t);
    // An API server has no such tolerance for expiry, and the last word.
    if (form === 'projected_token') t.equal(await on.result(on.issuer.token({ claims: { exp: seconds(on) - 59 } })), 'ok');
    t.equal(await on.result(on.issuer.token({ claims: { exp: seconds(on) - 60 } })), 'evidence_expired');
    t.equal(await on.result(on.issuer.token({ claims: { iat: seconds(on) + 59 } })), 'ok');
    t.equal(await on.result(on.issuer.token({ claims: { iat: seconds(on) + 61 } })), 'evidence_not_yet_valid');
  });

  for (const [group, vectors] of Object.entries({ times, audiences, issuers, bindings, algorithms, keyTricks, signatures, encodings })) {
    t.test(`${form}: ${group}: each fault has its code, and its twin is accepted`, async (t) => {
      const on = await start(t);
      on.issuer.keys.unshift(elliptic);
      for (const { name, code, bad, good } of vectors) {
        const token = bad(on);
        const fault = await on.fault(token);
        t.equal(fault?.code, code, name);
        t.equal(await on.result(good(on)), 'ok', `the twin of: ${name}`);
        const shown = `${fault?.message} ${fault?.detail} ${on.lines.join('')}`;
        for (const part of token.split('.').filter(({ length }) => length > 40))
          if (shown.includes(part)) t.fail(`${name}: the token shows`);
      }
    });
  }

  t.test(`${form}: what is unreadable or plainly not for us is refused without a call`, async (t) => {
    const on = await start(t);
    for (const { bad } of unasked) await on.fault(bad(on));
    t.ok(unasked.size > 60);
    t.same(on.issuer.requests, []);
    t.equal(on.reviews?.() ?? 0, 0);
  });

  t.test(`${form}: a fault names what was expected and what came, for audience and issuer`, async (t) => {
    const on = await start(t);
    const detailOf = async (changes: Json): Promise<string | undefined> => (await on.fault(on.issuer.token({ claims: changes })))?.detail;
    t.equal(await detailOf({ aud: ['api'] }), 'aud is ["api"], expected "outrider".');
    t.equal(await detailOf({ iss: 'https://a.outrider.test' }), 'No attestor is for iss "https://a.outrider.test".');
    t.equal(await detailOf({ exp: 1 }), 'exp is 1970-01-01T00:00:01.000Z.');
    t.equal(await detailOf(bound(on, { pod: undefined })), 'The token is not bound to a pod.');
    const long = await detailOf({ aud: `\u001b[31m\u202e${'x'.repeat(5_000)}` });
    t.ok(long && long.length < 300 && /^[\x20-\x7e…]*$/.test(long), 'short and printable, whatever came');
  });

  t.test(`${form}: an issuer or API server that cannot be trusted makes it unverifiable, not invalid`, async (t) => {
    const on = await start(t);
    writeFileSync(join(on.directory, 'ca.pem'), createTestAuthority('someone else').pem);
    t.equal(await on.result(on.issuer.token()), 'evidence_unverifiable');
    t.match(on.lines.at(-1), /UNABLE_TO_VERIFY_LEAF_SIGNATURE/);
  });
}

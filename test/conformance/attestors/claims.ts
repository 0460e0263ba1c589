/** Tokens whose signature is genuine and whose claims are not good enough. */
import type { Attesting } from '../../fakes/attestors.ts';
import { bound, claims, parts, seconds, type Vector } from './vector.ts';

export const times: readonly Vector[] = [
  claims(
    'expired',
    'evidence_expired',
    (on) => ({ exp: seconds(on) - 61 }),
    (on) => ({ exp: seconds(on) + 61 }),
  ),
  claims(
    'not yet valid by nbf',
    'evidence_not_yet_valid',
    (on) => ({ nbf: seconds(on) + 62 }),
    (on) => ({ nbf: seconds(on) }),
  ),
  claims(
    'issued in the future',
    'evidence_not_yet_valid',
    (on) => ({ iat: seconds(on) + 62 }),
    (on) => ({ iat: seconds(on) }),
  ),
  claims('exp absent', 'evidence_invalid', () => ({ exp: undefined })),
  claims(
    'exp a string',
    'evidence_invalid',
    (on) => ({ exp: String(seconds(on) + 600) }),
    (on) => ({ exp: seconds(on) + 600 }),
  ),
  claims('exp null', 'evidence_invalid', () => ({ exp: null })),
  claims('exp a list', 'evidence_invalid', (on) => ({ exp: [seconds(on) + 600] })),
  claims('exp true', 'evidence_invalid', () => ({ exp: true })),
  claims('exp negative', 'evidence_invalid', () => ({ exp: -1 })),
  claims('exp past the year 9999', 'evidence_invalid', () => ({ exp: 253_402_300_800 })),
  ...['NaN', 'Infinity', '1e999', '0x7fffffff', '+9999999999'].map((exp) =>
    parts(
      `exp ${exp}`,
      'evidence_invalid',
      (on) => ({ claimsText: withExp(on, exp) }),
      (on) => ({ claimsText: withExp(on, String(seconds(on) + 600)) }),
    ),
  ),
  claims(
    'nbf a string',
    'evidence_invalid',
    () => ({ nbf: '0' }),
    () => ({ nbf: 0 }),
  ),
  claims(
    'iat a string',
    'evidence_invalid',
    () => ({ iat: '0' }),
    () => ({ iat: undefined }),
  ),
];
const withExp = (on: Attesting, exp: string): string => JSON.stringify(on.issuer.claims({ exp: '@' })).replace('"@"', exp);

export const audiences: readonly Vector[] = [
  claims(
    'another audience',
    'evidence_audience',
    () => ({ aud: ['https://kubernetes.default.svc'] }),
    () => ({ aud: ['outrider'] }),
  ),
  claims(
    'an audience that contains ours',
    'evidence_audience',
    () => ({ aud: 'outrider-staging' }),
    () => ({ aud: 'outrider' }),
  ),
  claims(
    'an audience that ours contains',
    'evidence_audience',
    () => ({ aud: ['out'] }),
    () => ({ aud: ['other', 'outrider'] }),
  ),
  claims('our audience in other letters', 'evidence_audience', () => ({ aud: ['Outrider'] })),
  claims('our audience and a space', 'evidence_audience', () => ({ aud: ['outrider '] })),
  claims(
    'our audience among others in one string',
    'evidence_audience',
    () => ({ aud: 'other outrider' }),
    () => ({ aud: ['outrider', 'other'] }),
  ),
  claims('no audience', 'evidence_audience', () => ({ aud: undefined })),
  claims('an empty list of audiences', 'evidence_audience', () => ({ aud: [] })),
  claims('audiences in a list in a list', 'evidence_audience', () => ({ aud: [['outrider']] })),
  claims('audiences as an object', 'evidence_audience', () => ({ aud: { outrider: true } })),
  claims('a list with something else in it', 'evidence_audience', () => ({ aud: ['outrider', 1] })),
];

export const issuers: readonly Vector[] = [
  claims('another issuer', 'evidence_issuer', () => ({ iss: 'https://other.outrider.test' })),
  claims(
    'our issuer and a slash',
    'evidence_issuer',
    ({ issuer }) => ({ iss: `${issuer.url}/` }),
    ({ issuer }) => ({ iss: issuer.url }),
  ),
  claims('our issuer in other letters', 'evidence_issuer', ({ issuer }) => ({ iss: issuer.url.toUpperCase() })),
  claims('no issuer', 'evidence_issuer', () => ({ iss: undefined })),
  claims('a list of issuers', 'evidence_issuer', ({ issuer }) => ({ iss: [issuer.url] })),
];

export const bindings: readonly Vector[] = [
  claims('not bound to a pod', 'evidence_invalid', (on) => bound(on, { pod: undefined })),
  claims('bound to a secret instead', 'evidence_invalid', (on) => bound(on, { pod: undefined, secret: { name: 's', uid: 'u' } })),
  claims('no kubernetes.io claims', 'evidence_invalid', () => ({ 'kubernetes.io': undefined })),
  claims(
    'a pod without a UID',
    'evidence_invalid',
    (on) => bound(on, { pod: { name: 'a' } }),
    (on) => bound(on, { pod: { name: 'a', uid: '1' } }),
  ),
  claims('a pod without a name', 'evidence_invalid', (on) => bound(on, { pod: { uid: '1' } })),
  claims('a service account without a UID', 'evidence_invalid', (on) => bound(on, { serviceaccount: { name: 'demo-app' } })),
  claims('sub of another service account', 'evidence_invalid', () => ({ sub: 'system:serviceaccount:demo:other' })),
  claims('sub of another namespace', 'evidence_invalid', () => ({ sub: 'system:serviceaccount:kube-system:demo-app' })),
  claims('no sub', 'evidence_invalid', () => ({ sub: undefined })),
  claims(
    'another sub than the names say',
    'evidence_invalid',
    (on) => bound(on, { namespace: 'other' }),
    (on) => ({ ...bound(on, { namespace: 'other' }), sub: 'system:serviceaccount:other:demo-app' }),
  ),
  ...['a/b', '..', '.', '', 'a b', 'ä', '%2f', 'a'.repeat(254), 'A', 'a:b', 'a\n'].map((name) =>
    claims(
      `a service account named ${JSON.stringify(name.slice(0, 20))}`,
      'evidence_invalid',
      (on) => ({ ...bound(on, { serviceaccount: { name, uid: '1' } }), sub: `system:serviceaccount:demo:${name}` }),
      (on) => ({ ...bound(on, { serviceaccount: { name: 'a.b-c.1', uid: '1' } }), sub: 'system:serviceaccount:demo:a.b-c.1' }),
    ),
  ),
  claims('a namespace with a dot', 'evidence_invalid', (on) => ({
    ...bound(on, { namespace: 'a.b' }),
    sub: 'system:serviceaccount:a.b:demo-app',
  })),
  claims('a pod name with a slash', 'evidence_invalid', (on) => bound(on, { pod: { name: 'a/b', uid: '1' } })),
  claims(
    'a node name with a slash',
    'evidence_invalid',
    (on) => bound(on, { node: { name: 'a/b', uid: '1' } }),
    (on) => bound(on, { node: undefined }),
  ),
];

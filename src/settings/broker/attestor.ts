/** How an operator writes an attestor. */
import * as z from 'zod';
import { url } from '../address.ts';
import type { AttestorSettings, ProjectedTokenAttestorSettings, TokenReviewAttestorSettings } from '../broker.ts';
import { keys, variant } from '../grammar.ts';
import { filePath, name, printable } from '../text.ts';

const kinds = ['projected_token', 'token_review'] as const satisfies readonly AttestorSettings['kind'][];

/** The broker's own: a token made for anything else, the API server included, must not pass here. */
const audience = printable({ what: 'an audience', write: 'the one that the projected tokens are made for, such as outrider' });
const caFile = filePath('/etc/outrider/issuer-ca.pem').optional();
const issuer = url({ write: 'https://kubernetes.default.svc.cluster.local' });

const projectedToken = keys(
  {
    kind: z.literal('projected_token'),
    name,
    issuer,
    audience,
    caFile,
    authorizationTokenFile: filePath('/var/run/secrets/outrider/token').optional(),
  },
  '',
).transform(
  ({ caFile, authorizationTokenFile, ...written }): ProjectedTokenAttestorSettings => ({ ...written, caFile, authorizationTokenFile }),
);

const tokenReview = keys(
  {
    kind: z.literal('token_review'),
    name,
    issuer,
    audience,
    apiServer: url({ write: 'https://kubernetes.default.svc', strict: true }),
    caFile,
    authorizationTokenFile: filePath('/var/run/secrets/kubernetes.io/serviceaccount/token'),
  },
  '',
).transform(({ caFile, ...written }): TokenReviewAttestorSettings => ({ ...written, caFile }));

export const attestor = variant('kind', kinds, [projectedToken, tokenReview]);

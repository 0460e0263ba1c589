/** How an operator writes a provider. Secrets are named by where they are; a literal one is refused and never shown. */
import * as z from 'zod';
import { providerKinds } from '../../core/grant.ts';
import { limits } from '../../core/limits.ts';
import { url } from '../address.ts';
import type {
  JwtProviderSettings,
  OAuth2ProviderSettings,
  SecretSource,
  StaticFileProviderSettings,
  X509ProviderSettings,
} from '../broker.ts';
import { duration } from '../duration.ts';
import { keys, list, oneOf, scalar, variant } from '../grammar.ts';
import { environmentName, filePath, name, printable } from '../text.ts';

const sourceExample = '{file: /run/secrets/NAME} or {env: NAME}';
const sourceMessage = `must be where the secret is, never the secret itself, write ${sourceExample}`;

/** Its keys may be a secret too (`{hunter}` is YAML), so other keys than ours are refused without naming them. */
const secretSource = z
  .looseObject(
    { file: filePath('/run/secrets/client-secret').optional(), env: environmentName.optional() },
    { error: (issue) => (issue.input === undefined ? `is missing, write ${sourceExample}` : sourceMessage) },
  )
  .meta({ additionalProperties: false })
  .transform((written, context): SecretSource => {
    const { file, env } = written;
    if (Object.keys(written).every((key) => key === 'file' || key === 'env')) {
      if (file !== undefined && env === undefined) return { file };
      if (env !== undefined && file === undefined) return { env };
    }
    context.addIssue({ code: 'custom', message: sourceMessage });
    return z.NEVER;
  });

/** Shortest lives that still leave time for a refresh ahead of expiry. */
const secondMs = 1_000;

const jwt = keys(
  {
    kind: z.literal('jwt'),
    name,
    audience: printable({ what: 'an audience', write: 'the one that the target expects, such as https://api.example.com' }),
    lifetime: duration({ minMs: secondMs, maxMs: limits.mintedTokenLifetimeMaxMs, write: '5m' }).default(300_000),
  },
  '',
).transform(({ lifetime, ...written }): JwtProviderSettings => ({ ...written, lifetimeMs: lifetime }));

const secretMethods = ['client_secret_basic', 'client_secret_post'] as const;
const bySecret = keys({ method: z.enum(secretMethods), clientSecret: secretSource }, '').transform(({ method, clientSecret }) => ({
  method,
  secret: clientSecret,
}));

const byKey = keys(
  {
    method: z.literal('private_key_jwt'),
    key: secretSource,
    keyId: printable({ what: 'a key id', write: 'it as the authorization server lists it' }).optional(),
    algorithm: oneOf(['ES256', 'RS256', 'PS256']).default('ES256'),
    audience: printable({ what: 'an audience', write: 'the URL that the authorization server expects' }).optional(),
  },
  '',
).transform(({ keyId, audience, ...written }) => ({ ...written, keyId, audience }));

/** Scope tokens of RFC 6749 section 3.3. */
const scope = scalar({ what: 'a scope', write: 'one scope an item, without spaces, such as orders:read' }, (text) =>
  /^[\x21\x23-\x5b\x5d-\x7e]{1,256}$/.test(text) ? text : undefined,
);

/** What the broker writes into the form itself. */
const ownParameters = new Set(['grant_type', 'client_id', 'client_secret', 'client_assertion', 'client_assertion_type', 'scope']);
const parameterName = z
  .string()
  .refine((key) => /^[A-Za-z][A-Za-z0-9_.-]{0,63}$/.test(key), {
    error: 'is not the name of a form parameter, write for example audience',
    abort: true,
  })
  .refine((key) => !ownParameters.has(key), { error: 'is a parameter that clientId, clientAuthentication and scopes set, remove it' });
const parameters = z.record(parameterName, printable({ what: 'a parameter', write: 'one line of ASCII, no secret' }), {
  error: 'must be a mapping, write for example {audience: https://api.example.com}',
});

const oauth2ClientCredentials = keys(
  {
    kind: z.literal('oauth2_client_credentials'),
    name,
    tokenUrl: url({ write: 'https://login.example.com/oauth2/token' }),
    clientId: printable({ what: 'a client id', write: 'it as the authorization server lists it' }),
    clientAuthentication: variant('method', [...secretMethods, 'private_key_jwt'], [bySecret, byKey]),
    scopes: list(scope, { write: '[orders:read]' }).default([]),
    parameters: parameters.default({}),
    caFile: filePath('/etc/outrider/login-ca.pem').optional(),
  },
  '',
).transform(({ caFile, ...written }): OAuth2ProviderSettings => ({ ...written, caFile }));

const staticFile = keys(
  {
    kind: z.literal('static_file'),
    name,
    file: filePath('/run/secrets/api-key'),
    recheck: duration({ minMs: secondMs, maxMs: limits.grantLifetimeMaxMs, write: '5m' }).default(300_000),
  },
  '',
).transform(({ recheck, ...written }): StaticFileProviderSettings => ({ ...written, recheckMs: recheck }));

const certificateLifetime = duration({
  minMs: limits.clientCertificateLifetimeMinMs,
  maxMs: limits.clientCertificateLifetimeMaxMs,
  write: '1h',
}).default(3_600_000);
const x509 = keys({ kind: z.literal('x509'), name, lifetime: certificateLifetime }, '').transform(
  ({ lifetime, ...written }): X509ProviderSettings => ({ ...written, lifetimeMs: lifetime }),
);

export const provider = variant('kind', providerKinds, [jwt, oauth2ClientCredentials, staticFile, x509]);

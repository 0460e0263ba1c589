/** What an operator writes for the broker. How each part is written is in broker/; how the parts must fit, in broker/references.ts. */
import * as z from 'zod';
import type { Placement } from '../core/grant.ts';
import type { Effect } from '../core/policy.ts';
import type { EchoTreatment, PathReading, TargetProtocol, TlsVersion } from '../core/target.ts';
import { type ListenAddress, listenAddress } from './address.ts';
import { attestor } from './broker/attestor.ts';
import { issuer } from './broker/issuer.ts';
import { policy } from './broker/policy.ts';
import { provider } from './broker/provider.ts';
import { sharedKeys } from './broker/shared-keys.ts';
import { target } from './broker/target.ts';
import { workload } from './broker/workload.ts';
import { duration } from './duration.ts';
import { keys, list } from './grammar.ts';
import { type LogLevel, log } from './logging.ts';
import { filePath, trustDomain } from './text.ts';

export interface ProjectedTokenAttestorSettings {
  readonly kind: 'projected_token';
  readonly name: string;
  /** Exactly the `iss` of its tokens; `<issuer>/.well-known/openid-configuration` must answer. */
  readonly issuer: string;
  readonly audience: string;
  /** PEM to trust for discovery and JWKS instead of the system's roots; undefined for those. Re-read on use. */
  readonly caFile: string | undefined;
  /** Bearer token for discovery and JWKS (API servers ask for one by default). Re-read on use. */
  readonly authorizationTokenFile: string | undefined;
}

export interface TokenReviewAttestorSettings {
  readonly kind: 'token_review';
  readonly name: string;
  /** Which tokens are sent to this API server: those with this `iss`. */
  readonly issuer: string;
  readonly audience: string;
  /** Base URL, e.g. https://kubernetes.default.svc */
  readonly apiServer: string;
  readonly caFile: string | undefined;
  /** The broker's own token, to call TokenReview with. Re-read on use. */
  readonly authorizationTokenFile: string;
}

export type AttestorSettings = ProjectedTokenAttestorSettings | TokenReviewAttestorSettings;

export interface WorkloadSettings {
  readonly name: string;
  /** Only evidence verified by this attestor; undefined for any. */
  readonly attestor: string | undefined;
  /** Attribute name to wanted value; a trailing "*" matches any rest. All must match. */
  readonly match: Readonly<Record<string, string>>;
  readonly owner: string | undefined;
  /** After this instant the workload matches nothing. */
  readonly expiresAtMs: number | undefined;
}

/** Where a secret is, never the secret itself. */
export type SecretSource = { readonly file: string } | { readonly env: string };

export interface JwtProviderSettings {
  readonly kind: 'jwt';
  readonly name: string;
  readonly audience: string;
  /** At most 10 minutes. */
  readonly lifetimeMs: number;
}

export interface OAuth2ProviderSettings {
  readonly kind: 'oauth2_client_credentials';
  readonly name: string;
  readonly tokenUrl: string;
  readonly clientId: string;
  readonly clientAuthentication:
    | { readonly method: 'client_secret_basic' | 'client_secret_post'; readonly secret: SecretSource }
    /** PKCS #8 PEM (RFC 7523 section 2.2). */
    | {
        readonly method: 'private_key_jwt';
        readonly key: SecretSource;
        readonly keyId: string | undefined;
        readonly algorithm: 'ES256' | 'RS256' | 'PS256';
        /** `aud` of the assertion; undefined for the token URL. */
        readonly audience: string | undefined;
      };
  readonly scopes: readonly string[];
  /** Further form parameters, e.g. audience or resource. */
  readonly parameters: Readonly<Record<string, string>>;
  readonly caFile: string | undefined;
}

export interface StaticFileProviderSettings {
  readonly kind: 'static_file';
  readonly name: string;
  /** Re-read for every grant; one trailing newline is dropped. */
  readonly file: string;
  /** How long a grant with it lives before the file is read again. */
  readonly recheckMs: number;
}

/** A client certificate of the trust domain, made for each grant. */
export interface X509ProviderSettings {
  readonly kind: 'x509';
  readonly name: string;
  /** At most 24 hours. */
  readonly lifetimeMs: number;
}

export type ProviderSettings = JwtProviderSettings | OAuth2ProviderSettings | StaticFileProviderSettings | X509ProviderSettings;

export interface TargetSettings {
  readonly name: string;
  /** Canonical exact hosts. */
  readonly hosts: readonly string[];
  readonly ports: readonly number[];
  readonly cleartext: 'allowed' | 'refused';
  readonly caFile: string | undefined;
  readonly protocol: TargetProtocol;
  readonly tlsVersionMin: TlsVersion;
  readonly echo: EchoTreatment;
  readonly paths: PathReading;
  /** '' for none. */
  readonly placeholder: string;
  readonly credentials: readonly { readonly provider: string; readonly placement: Placement }[];
}

export interface PolicySettings {
  readonly name: string;
  readonly rules: readonly RuleSettings[];
}

export interface RuleSettings {
  readonly name: string;
  readonly effect: Effect;
  /** Names of workloads; empty for all. */
  readonly workloads: readonly string[];
  /** Names of targets; empty for all. */
  readonly targets: readonly string[];
  readonly methods: readonly string[];
  readonly paths: readonly string[];
}

export interface IssuerSettings {
  /** `iss` of minted tokens; discovery and JWKS are served below it. */
  readonly url: string;
  readonly listen: ListenAddress;
  readonly algorithm: 'ES256' | 'RS256';
  /** How often the signing key changes. The next key is published one overlap before, the last one kept one overlap after. */
  readonly keyLifetimeMs: number;
  readonly keyOverlapMs: number;
  /** Serving certificate; undefined: one by the trust domain's authority. */
  readonly tls: { readonly certFile: string; readonly keyFile: string } | undefined;
}

/** Where several brokers that work as one keep their authority and their token-signing keys: in objects that exist already. */
export interface SharedKeysSettings {
  /** Base URL, e.g. https://kubernetes.default.svc */
  readonly apiServer: string;
  /** PEM to trust instead of the system's roots; undefined for those. Re-read on use. */
  readonly caFile: string | undefined;
  /** The broker's own token. Re-read on use. */
  readonly tokenFile: string;
  /** Of both objects. */
  readonly namespace: string;
  readonly secret: string;
  /** Where the trust domain's authorities are published, key `ca.pem`. */
  readonly configMap: string;
}

export interface BrokerSettings {
  readonly kind: 'broker';
  readonly trustDomain: string;
  /** Where the embedded store with keys and leases is; created with mode 0700. With `sharedKeys`, leases alone. */
  readonly stateDir: string;
  /** Undefined: one broker, whose keys are in its `stateDir`. */
  readonly sharedKeys: SharedKeysSettings | undefined;
  /** Where the trust domain's authorities are written, PEM, for proxies and collectors to mount. */
  readonly bundleFile: string;
  readonly listen: ListenAddress;
  readonly admin: ListenAddress;
  readonly issuer: IssuerSettings;
  readonly svidLifetimeMs: number;
  readonly attestors: readonly AttestorSettings[];
  readonly workloads: readonly WorkloadSettings[];
  readonly providers: readonly ProviderSettings[];
  readonly targets: readonly TargetSettings[];
  readonly policies: readonly PolicySettings[];
  readonly log: { readonly level: LogLevel };
}

/** An SVID is renewed at half its life; past a day, a stolen key would stay useful for too long. */
const svidLifetimeMaxMs = 24 * 3_600_000;

export const brokerSchema = keys(
  {
    kind: z.literal('broker'),
    trustDomain,
    stateDir: filePath('/var/lib/outrider/broker'),
    sharedKeys: sharedKeys.optional(),
    bundleFile: filePath('/var/lib/outrider/broker-ca.pem'),
    listen: listenAddress,
    admin: listenAddress,
    issuer,
    svidLifetime: duration({ minMs: 1_000, maxMs: svidLifetimeMaxMs, write: '1h' }).default(3_600_000),
    attestors: list(attestor, { write: '[{kind: projected_token, …}]', min: 1 }),
    workloads: list(workload, { write: '[{name: NAME, …}]' }).default([]),
    providers: list(provider, { write: '[{kind: jwt, …}]' }).default([]),
    targets: list(target, { write: '[{name: NAME, …}]' }).default([]),
    policies: list(policy, { write: '[{name: NAME, …}]' }).default([]),
    log,
  },
  'a mapping',
).transform(({ svidLifetime, sharedKeys, ...written }): BrokerSettings => ({ ...written, sharedKeys, svidLifetimeMs: svidLifetime }));

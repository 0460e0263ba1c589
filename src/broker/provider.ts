/**
 * How the broker obtains credentials: one maker a kind. Whatever the kind, a value is checked for what could not be written
 * into a request, or shown in a handshake, before anyone gets it (provider/credential.ts), must still be alive, and every
 * asking is counted.
 * A new kind: a member in core/grant.ts and settings/broker.ts, a file in provider/, a line here, a row in
 * test/conformance/providers.test.ts.
 */
import { asFault, type FaultCode } from '../core/fault.ts';
import type { CredentialForm, ProviderKind } from '../core/grant.ts';
import { versionOf } from '../core/version.ts';
import type { Clock } from '../ops/clock.ts';
import type { Log } from '../ops/log.ts';
import type { Authority } from '../pki/authority.ts';
import type { ProviderSettings } from '../settings/broker.ts';
import type { TokenIssuer } from './issuer.ts';
import { checkedCredential, identifyingText, type Obtained } from './provider/credential.ts';
import { jwt } from './provider/jwt.ts';
import { oauth2ClientCredentials } from './provider/oauth2-client-credentials.ts';
import { staticFile } from './provider/static-file.ts';
import { x509 } from './provider/x509.ts';

export { identifyingText, type Obtained };

/** For whom and for what: part of some credentials (the subject of a JWT), ignored by those that all workloads share. */
export interface ObtainOptions {
  /** SPIFFE ID. */
  readonly workload: string;
  readonly target: string;
  /** What its placement takes; core/grant.ts says which provider can give it. */
  readonly form: CredentialForm;
  /** The target refused the last one: another is obtained where that can be, at most every `limits.grantRejectedIntervalMs`. */
  readonly fresh?: boolean;
}

export interface Provider {
  readonly kind: ProviderKind;
  readonly name: string;
  /** Changes with the provider's settings. */
  readonly version: string;
  /** Throws Fault credential_unavailable or credential_invalid. */
  readonly obtain: (options: ObtainOptions) => Promise<Obtained>;
}

export interface ProviderDeps {
  readonly issuer: Pick<TokenIssuer, 'mint'>;
  /** Of the trust domain: what signs now. */
  readonly authority: () => Authority;
  readonly clock: Clock;
  readonly log: Log;
  /** Where client secrets named by `env` are; read at every use. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly onRequest?: (provider: string, result: 'ok' | FaultCode, seconds: number) => void;
}

export type Obtain = (options: ObtainOptions) => Promise<Obtained>;
type Maker<K extends ProviderKind> = (settings: Extract<ProviderSettings, { kind: K }>, deps: ProviderDeps) => Obtain;

const makers: { readonly [K in ProviderKind]: Maker<K> } = {
  jwt,
  oauth2_client_credentials: oauth2ClientCredentials,
  static_file: staticFile,
  x509,
};

/** Providers by name. One of `kept` whose settings are the same is kept with the token it holds: a reload costs no token request. */
export const createProviders = (
  settings: readonly ProviderSettings[],
  deps: ProviderDeps,
  kept: ReadonlyMap<string, Provider> = new Map(),
): ReadonlyMap<string, Provider> =>
  new Map(
    settings.map((one) => {
      const version = versionOf(one);
      const known = kept.get(one.name);
      return [one.name, known?.version === version ? known : createProvider(one, version, deps)];
    }),
  );

const createProvider = (settings: ProviderSettings, version: string, deps: ProviderDeps): Provider => {
  const { kind, name } = settings;
  const make = makers[kind] as Maker<ProviderKind>;
  const obtain = guarded(name, make(settings, deps), deps);
  return { kind, name, version, obtain };
};

const guarded =
  (name: string, obtain: Obtain, { clock, onRequest }: ProviderDeps): Obtain =>
  async (options) => {
    const startedMs = clock.monotonic();
    const count = (result: 'ok' | FaultCode): void => onRequest?.(name, result, (clock.monotonic() - startedMs) / 1000);
    try {
      const obtained = await obtain(options);
      const checked = checkedCredential(obtained, { provider: name, form: options.form, nowMs: clock.now() });
      count('ok');
      return checked;
    } catch (thrown) {
      const fault = asFault(thrown, 'credential_unavailable');
      count(fault.code);
      throw fault;
    }
  };

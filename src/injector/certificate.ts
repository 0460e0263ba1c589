/**
 * The webhook's certificate and the API server's trust in it, kept right by looking every few seconds: in the Secret that all replicas share
 * (certificate-store.ts), or in files that somebody else writes. Replicas agree without a leader: each replaces the Secret with the
 * resourceVersion that it read, and takes what it finds after a conflict. An API server that is away changes nothing.
 */
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { isJsonObject, type JsonObject } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { Secret } from '../core/secret.ts';
import { ApiError, type ApiServer } from '../net/api-server.ts';
import type { Clock } from '../ops/clock.ts';
import type { Log } from '../ops/log.ts';
import type { ServingSettings } from '../settings/injector.ts';
import { certificateFrom } from './certificate-store.ts';
import { isTrustedBy } from './webhook-trust.ts';

export interface ServingPair {
  /** Leaf first. */
  readonly certificatePem: string;
  /** PKCS #8 PEM. */
  readonly privateKeyPem: Secret;
  readonly notAfterMs: number;
}

export interface CertificateOptions {
  readonly api: Pick<ApiServer, 'get' | 'replace' | 'patch'>;
  readonly settings: ServingSettings;
  /** Where the Secret is. */
  readonly namespace: string;
  /** The MutatingWebhookConfiguration that leads here. */
  readonly webhookConfiguration: string;
  readonly clock: Clock;
  readonly log: Log;
  /** A certificate to serve from now on. */
  readonly onCertificate: (pair: ServingPair) => void;
  /** Whether every webhook of the configuration has our authorities, or trusts the certificate in files. */
  readonly onTrusted: (isCurrent: boolean) => void;
  /** A call to the API server failed. */
  readonly onFailure: (operation: 'secret' | 'webhook_configuration') => void;
}

export interface CertificateKeeper {
  /** Undefined until there is one. */
  readonly current: () => ServingPair | undefined;
  /** Settles when the look under way has ended. */
  readonly close: () => Promise<void>;
}

export const keepCertificate = (options: CertificateOptions): CertificateKeeper => {
  const { settings, clock, log, onCertificate } = options;
  let current: ServingPair | undefined;
  const use = (pair: ServingPair): void => {
    // One that is in use has its key: no other key fits it.
    if (current?.certificatePem === pair.certificatePem) return;
    // First, for it throws when the two do not belong together, as when they are read across a swap: then the next look tries again.
    onCertificate(pair);
    current = pair;
    log.info({ expiresAtMs: pair.notAfterMs }, "the webhook's certificate is in use");
  };
  const look = settings.kind === 'files' ? () => lookAtFiles(settings, options, use) : () => lookAtCluster(settings, options, use);

  let isClosed = false;
  let cancel = (): void => undefined;
  const poll = async (): Promise<void> => {
    // Another replica was first, as when they all start: what it wrote is there to be read.
    if (await look()) await look();
    if (!isClosed) cancel = clock.after(limits.webhookPollMs, () => void (polling = poll()));
  };
  let polling = poll();
  return {
    current: () => current,
    close: () => {
      isClosed = true;
      cancel();
      return polling;
    },
  };
};

/** Who writes the files looks after the configuration, too; whether that was done is looked at here. */
const lookAtFiles = async (
  { certFile, keyFile }: Extract<ServingSettings, { kind: 'files' }>,
  { api, webhookConfiguration, clock, log, onTrusted, onFailure }: CertificateOptions,
  use: (pair: ServingPair) => void,
): Promise<boolean> => {
  let certificatePem: string;
  try {
    const [certificate, key] = await Promise.all([readFile(certFile, 'utf8'), readFile(keyFile, 'utf8')]);
    use({
      certificatePem: certificate,
      privateKeyPem: new Secret(key),
      notAfterMs: new X509Certificate(certificate).validToDate.getTime(),
    });
    certificatePem = certificate;
  } catch (error) {
    log.warn({ error, certFile }, "the webhook's certificate cannot be read; it is tried again");
    return false;
  }
  try {
    onTrusted(isTrustedBy(await existing(api, configurationPath(webhookConfiguration)), certificatePem, clock.now()));
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    onFailure('webhook_configuration');
    log.warn({ error }, 'it cannot be told whether the API server trusts the certificate; it is tried again');
  }
  return false;
};

const configurationPath = (name: string): string => `/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${name}`;

type SelfSigned = Extract<ServingSettings, { kind: 'selfSigned' }>;

/**
 * The configuration is read before the Secret: were ours an older Secret than another replica's, the configuration has changed since, and
 * the patch, which names the version that was read, does not apply. True when another replica was first.
 */
const lookAtCluster = async (settings: SelfSigned, options: CertificateOptions, use: (pair: ServingPair) => void): Promise<boolean> => {
  const { api, log, onTrusted, onFailure } = options;
  let isOvertaken = false;
  const tried = async <T>(operation: 'secret' | 'webhook_configuration', call: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      // A patch whose test does not hold is "invalid" to the API server.
      if (error.isConflict || (operation === 'webhook_configuration' && error.status === 422)) isOvertaken = true;
      else {
        onFailure(operation);
        log.warn({ error, operation }, "the webhook's certificate could not be looked after; it is tried again");
      }
      return undefined;
    }
  };
  const path = configurationPath(settings.webhookConfiguration);
  const configuration = await tried('webhook_configuration', () => existing(api, path));
  const certificate = await tried('secret', () => certificateIn(settings, options));
  if (certificate) use(certificate);
  if (!configuration || !certificate) return isOvertaken;
  const changes = caBundlePatch(configuration, certificate.caPem);
  const isCurrent = changes.length === 0 || (await tried('webhook_configuration', () => api.patch(path, changes))) !== undefined;
  onTrusted(isCurrent);
  return isOvertaken;
};

const existing = async (api: Pick<ApiServer, 'get'>, path: string): Promise<JsonObject> => {
  const object = await api.get(path);
  if (object === undefined) throw new ApiError('GET', path, { status: 404, reason: 'NotFound' });
  return object;
};

/** From the Secret, which is written first where it does not hold what it should. */
const certificateIn = async ({ secret, dnsNames }: SelfSigned, { api, namespace, clock }: CertificateOptions) => {
  const path = `/api/v1/namespaces/${namespace}/secrets/${secret}`;
  const object = await existing(api, path);
  const { certificate, write } = certificateFrom(isJsonObject(object['data']) ? object['data'] : {}, dnsNames, clock.now());
  if (write !== undefined) await api.replace(path, { ...object, data: write });
  return certificate;
};

/** RFC 6902, for the version of the configuration that was read; empty when every webhook has it already. */
export const caBundlePatch = (configuration: JsonObject, caPem: string): readonly JsonObject[] => {
  const { metadata, webhooks } = configuration;
  const caBundle = Buffer.from(caPem).toString('base64');
  const changes = (Array.isArray(webhooks) ? webhooks : []).flatMap((webhook: unknown, i) => {
    const clientConfig = isJsonObject(webhook) && isJsonObject(webhook['clientConfig']) ? webhook['clientConfig'] : {};
    return clientConfig['caBundle'] === caBundle ? [] : [{ op: 'add', path: `/webhooks/${i}/clientConfig/caBundle`, value: caBundle }];
  });
  const version = isJsonObject(metadata) ? metadata['resourceVersion'] : undefined;
  return changes.length === 0 ? [] : [{ op: 'test', path: '/metadata/resourceVersion', value: version }, ...changes];
};

/**
 * A Kubernetes control plane as it is published (prepare.ts): etcd, kube-apiserver with its default admission, RBAC, PodSecurity, service-account
 * issuer and JWKS, and kube-controller-manager with all its controllers. In a network namespace of its own; certificates and keys are made at
 * run time. What it has not: a scheduler, kubelets, kube-proxy and cluster DNS (node.ts stands in).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createAuthority } from '../../src/pki/authority.ts';
import { extendedKeyUsage, subjectAltName } from '../../src/pki/extension.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { issueEndEntity } from '../../src/pki/leaf.ts';
import { type Api, connectApi } from './api.ts';
import type { Network } from './network.ts';
import { type Binary, binary } from './prepare.ts';

export const issuer = 'https://kubernetes.default.svc.cluster.local';

export interface ControlPlane {
  /** With the rights of cluster-admin. */
  readonly api: Api;
  /** For Helm, with the same rights. */
  readonly kubeconfig: string;
  /** Requests as the API server recorded them. */
  readonly audit: () => readonly Record<string, unknown>[];
  /** The last lines of a component's log. */
  readonly tail: (name: Binary, lines?: number) => string;
  readonly close: () => Promise<void>;
}

const tailOf = (file: string, lines: number): string =>
  existsSync(file) ? readFileSync(file, 'utf8').trimEnd().split('\n').slice(-lines).join('\n') : '';

/** Asks until it holds; says what it waited for, and what was the last word, when it does not. */
export const within = async <T>(what: string, limitMs: number, ask: () => T | Promise<T>): Promise<NonNullable<Exclude<T, false>>> => {
  const end = Date.now() + limitMs;
  let last: unknown;
  for (;;) {
    try {
      const found = await ask();
      if (found) return found as NonNullable<Exclude<T, false>>;
      last = found;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`waited ${limitMs / 1000} s for ${what}${last instanceof Error ? `: ${last.message}` : ''}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
};

const pemOf = (key: { export: (options: { type: 'pkcs8'; format: 'pem' }) => string | Buffer }): string =>
  key.export({ type: 'pkcs8', format: 'pem' }) as string;

/** The API server's certificate, and who vouches for it. */
const writeCertificates = (directory: string, ...addresses: readonly string[]): void => {
  const nowMs = Date.now();
  const authority = createAuthority({ commonName: 'test cluster', key: createKeyPair(), nowMs, lifetimeMs: 24 * 3_600_000 });
  const key = createKeyPair();
  const names = ['kubernetes', 'kubernetes.default', 'kubernetes.default.svc', 'kubernetes.default.svc.cluster.local'];
  const leaf = issueEndEntity(authority, {
    publicKey: key.publicKey,
    nowMs,
    lifetimeMs: 24 * 3_600_000,
    extensions: [extendedKeyUsage('serverAuth'), subjectAltName(true, { hosts: [...names, ...addresses] })],
  });
  const signing = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const files = {
    'ca.pem': authority.certificatePem,
    'server.pem': leaf.pem,
    'server.key': pemOf(key.privateKey),
    'service-accounts.key': pemOf(signing.privateKey),
    'service-accounts.pub': signing.publicKey.export({ type: 'spki', format: 'pem' }) as string,
  };
  for (const [name, content] of Object.entries(files)) writeFileSync(join(directory, name), content, { mode: 0o600 });
};

const kubeconfigOf = (url: string, caPem: string, token: string): string =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'test', cluster: { server: url, 'certificate-authority-data': Buffer.from(caPem).toString('base64') } }],
    users: [{ name: 'admin', user: { token } }],
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'admin' } }],
    'current-context': 'test',
  });

const auditPolicy = JSON.stringify({
  apiVersion: 'audit.k8s.io/v1',
  kind: 'Policy',
  omitStages: ['RequestReceived'],
  rules: [{ level: 'Metadata' }],
});

export const startControlPlane = async (network: Network, directory: string): Promise<ControlPlane> => {
  mkdirSync(directory, { recursive: true });
  const at = (name: string): string => join(directory, name);
  const address = network.controlPlane;
  const url = `https://${address}`;
  const token = randomBytes(24).toString('hex');
  writeCertificates(directory, address, network.apiService);
  const caPem = readFileSync(at('ca.pem'), 'utf8');
  writeFileSync(at('tokens.csv'), `${token},admin,admin,"system:masters"\n`, { mode: 0o600 });
  writeFileSync(at('kubeconfig'), kubeconfigOf(url, caPem, token), { mode: 0o600 });
  writeFileSync(at('audit.yaml'), auditPolicy);

  const running: { readonly name: Binary; readonly child: ChildProcess; readonly exited: Promise<void> }[] = [];
  const tail: ControlPlane['tail'] = (name, lines = 20) => tailOf(at(`${name}.log`), lines);
  const start = (name: Binary, ...args: readonly string[]): void => {
    const log = openSync(at(`${name}.log`), 'a');
    const [program, ...rest] = network.within([binary(name), ...args]);
    const child = spawn(program, rest, { stdio: ['ignore', log, log], cwd: directory });
    closeSync(log);
    const exited = new Promise<void>((resolve) => void child.once('exit', () => resolve()).once('error', () => resolve()));
    running.push({ name, child, exited });
  };
  const api = connectApi(url, caPem, token);
  /** The last started first: nobody is left without whom it asks. */
  const close = async (): Promise<void> => {
    api.close();
    for (const { child, exited } of running.toReversed()) {
      // Nothing here outlives the run: there is nothing to end in order.
      child.kill('SIGKILL');
      await exited;
    }
  };
  const ready = async (name: Binary, limitMs: number, ask: () => Promise<boolean>): Promise<void> => {
    try {
      await within(`${name} to be ready`, limitMs, () => {
        const ended = running.find(({ child }) => child.exitCode !== null);
        if (ended) throw new Error(`${ended.name} ended with ${ended.child.exitCode}`);
        return ask();
      });
    } catch (error) {
      await close();
      throw new Error(`${(error as Error).message}\n${running.map((one) => `${one.name}: ${tail(one.name)}`).join('\n')}`, {
        cause: error,
      });
    }
  };

  start(
    'etcd',
    `--data-dir=${at('etcd')}`,
    '--unsafe-no-fsync',
    '--log-level=warn',
    '--listen-client-urls=http://127.0.0.1:2379',
    '--advertise-client-urls=http://127.0.0.1:2379',
    '--listen-peer-urls=http://127.0.0.1:2380',
  );
  start(
    'kube-apiserver',
    '--etcd-servers=http://127.0.0.1:2379',
    '--secure-port=443',
    `--advertise-address=${address}`,
    `--tls-cert-file=${at('server.pem')}`,
    `--tls-private-key-file=${at('server.key')}`,
    `--token-auth-file=${at('tokens.csv')}`,
    '--authorization-mode=Node,RBAC',
    `--service-account-issuer=${issuer}`,
    `--service-account-jwks-uri=${issuer}/openid/v1/jwks`,
    `--service-account-signing-key-file=${at('service-accounts.key')}`,
    `--service-account-key-file=${at('service-accounts.pub')}`,
    `--service-cluster-ip-range=${network.serviceRange}`,
    // Webhooks are dialled at their endpoints, not through the Service's address.
    '--enable-aggregator-routing=true',
    `--audit-log-path=${at('audit.log')}`,
    `--audit-policy-file=${at('audit.yaml')}`,
  );
  await ready('kube-apiserver', 90_000, async () => (await api.call('GET', '/readyz')).status === 200);
  start(
    'kube-controller-manager',
    `--kubeconfig=${at('kubeconfig')}`,
    `--service-account-private-key-file=${at('service-accounts.key')}`,
    `--root-ca-file=${at('ca.pem')}`,
    '--leader-elect=false',
    '--bind-address=127.0.0.1',
    '--kube-api-qps=200',
    '--kube-api-burst=400',
  );
  await ready('kube-controller-manager', 60_000, async () => {
    // The controllers that every pod needs have worked.
    const [account, authority] = await Promise.all(
      ['serviceaccounts/default', 'configmaps/kube-root-ca.crt'].map((path) => api.get(`/api/v1/namespaces/default/${path}`)),
    );
    return account !== undefined && authority !== undefined;
  });
  return {
    api,
    kubeconfig: at('kubeconfig'),
    audit: () =>
      readFileSync(at('audit.log'), 'utf8')
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line) as Record<string, unknown>),
    tail,
    close,
  };
};

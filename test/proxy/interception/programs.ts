/**
 * Programs in other languages before our authority: each is told what to trust as its users would tell it, by a variable or a flag,
 * and says whether it was served.
 */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, realpathSync } from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';
import type { Test } from 'tap';
import { run as runHere } from '../../pki/external-program.ts';

/** The public directory of a proxy, or a copy of it. */
export interface Trust {
  readonly bundle: string;
  readonly trustStore: string;
}

export const trustIn = (directory: string): Trust => ({
  bundle: join(directory, 'ca-bundle.pem'),
  trustStore: join(directory, 'trust-store.p12'),
});

export interface Site {
  readonly host: string;
  readonly port: number;
}

export interface Program {
  readonly name: string;
  /** Judges a site by the trust; rejects when it cannot be run. */
  readonly isServed: (trust: Trust, site: Site) => Promise<{ readonly ok: boolean; readonly output: string }>;
  /** Java takes a trust anchor for a name and a key, and does not look at what its certificate permits. */
  readonly heedsConstraints: boolean;
}

const here = import.meta.dirname;
const addressOf = (host: string): string => (isIP(host) === 6 ? host : '127.0.0.1');
const urlHost = (host: string): string => (isIP(host) === 6 ? `[${host}]` : host);

/** Nothing of this process' own environment but where programs are: it may tell them what to trust, too. */
const execute = (env: NodeJS.ProcessEnv, program: string, args: readonly string[]): Promise<{ ok: boolean; output: string }> =>
  new Promise((resolve, reject) => {
    const { PATH, HOME } = process.env;
    const child = spawn(program, args, { env: { PATH, HOME, ...env }, timeout: 60_000 });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.once('error', reject);
    child.once('close', (code) => resolve({ ok: code === 0, output }));
    child.stdin.on('error', () => undefined);
    child.stdin.end();
  });

const openssl: Program['isServed'] = ({ bundle }, { host, port }) => {
  const name = isIP(host) === 0 ? ['-servername', host, '-verify_hostname', host] : ['-verify_ip', host];
  const strict = ['-verify_return_error', '-x509_strict', '-CAfile', bundle];
  return execute({}, 'openssl', ['s_client', '-connect', `${urlHost(addressOf(host))}:${port}`, ...name, ...strict]);
};

const curl: Program['isServed'] = ({ bundle }, { host, port }) => {
  const resolve = isIP(host) === 0 ? ['--resolve', `${host}:${port}:${addressOf(host)}`] : [];
  return execute({ CURL_CA_BUNDLE: bundle }, 'curl', ['--silent', '--show-error', ...resolve, `https://${urlHost(host)}:${port}/`]);
};

/** GnuTLS on Debian and Ubuntu. What it is served is no repository: TLS is over when it says so. */
const git: Program['isServed'] = async ({ bundle }, { host, port }) => {
  const resolve = isIP(host) === 0 ? ['-c', `http.curloptResolve=${host}:${port}:${addressOf(host)}`] : [];
  const { output } = await execute({ GIT_SSL_CAINFO: bundle }, 'git', [...resolve, 'ls-remote', `https://${urlHost(host)}:${port}/x`]);
  return { ok: output.includes('is this a git repository'), output };
};

const direct =
  (env: (trust: Trust) => NodeJS.ProcessEnv, program: string, ...args: string[]): Program['isServed'] =>
  (trust, { host, port }) =>
    execute(env(trust), program, [...args, addressOf(host), String(port), host]);

const asBundle = ({ bundle }: Trust): NodeJS.ProcessEnv => ({ SSL_CERT_FILE: bundle });

const java = (program: string, classes: string): Program['isServed'] => {
  const launch = ({ trustStore }: Trust, ...args: string[]): Promise<{ ok: boolean; output: string }> =>
    execute({}, program, ['-XX:TieredStopAtLevel=1', `-Djavax.net.ssl.trustStore=${trustStore}`, '-cp', classes, 'Client', ...args]);
  // HttpClient resolves names itself, and knows this one.
  return (trust, { host, port }) =>
    host === 'localhost'
      ? launch(trust, 'http', `https://localhost:${port}/`)
      : launch(trust, 'socket', addressOf(host), String(port), host);
};

/** Every Java there is, the one on PATH first. */
const javas = (): string[] => {
  const beside = '/usr/lib/jvm';
  const installed = existsSync(beside) ? readdirSync(beside).map((name) => join(beside, name, 'bin/java')) : [];
  const onPath = runHere('sh', ['-c', 'command -v java']).output.trim();
  return [...new Set([onPath, ...installed].filter((path) => path !== '' && existsSync(path)).map((path) => realpathSync(path)))];
};

const isThere = (program: string, ...args: string[]): boolean => runHere(program, args).ok;

/**
 * Those that are installed; what is missing is said, and is a failure where clients are required. Go and Java programs are built
 * into `directory`.
 */
export const programsFor = (t: Test, directory: string): Program[] => {
  const found: Program[] = [];
  const add = (name: string, isInstalled: boolean, isServed: () => Program['isServed'], heedsConstraints = true): void => {
    if (isInstalled) found.push({ name, isServed: isServed(), heedsConstraints });
    else if (process.env['OUTRIDER_REQUIRE_CLIENTS'] === undefined) t.comment(`${name} is not installed here: left out`);
    else t.fail(`${name} is installed where clients are required`);
  };
  const built = (program: string, ...args: string[]): void => {
    const { ok, output } = runHere(program, args);
    t.ok(ok, `${program} builds: ${output}`);
  };
  add('openssl', isThere('openssl', 'version'), () => openssl);
  add('curl', isThere('curl', '--version'), () => curl);
  add('git', isThere('git', '--version'), () => git);
  add('Node', true, () => direct(({ bundle }) => ({ NODE_EXTRA_CA_CERTS: bundle }), process.execPath, join(here, 'client.mjs')));
  add('Node --use-openssl-ca', true, () => direct(asBundle, process.execPath, '--use-openssl-ca', join(here, 'client.mjs')));
  add('Python', isThere('python3', '--version'), () => direct(asBundle, 'python3', join(here, 'client.py')));
  add('Go', isThere('go', 'version'), () => {
    built('go', 'build', '-o', join(directory, 'client'), join(here, 'client.go'));
    return direct(asBundle, join(directory, 'client'));
  });
  const compiles = isThere('javac', '-version');
  if (compiles) built('javac', '--release', '11', '-d', join(directory, 'classes'), join(here, 'Client.java'));
  for (const path of compiles ? javas() : ['java']) add(`Java at ${path}`, compiles, () => java(path, join(directory, 'classes')), false);
  return found;
};

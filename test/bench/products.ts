/**
 * What is compared, doing the same work on equal terms: one worker, access log to a file, the credential's header set, connections to the
 * origin kept. Their configurations are in products/. What is not installed is left out with a word.
 */
import { chmodSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import type { Test } from 'tap';
import { createAuthority } from '../../src/pki/authority.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { freePort } from '../support/free-port.ts';
import { host } from '../support/stack.ts';
import type { Load } from './load.ts';
import { cores, start, type Started, versionOf } from './machine.ts';
import { body, type Origin } from './origin.ts';
import type { Outrider } from './outrider.ts';

/** clear: clear text on both sides. tls: TLS on both sides, in front of the origin. connect: TLS on both sides, intercepted after CONNECT. */
export type Way = 'clear' | 'tls' | 'connect';
export type Terms = Omit<Load, 'connections' | 'seconds' | 'rate'>;

export interface Product {
  readonly name: string;
  readonly version: string;
  readonly ways: Partial<Record<Way, Terms>>;
  readonly start: () => Started;
}

export interface Ground {
  readonly dir: string;
  readonly origin: Origin;
  readonly originCaFile: string;
  readonly outrider: Outrider;
  readonly outriderVersion: string;
  /** What all others are told to write: as long as what the broker mints. */
  readonly credential: string;
}

const head = (target: string, name: string = host): string =>
  `GET ${target} HTTP/1.1\r\nHost: ${name}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n`;

const template = (name: string, values: Readonly<Record<string, string | number>>): string =>
  readFileSync(join(import.meta.dirname, 'products', name), 'utf8').replace(/\{\{(\w+)\}\}/g, (_, key: string) => {
    const value = values[key];
    if (value === undefined) throw new Error(`${name}: nothing fills ${key}`);
    return String(value);
  });

const tools = process.env['OUTRIDER_BENCH_TOOLS'] ?? join(import.meta.dirname, '../../.outrider/bench');
const either = (path: string, name: string): string => (existsSync(path) ? path : name);

export interface Chosen {
  readonly products: readonly Product[];
  /** Why others are not among them. */
  readonly absent: readonly string[];
}

interface Candidate {
  readonly name: string;
  readonly version: string | undefined;
  readonly hint: string;
  readonly make: (version: string) => Promise<Product>;
}

export const chooseProducts = async (t: Test, ground: Ground): Promise<Chosen> => {
  const { dir, origin, originCaFile, outrider } = ground;
  const at = (name: string): string => join(dir, name);
  const front = createTestAuthority('Bench front authority');
  const { cert, key } = front.serverFor(host);
  const caKey = createKeyPair();
  const ca = createAuthority({ commonName: 'Bench interception authority', key: caKey, nowMs: Date.now(), lifetimeMs: 24 * 3_600_000 });
  const files = {
    chainFile: at('chain.pem'),
    keyFile: at('chain.key'),
    bothFile: at('both.pem'),
    caFile: at('ca.pem'),
    caKeyFile: at('ca.key'),
  };
  writeFileSync(files.chainFile, cert);
  writeFileSync(files.keyFile, key);
  writeFileSync(files.bothFile, `${cert}${key}`);
  writeFileSync(files.caFile, ca.certificatePem);
  writeFileSync(files.caKeyFile, caKey.privateKey.export({ type: 'pkcs8', format: 'pem' }));
  writeFileSync(at('front-ca.pem'), front.pem);
  writeFileSync(at('hosts'), `127.0.0.1 ${host}\n`);

  const ports = async (): Promise<{ clear: number; tls: number; connect: number }> => ({
    clear: await freePort(),
    tls: await freePort(),
    connect: await freePort(),
  });
  const valuesFor = (own: object): Record<string, string | number> => ({
    dir,
    host,
    credential: ground.credential,
    originClear: origin.clearPort,
    originTls: origin.tlsPort,
    originCaFile,
    hostsFile: at('hosts'),
    certgen: '',
    ...files,
    ...own,
  });
  const configured = (name: string, own: object): string => {
    writeFileSync(at(name), template(name, valuesFor(own)));
    return at(name);
  };
  const fronting = ({ clear, tls }: { clear: number; tls: number }): { clear: Terms; tls: Terms } => ({
    clear: { port: clear, requests: [head('/1k')], expect: body },
    tls: { port: tls, tls: { name: host, caFile: at('front-ca.pem') }, requests: [head('/1k')], expect: body },
  });
  const intercepting = (port: number, authority: string, caFile: string): Terms => ({
    port,
    connect: authority,
    tls: { name: host, caFile },
    // Squid goes by the port that it finds here.
    requests: [head('/1k', authority)],
    expect: body,
  });
  const output = (name: string): number => openSync(at(name), 'a');

  const mitmdump = either(join(tools, 'mitmproxy/bin/mitmdump'), 'mitmdump');
  const caddy = either(join(tools, 'bin/caddy'), 'caddy');
  const certgen = ['/usr/lib/squid/security_file_certgen', '/usr/libexec/squid/security_file_certgen'].find((path) => existsSync(path));

  const candidates: readonly Candidate[] = [
    {
      name: 'nginx',
      version: versionOf(['nginx', '-v'], /nginx\/(\S+)/),
      hint: 'nginx-light',
      make: async (version) => {
        const own = await ports();
        const file = configured('nginx.conf', own);
        return {
          name: 'nginx',
          version,
          ways: fronting(own),
          start: () => start(t, cores.product, ['nginx', '-c', file, '-e', at('nginx.error.log')]),
        };
      },
    },
    {
      name: 'HAProxy',
      version: versionOf(['haproxy', '-v'], /version (\d[\w.]*)/),
      hint: 'haproxy',
      make: async (version) => {
        const own = await ports();
        const file = configured('haproxy.cfg', own);
        const log = output('haproxy-access.log');
        return {
          name: 'HAProxy',
          version,
          ways: fronting(own),
          start: () => start(t, cores.product, ['haproxy', '-f', file], { stdio: ['ignore', log, 'ignore'] }),
        };
      },
    },
    {
      name: 'Caddy',
      // A binary that Go built from a module says its version nowhere else.
      version: versionOf([caddy, 'build-info'], /caddy\/v2\s+v?(\d\S*)/) ?? versionOf([caddy, 'version'], /^v?(\d\S*)/),
      hint: 'caddy',
      make: async (version) => {
        const own = await ports();
        const file = configured('Caddyfile', own);
        const env = { XDG_DATA_HOME: at('caddy-data'), XDG_CONFIG_HOME: at('caddy-config') };
        return {
          name: 'Caddy',
          version,
          ways: fronting(own),
          start: () => start(t, cores.product, [caddy, 'run', '--adapter', 'caddyfile', '--config', file], { env }),
        };
      },
    },
    {
      name: 'Squid',
      version: certgen === undefined ? undefined : versionOf(['squid', '-v'], /Version (\S+)[^]*--with-openssl/),
      hint: 'squid-openssl',
      make: async (version) => {
        const own = await ports();
        const file = configured('squid.conf', { ...own, certgen: certgen ?? '' });
        execFileSync(certgen ?? '', ['-c', '-s', at('squid-certificates'), '-M', '4MB'], { stdio: 'ignore' });
        openToAll(at('squid-certificates'));
        return {
          name: 'Squid',
          version,
          ways: { ...fronting(own), connect: intercepting(own.connect, `${host}:${origin.tlsPort}`, files.caFile) },
          start: () => start(t, cores.product, ['squid', '-N', '-f', file]),
        };
      },
    },
    {
      name: 'mitmproxy',
      version: versionOf([mitmdump, '--version'], /Mitmproxy: (\S+)/),
      hint: 'mitmproxy',
      make: async (version) => {
        const own = await ports();
        const settings = at('mitmproxy');
        mkdirSync(settings, { recursive: true });
        // As mitmproxy keeps its authority: key and certificate in one file.
        const authority = `${readFileSync(files.caKeyFile, 'utf8')}${readFileSync(files.caFile, 'utf8')}`;
        writeFileSync(join(settings, 'mitmproxy-ca.pem'), authority);
        const options = {
          confdir: settings,
          flow_detail: '1',
          termlog_verbosity: 'warn',
          ssl_verify_upstream_trusted_ca: originCaFile,
          listen_host: '127.0.0.1',
          http2: 'false',
        };
        const modes = [
          `reverse:http://127.0.0.1:${origin.clearPort}@127.0.0.1:${own.clear}`,
          `reverse:https://${host}:${origin.tlsPort}@127.0.0.1:${own.tls}`,
          `regular@127.0.0.1:${own.connect}`,
        ];
        const command = [
          mitmdump,
          '-s',
          join(import.meta.dirname, 'products/mitmproxy.py'),
          '--certs',
          `${host}=${files.bothFile}`,
          ...modes.flatMap((mode) => ['--mode', mode]),
          ...Object.entries(options).flatMap(([name, value]) => ['--set', `${name}=${value}`]),
        ];
        const log = output('mitmproxy-access.log');
        const env = { BENCH_CREDENTIAL: ground.credential, BENCH_HOST: host, PYTHONDONTWRITEBYTECODE: '1' };
        return {
          name: 'mitmproxy',
          version,
          ways: { ...fronting(own), connect: intercepting(own.connect, `${host}:${origin.tlsPort}`, at('front-ca.pem')) },
          start: () => start(t, cores.product, command, { stdio: ['ignore', log, log], env }),
        };
      },
    },
  ];

  const there = candidates.filter(({ version }) => version !== undefined);
  const others: Product[] = [];
  for (const { make, version } of there) others.push(await make(version as string));
  const ours: Product = {
    name: 'Outrider',
    version: ground.outriderVersion,
    ways: {
      clear: { port: outrider.port, requests: [head(`http://${host}/1k`)], expect: body },
      connect: intercepting(outrider.port, `${host}:443`, outrider.files.bundle),
    },
    start: outrider.startProxy,
  };
  return {
    products: [...others, ours],
    absent: candidates
      .filter(({ version }) => version === undefined)
      .map(({ name, hint }) => `${name} is not among them: it is not installed (${hint}; test/bench/prepare.sh installs it)`),
  };
};

/** Squid gives up root's rights, and its helper writes here. */
const openToAll = (path: string): void => {
  chmodSync(path, 0o777);
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const below = join(path, entry.name);
    if (entry.isDirectory()) openToAll(below);
    else chmodSync(below, 0o666);
  }
};

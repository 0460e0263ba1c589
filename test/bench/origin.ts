/**
 * What is asked in the end: one nginx worker on the load's core. It answers 200 only to requests that carry a credential, so that every
 * answer a client got says that the header was there, and counts what it was asked.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { Test } from 'tap';
import type { TestAuthority } from '../support/certificates.ts';
import { freePort } from '../support/free-port.ts';
import { accepting, cores, start } from './machine.ts';

export const body = 'x'.repeat(1024);

export interface Origin {
  readonly clearPort: number;
  readonly tlsPort: number;
  /** TLS with HTTP/2, under another name. */
  readonly h2Port: number;
  /** The last credential that came to /seen. */
  readonly seen: () => string;
  /** Requests so far, these questions included. */
  readonly asked: () => Promise<number>;
}

/** What was written at /seen is found in a log: a credential in an answer would be redacted on its way. */
const server = (listen: string, seenFile: string): string => `server {
    listen 127.0.0.1:${listen}
    location = /seen { access_log ${seenFile} seen; return 200 "seen"; }
    location / { if ($has_credential = 0) { return 403; } return 200 "${body}"; }
  }`;

export const startOrigin = async (
  t: Test,
  dir: string,
  authority: TestAuthority,
  hosts: { readonly tls: string; readonly h2: string },
): Promise<Origin> => {
  const [clearPort, tlsPort, h2Port, statusPort] = [await freePort(), await freePort(), await freePort(), await freePort()];
  const certified = (name: string): string => {
    const { cert, key } = authority.serverFor(name);
    writeFileSync(join(dir, `origin-${name}.pem`), cert);
    writeFileSync(join(dir, `origin-${name}.key`), key, { mode: 0o600 });
    return `ssl_certificate ${dir}/origin-${name}.pem; ssl_certificate_key ${dir}/origin-${name}.key;`;
  };
  const file = join(dir, 'origin.conf');
  const seenFile = join(dir, 'seen.log');
  writeFileSync(
    file,
    `daemon off; worker_processes 1; pid ${dir}/origin.pid; error_log ${dir}/origin.error.log;
events { worker_connections 8192; }
http {
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; http2_max_requests 1000000000;
  client_body_temp_path ${dir}/b; proxy_temp_path ${dir}/p; fastcgi_temp_path ${dir}/f; uwsgi_temp_path ${dir}/u; scgi_temp_path ${dir}/s;
  ssl_session_cache shared:sessions:1m; ssl_protocols TLSv1.2 TLSv1.3;
  log_format seen "$http_authorization";
  map $http_authorization $has_credential { default 0; "~^Bearer [A-Za-z0-9._-]{200,}$" 1; }
  ${server(`${clearPort} backlog=4096;`, seenFile)}
  ${server(`${tlsPort} ssl backlog=4096; ${certified(hosts.tls)}`, seenFile)}
  ${server(`${h2Port} ssl http2; ${certified(hosts.h2)}`, seenFile)}
  server { listen 127.0.0.1:${statusPort}; location / { stub_status; } }
}\n`,
  );
  start(t, cores.load, ['nginx', '-c', file, '-e', `${dir}/origin.error.log`]);
  await Promise.all([accepting(clearPort), accepting(tlsPort), accepting(h2Port), accepting(statusPort)]);
  const asked = async (): Promise<number> => {
    const said = await new Promise<string>((resolve, reject) => {
      get({ host: '127.0.0.1', port: statusPort, agent: false }, (answer) => resolve(text(answer))).once('error', reject);
    });
    return Number(/^\s*\d+ \d+ (\d+)/m.exec(said)?.[1]);
  };
  const seen = (): string => readFileSync(seenFile, 'utf8').trimEnd().split('\n').at(-1) ?? '';
  return { clearPort, tlsPort, h2Port, seen, asked };
};

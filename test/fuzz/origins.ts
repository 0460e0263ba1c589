/** Origins that are other people's programs, each with its own parser: what each of them made of what it was sent. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Test } from 'tap';
import { freePort } from '../support/free-port.ts';
import type { SeenRequest } from './desync.ts';

export interface RunningOrigin {
  readonly port: number;
  /** Ends it, and gives all that it saw. */
  readonly seen: () => Promise<readonly SeenRequest[]>;
}

export interface OriginProgram {
  readonly name: string;
  readonly isThere: () => boolean;
  /** Takes its files to `dir`. */
  readonly start: (t: Test, dir: string) => Promise<RunningOrigin>;
}

const runs =
  (program: string, ...args: readonly string[]) =>
  (): boolean => {
    try {
      execFileSync(program, args, { stdio: 'ignore' });
      return true;
    } catch {
      return false;
    }
  };

/** Ends with the test. */
const started = (t: Test, program: string, args: readonly string[], cwd: string): { child: ChildProcess; ended: Promise<unknown> } => {
  const child = spawn(program, args, { cwd, stdio: ['ignore', 'pipe', 'ignore'] });
  const ended = once(child, 'close');
  t.teardown(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  return { child, ended };
};

const listening = async (port: number): Promise<void> => {
  for (let isUp = false; !isUp; ) {
    const socket = connect(port, '127.0.0.1');
    isUp = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true));
      socket.once('error', () => resolve(false));
    });
    socket.destroy();
  }
};

const parsed = (lines: readonly string[]): SeenRequest[] =>
  lines.filter((line) => line !== '').map((line) => JSON.parse(line) as SeenRequest);

/** A program that prints its port, and then what it sees, a line each. */
const printing = async (t: Test, program: string, args: readonly string[], cwd: string): Promise<RunningOrigin> => {
  const { child, ended } = started(t, program, args, cwd);
  const lines: string[] = [];
  const port = Promise.withResolvers<number>();
  let isFirst = true;
  createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', (line) => {
    if (isFirst) port.resolve(Number(line));
    else lines.push(line);
    isFirst = false;
  });
  return {
    port: await port.promise,
    seen: async () => {
      child.kill('SIGTERM');
      await ended;
      return parsed(lines);
    },
  };
};

const sources = join(import.meta.dirname, 'origins');

export const origins: readonly OriginProgram[] = [
  {
    name: 'nginx',
    isThere: runs('nginx', '-v'),
    start: async (t, dir) => {
      const port = await freePort();
      const log = join(dir, 'access.log');
      writeFileSync(
        join(dir, 'nginx.conf'),
        `daemon off; worker_processes 1; pid ${dir}/pid; error_log ${dir}/error.log;
events { worker_connections 512; }
http { log_format seen escape=json '{"path":"$request_uri","authorization":"$http_authorization","request":"$request"}'; access_log ${log} seen;
client_body_temp_path ${dir}/b; proxy_temp_path ${dir}/p; fastcgi_temp_path ${dir}/f; uwsgi_temp_path ${dir}/u; scgi_temp_path ${dir}/s;
server { listen 127.0.0.1:${port}; location / { return 200 "ok"; } } }\n`,
      );
      const { child, ended } = started(t, 'nginx', ['-c', join(dir, 'nginx.conf'), '-e', join(dir, 'error.log')], dir);
      await listening(port);
      return {
        port,
        seen: async () => {
          child.kill('SIGQUIT');
          await ended;
          // A connection that ends before a request line is complete is logged with an empty request: no request was seen.
          return parsed(readFileSync(log, 'utf8').split('\n')).filter((one) => (one as SeenRequest & { request: string }).request !== '');
        },
      };
    },
  },
  {
    name: 'HAProxy',
    isThere: runs('haproxy', '-v'),
    start: async (t, dir) => {
      const port = await freePort();
      writeFileSync(
        join(dir, 'haproxy.cfg'),
        `global
  log stdout format raw local0
defaults
  mode http
  log global
  timeout client 20s
  timeout connect 5s
  timeout server 20s
  timeout http-request 20s
frontend origin
  bind 127.0.0.1:${port}
  option http-buffer-request
  http-request set-var(txn.authorization) req.fhdr(authorization)
  http-request set-var(txn.count) req.fhdr_cnt(authorization)
  log-format '{"path":"%[capture.req.uri,json(utf8s)]","authorization":"%[var(txn.authorization),json(utf8s)]","count":"%[var(txn.count)]"}'
  http-request return status 200 content-type text/plain string ok\n`,
      );
      const { child, ended } = started(t, 'haproxy', ['-db', '-f', join(dir, 'haproxy.cfg')], dir);
      const lines: string[] = [];
      createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', (line) => lines.push(line));
      await listening(port);
      return {
        port,
        seen: async () => {
          // As after the last request: idle connections need not be waited for.
          child.kill('SIGTERM');
          await ended;
          const all = parsed(lines.filter((line) => line.startsWith('{'))) as (SeenRequest & { readonly count: string })[];
          // A connection that ends before a head is complete is logged with dashes: no request was seen.
          return all
            .filter(({ path, count }) => path !== '-' || count !== '-')
            .map((one) => (one.count === '1' ? one : { ...one, authorization: `${one.count} of them` }));
        },
      };
    },
  },
  {
    name: "Go's net/http",
    isThere: runs('go', 'version'),
    start: async (t, dir) => {
      execFileSync('go', ['build', '-o', join(dir, 'origin'), join(sources, 'origin.go')], { stdio: 'ignore', cwd: dir });
      return printing(t, join(dir, 'origin'), [], dir);
    },
  },
  {
    name: "Python's http.server",
    isThere: runs('python3', '--version'),
    start: (t, dir) => printing(t, 'python3', [join(sources, 'origin.py')], dir),
  },
];

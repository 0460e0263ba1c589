import { execFile } from 'node:child_process';
import type { RequestListener } from 'node:http';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { host, startStack, type WholeStack } from '../support/stack.ts';

// A first Go build compiles the standard library.
t.setTimeout(300_000);

/**
 * Programs as they are, told of the proxy and the bundle by their usual environment variables alone. OUTRIDER_REQUIRE_CLIENTS makes a
 * client that is not installed a failure; without it (a newcomer's machine) it is left out with a word.
 */
const run = promisify(execFile);
const clients = join(import.meta.dirname, 'clients');

const echo: RequestListener = (request, response) => {
  let body = '';
  request.on('data', (chunk) => (body += chunk));
  request.on('end', () => {
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ method: request.method, path: request.url, headers: request.headers, body }));
  });
};

const environment = (stack: WholeStack): NodeJS.ProcessEnv => {
  const proxy = `http://127.0.0.1:${stack.proxy.listen.port}`;
  const { bundle } = stack.files;
  return {
    PATH: process.env['PATH'],
    HOME: process.env['HOME'],
    http_proxy: proxy,
    HTTP_PROXY: proxy,
    https_proxy: proxy,
    HTTPS_PROXY: proxy,
    SSL_CERT_FILE: bundle,
    REQUESTS_CA_BUNDLE: bundle,
    CURL_CA_BUNDLE: bundle,
    NODE_EXTRA_CA_CERTS: bundle,
    NODE_USE_ENV_PROXY: '1',
  };
};

interface Client {
  /** Exits 0 when the client is installed. */
  readonly probe: readonly [string, ...string[]];
  readonly commands: (url: string, dir: string) => readonly (readonly [string, ...string[]])[];
}

const curl = (url: string, ...more: string[]): readonly [string, ...string[]] => [
  'curl',
  '--silent',
  '--show-error',
  '--fail-with-body',
  '-w',
  '\n',
  '-H',
  'Authorization: Bearer mine',
  ...more,
  url,
];

const table: Record<string, Client> = {
  curl: {
    probe: ['curl', '--version'],
    commands: (url) => [curl(url), curl(url, '--data', 'body'), curl(url, '--http1.0'), curl(url, '--http2'), curl(url, '--proxytunnel')],
  },
  'Node fetch': { probe: [process.execPath, '--version'], commands: (url) => [[process.execPath, join(clients, 'client.mjs'), url]] },
  'Python urllib': { probe: ['python3', '--version'], commands: (url) => [['python3', join(clients, 'client.py'), 'urllib', url]] },
  'Python requests': {
    probe: ['python3', '-c', 'import requests'],
    commands: (url) => [['python3', join(clients, 'client.py'), 'requests', url]],
  },
  'Go net/http': {
    probe: ['go', 'version'],
    commands: (url, dir) => [
      ['go', 'build', '-o', join(dir, 'client'), join(clients, 'client.go')],
      [join(dir, 'client'), url],
    ],
  },
};

const isInstalled = async ([program, ...args]: readonly [string, ...string[]]): Promise<boolean> => {
  try {
    await run(program, args);
    return true;
  } catch {
    return false;
  }
};

const bodiesOf = (stdout: string): Record<string, unknown>[] =>
  stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
    .map((line) => ('status' in line ? (line['body'] as Record<string, unknown>) : line));

for (const [name, client] of Object.entries(table)) {
  for (const scheme of ['http', 'https']) {
    t.test(`${name} over ${scheme}: unmodified, and the credential is there`, { timeout: 300_000 }, async (t: Test) => {
      if (!(await isInstalled(client.probe))) {
        t.notOk(process.env['OUTRIDER_REQUIRE_CLIENTS'], `${name} is installed where clients are required`);
        return t.comment(`${name} is not installed here: left out`);
      }
      const stack = await startStack(t, { answer: echo });
      const bodies: Record<string, unknown>[] = [];
      for (const [program, ...args] of client.commands(`${scheme}://${host}/hello?a=1`, stack.files.dir)) {
        const { stdout } = await run(program, args, { env: environment(stack), timeout: 240_000 });
        bodies.push(...bodiesOf(stdout));
      }
      t.ok(bodies.length >= 2);
      for (const { method, path, headers, body } of bodies as {
        method: string;
        path: string;
        headers: Record<string, string>;
        body: string;
      }[]) {
        t.equal(path, '/hello?a=1');
        t.match(headers['authorization'], /^Bearer eyJ/, `${method}: the client's own Authorization was replaced`);
        t.equal(body, method === 'POST' ? 'body' : '');
      }
      t.same(stack.origin.requests.length, bodies.length);
    });
  }
}

t.test('a program learns why it was refused', async (t) => {
  const stack = await startStack(t, { answer: echo });
  const failed = await run('curl', ['--silent', '-w', '%{http_code}', `https://${host}/admin/x`], { env: environment(stack) });
  t.match(failed.stdout, /"code":"policy_denied"[^]*"rule":"no-admin"[^]*403$/);
});

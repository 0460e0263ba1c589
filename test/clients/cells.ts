/** What each client of the matrix does in a cell, and what must have come of it. */
import { join } from 'node:path';
import type { Test } from 'tap';
import { gitCell } from './cells/git.ts';
import { grpcCell } from './cells/grpc.ts';
import { postgresCell } from './cells/postgres.ts';
import { credentialsOf } from './cells/credential.ts';
import { awsKeys, hosts, linesOf, type Place, runIn } from './place.ts';
import { goProgram, programs, python } from './prepare.ts';
import { type Client, protocols, type Protocol } from './table.ts';

const replaced = "the proxy's credential arrives in the place of the client's own";

export type Cell = (t: Test, place: Place, client: Client, protocol: Protocol) => Promise<void>;

export interface ClientUnderTest {
  /** Exits 0 where the client is installed. */
  readonly probe: readonly string[];
  /** How it says that a certificate is not to be trusted, where it does not say it of the certificate. */
  readonly distrust?: RegExp;
  /** What its cells prove. */
  readonly proves: string;
  readonly cell: Cell;
  /** The client without the help that the table says it needs to find the proxy. */
  readonly alone?: (url: string) => readonly string[];
}

const node = process.execPath;
const program = (name: string): string => join(programs, name);
const schemeOf = (protocol: Protocol): string => (protocol === 'h2' ? 'https' : protocol);
const urlOf = (protocol: Protocol, path = '/hello?a=1'): string =>
  `${schemeOf(protocol)}://${protocol === 'h2' ? hosts.h2 : hosts.api}${path}`;

interface Answer {
  readonly status?: number;
  /** As the client says it: `1.1`, `HTTP/2`, `HTTP_1_1`. */
  readonly version?: string;
  readonly body: { readonly method: string; readonly path: string; readonly body: string; readonly originSpoke: string };
}

/** JSON lines; a line that is only the echo is an answer of its own, to which a line without a body (curl's `-w`) adds. */
const answersOf = (stdout: string): Answer[] => {
  const answers: Answer[] = [];
  for (const line of linesOf(stdout)) {
    if ('method' in line) answers.push({ body: line as unknown as Answer['body'] });
    else if ('body' in line) answers.push(line as unknown as Answer);
    else answers.push({ ...(answers.pop() as Answer), ...line });
  }
  return answers;
};

/** GET and POST: both arrive, with the proxy's credential in the place of the client's own, over the protocol that was meant. */
const echoes =
  (commands: (url: string, place: Place, protocol: Protocol) => readonly (readonly string[])[]): Cell =>
  async (t, place, client, protocol) => {
    const answers: Answer[] = [];
    for (const command of commands(urlOf(protocol), place, protocol)) {
      answers.push(...answersOf((await runIn(place, client.variables, command)).stdout));
    }
    t.ok(answers.length >= 2, 'a GET and a POST were answered');
    for (const { status, version, body } of answers) {
      t.equal(body.path, '/hello?a=1');
      t.equal(body.body, body.method === 'POST' ? 'body' : '');
      t.equal(body.originSpoke, protocol === 'h2' ? '2.0' : '1.1');
      if (status !== undefined) t.equal(status, 200);
      if (version) t.equal(/2/.test(version), protocol === 'h2', `the client spoke ${version} over ${protocols[protocol]}`);
    }
    t.ok(answers.some(({ body }) => body.method === 'GET') && answers.some(({ body }) => body.method === 'POST'));
    t.equal(credentialsOf(t, place.origin).length, answers.length, 'each arrived once');
  };

const curlFlags = ['--silent', '--show-error', '--fail-with-body', '--max-time', '30', '--header', 'Authorization: Bearer mine'];
const curlSays = ['--write-out', '\n{"status":%{http_code},"version":"%{http_version}"}\n'];
const curl = (url: string, ...more: string[]): readonly string[] => ['curl', ...curlFlags, ...curlSays, ...more, url];

const curlCell: Cell = async (t, place, client, protocol) => {
  const old = protocol === 'h2' ? [] : ['--http1.0'];
  await echoes((url) => [
    curl(url),
    curl(url, '--data', 'body'),
    curl(url, '--http2', '--data', 'body'),
    ...old.map((more) => curl(url, more)),
  ])(t, place, client, protocol);
  if (protocol === 'h2') return;
  await runIn(place, client.variables, curl(urlOf(protocol), '--data', 'body', '--header', 'Expect: 100-continue'));
  t.same(
    place.origin.taken().map(({ expect }) => expect),
    ['100-continue'],
    'Expect reaches the origin, whose 100 lets the body go',
  );
};

const wgetFlags = ['--no-verbose', '--tries=1', '--timeout=30', '--output-document=-', '--header=Authorization: Bearer mine'];
const wget = (url: string, { bundleFile }: Place, ...more: string[]): readonly string[] => [
  'wget',
  ...wgetFlags,
  `--ca-certificate=${bundleFile}`,
  ...more,
  url,
];

const pythonClient = (name: string): ClientUnderTest => ({
  probe: [python, '-c', `import ${name}`],
  proves: replaced,
  cell: echoes((url, _, protocol) => [[python, program('clients.py'), name === 'httpx' && protocol === 'h2' ? 'httpx-h2' : name, url]]),
});

const java = (name: string): ClientUnderTest => ({
  probe: ['java', '-version'],
  proves: replaced,
  cell: echoes((url) => [['java', '-XX:TieredStopAtLevel=1', program('Client.java'), name, url]]),
});

const webSocket = (name: string): ClientUnderTest => ({
  probe: [node, '--version'],
  proves: 'the upgrade has the credential, and messages go both ways',
  ...(name === 'built-in' ? { distrust: /network error|the WebSocket failed/ } : {}),
  cell: async (t, place, client, protocol) => {
    const { stdout } = await runIn(place, client.variables, [node, program('websocket.mjs'), name, urlOf(protocol, '/echo')]);
    t.same(linesOf(stdout), [{ text: 'hello', isWhole: true, code: 4321, reason: 'told to' }]);
    t.same(
      credentialsOf(t, place.origin).map(({ protocol }) => protocol),
      ['websocket'],
    );
  },
});

const eventSource: Cell = async (t, place, client, protocol) => {
  const id = `${place.mode}-${protocol}`;
  const url = urlOf(protocol, `/events?id=${id}`);
  const command = [
    node,
    '--experimental-eventsource',
    '--no-warnings',
    program('events.mjs'),
    url,
    urlOf(protocol, `/events/seen?id=${id}`),
  ];
  const { stdout } = await runIn(place, client.variables, command);
  t.same(linesOf(stdout), [{ events: ['1', '2', '3'].map((id) => ({ id, data: `event ${id}` })) }]);
  t.equal(credentialsOf(t, place.origin).length, 3, 'the stream, and two requests that say what was seen');
};

const objects =
  (command: (endpoint: string) => readonly string[]): Cell =>
  async (t, place, client, protocol) => {
    const { stdout } = await runIn(place, client.variables, command(`${protocol}://${hosts.s3}`));
    t.match(linesOf(stdout), [{ etag: /^"[0-9a-f]{32}"$/, isWhole: true, bytes: 3 * 1_048_576 }]);
    const arrivals = place.origin.taken();
    // The store has verified the signatures; here, whose they are.
    for (const { authorization } of arrivals) t.match(authorization, [new RegExp(`^AWS4-HMAC-SHA256 Credential=${awsKeys.accessKeyId}/`)]);
    t.same(
      arrivals.map(({ method, expect }) => [method, expect]),
      [
        ['PUT', '100-continue'],
        ['GET', undefined],
      ],
    );
  };

const calls = 'every kind of call, its trailers, deadline and cancellation; a refusal has a status of gRPC';
const wholeObjects = 'an object is put after 100 Continue, and got, whole, each request signed anew';

/** gRPC in clear text is for a port of its own. */
const grpcClient = (probe: readonly string[], command: readonly string[]): ClientUnderTest => ({
  probe,
  proves: calls,
  cell: (t, place, client, protocol) =>
    grpcCell([...command, ...(protocol === 'grpc-clear' ? [`${hosts.grpc}:80`, 'clear'] : [`${hosts.grpc}:443`])])(
      t,
      place,
      client,
      protocol,
    ),
});

/** By the names of the table. */
export const underTest: Readonly<Record<string, ClientUnderTest>> = {
  curl: { probe: ['curl', '--version'], proves: replaced, cell: curlCell },
  wget: {
    probe: ['wget', '--version'],
    proves: replaced,
    cell: echoes((url, place) => [wget(url, place), wget(url, place, '--post-data=body')]),
  },
  git: { probe: ['git', '--version'], proves: 'clone, push and fetch without a credential of its own', cell: gitCell },
  'Python urllib': pythonClient('urllib'),
  'Python requests': pythonClient('requests'),
  'Python httpx': pythonClient('httpx'),
  'Python aiohttp': { ...pythonClient('aiohttp'), alone: (url) => [python, program('clients.py'), 'aiohttp-alone', url] },
  boto3: {
    probe: [python, '-c', 'import boto3'],
    proves: wholeObjects,
    cell: objects((endpoint) => [python, program('clients.py'), 'boto3', endpoint]),
  },
  'Go net/http': { probe: ['test', '-x', goProgram('http')], proves: replaced, cell: echoes((url) => [[goProgram('http'), url]]) },
  'grpc-go': grpcClient(['test', '-x', goProgram('grpc')], [goProgram('grpc')]),
  'Java HttpClient': java('HttpClient'),
  'Java HttpURLConnection': java('HttpURLConnection'),
  'Node fetch': { probe: [node, '--version'], proves: replaced, cell: echoes((url) => [[node, program('http.mjs'), 'fetch', url]]) },
  'Node https': { probe: [node, '--version'], proves: replaced, cell: echoes((url) => [[node, program('http.mjs'), 'https', url]]) },
  'Node WebSocket': webSocket('built-in'),
  ws: { ...webSocket('ws'), alone: (url) => [node, program('websocket.mjs'), 'ws-alone', url.replace(/^http/, 'ws')] },
  'Node EventSource': {
    probe: [node, '--version'],
    distrust: /the stream broke off/,
    proves: 'each event arrives when it is sent, none later',
    cell: eventSource,
  },
  '@grpc/grpc-js': grpcClient([node, '--version'], [node, program('grpc.mjs')]),
  'AWS SDK for JavaScript': {
    probe: [node, '--version'],
    proves: wholeObjects,
    cell: objects((endpoint) => [node, program('s3.mjs'), endpoint]),
    alone: (url) => [node, program('s3.mjs'), url, 'alone'],
  },
  psql: { probe: ['psql', '--version'], proves: 'every byte is as the server sent it, and so is its certificate', cell: postgresCell },
};

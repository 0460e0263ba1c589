/**
 * The matrix of real clients: which program, over what, by which way in, told of the proxy's authority how, and what to know. README.md
 * mirrors it (`npm run docs`), and explicit.test.ts and transparent.test.ts have a test for every cell.
 */

export const protocols = {
  http: 'HTTP',
  https: 'HTTPS',
  h2: 'HTTP/2',
  grpc: 'gRPC',
  'grpc-clear': 'gRPC without TLS',
  ws: 'WebSocket',
  wss: 'WebSocket over TLS',
  postgres: 'PostgreSQL',
  'postgres-tls': 'PostgreSQL with TLS',
} as const;

export type Protocol = keyof typeof protocols;

export const modes = ['explicit', 'transparent'] as const;
export type Mode = (typeof modes)[number];

export interface Client {
  readonly name: string;
  /** Environment variables it needs beside the proxy's; a test runs it with no other of them. */
  readonly variables: readonly string[];
  /** How it is told where no variable will do. */
  readonly told?: string;
  readonly explicit: readonly Protocol[];
  readonly transparent: readonly Protocol[];
  /** What does not work, why, and what it takes; in Markdown. */
  readonly note: string;
}

const web: readonly Protocol[] = ['http', 'https'];
const webAndH2: readonly Protocol[] = ['http', 'https', 'h2'];
const node = ['NODE_EXTRA_CA_CERTS', 'NODE_USE_ENV_PROXY'];

export const clients: readonly Client[] = [
  {
    name: 'curl',
    variables: ['CURL_CA_BUNDLE'],
    explicit: webAndH2,
    transparent: webAndH2,
    note: 'Speaks HTTP/2 where the target has `protocol: h2`; otherwise HTTP/1.1, even with `--http2`.',
  },
  {
    name: 'wget',
    variables: [],
    told: '`--ca-certificate`, or `ca_certificate` in its wgetrc',
    explicit: web,
    transparent: web,
    note: 'Built with GnuTLS (Debian, Ubuntu) it reads no variable for trust.',
  },
  {
    name: 'git',
    variables: ['GIT_SSL_CAINFO'],
    explicit: web,
    transparent: web,
    note: 'Clone, fetch and push over smart HTTP. `ssh:` and `git:` remotes are other TCP: they pass untouched, without a credential.',
  },
  { name: 'Python urllib', variables: ['SSL_CERT_FILE'], explicit: web, transparent: web, note: 'With the strict checks of Python 3.13.' },
  { name: 'Python requests', variables: ['REQUESTS_CA_BUNDLE'], explicit: web, transparent: web, note: '' },
  {
    name: 'Python httpx',
    variables: ['SSL_CERT_FILE'],
    explicit: webAndH2,
    transparent: webAndH2,
    note: 'HTTP/2 with `http2=True` and a target with `protocol: h2`.',
  },
  {
    name: 'Python aiohttp',
    variables: ['SSL_CERT_FILE'],
    explicit: web,
    transparent: web,
    note: 'Reads the proxy variables only in a session made with `trust_env=True`; without it, steer it.',
  },
  {
    name: 'boto3',
    variables: ['AWS_CA_BUNDLE'],
    explicit: web,
    transparent: web,
    note: 'S3 put and get with `Expect: 100-continue`: signed by it with any keys, and anew by the proxy (`aws_sigv4`, `paths: verbatim`).',
  },
  { name: 'Go net/http', variables: ['SSL_CERT_FILE'], explicit: webAndH2, transparent: webAndH2, note: '' },
  {
    name: 'grpc-go',
    variables: ['SSL_CERT_FILE'],
    explicit: ['grpc', 'grpc-clear'],
    transparent: ['grpc', 'grpc-clear'],
    note: 'All four kinds of calls, trailers, deadline, cancellation.',
  },
  {
    name: 'Java HttpClient',
    variables: ['JAVA_TOOL_OPTIONS'],
    explicit: webAndH2,
    transparent: webAndH2,
    note: 'A JVM reads neither the proxy variables nor a PEM bundle: the options name the proxy and the trust store.',
  },
  { name: 'Java HttpURLConnection', variables: ['JAVA_TOOL_OPTIONS'], explicit: web, transparent: web, note: '' },
  { name: 'Node fetch', variables: node, explicit: web, transparent: web, note: 'Speaks HTTP/1.1 only unless the program asks for more.' },
  { name: 'Node https', variables: node, explicit: web, transparent: web, note: '' },
  { name: 'Node WebSocket', variables: node, explicit: ['ws', 'wss'], transparent: ['ws', 'wss'], note: '' },
  {
    name: 'ws',
    variables: ['NODE_EXTRA_CA_CERTS'],
    explicit: ['ws', 'wss'],
    transparent: ['ws', 'wss'],
    note: 'Reads no proxy variable: needs `agent: new https.Agent({ proxyEnv: process.env })`, or steer it.',
  },
  {
    name: 'Node EventSource',
    variables: node,
    explicit: web,
    transparent: web,
    note: 'Server-sent events, each as it is sent. Run with `--experimental-eventsource`.',
  },
  {
    name: '@grpc/grpc-js',
    variables: ['GRPC_DEFAULT_SSL_ROOTS_FILE_PATH'],
    explicit: ['grpc', 'grpc-clear'],
    transparent: ['grpc', 'grpc-clear'],
    note: 'All four kinds of calls, trailers, deadline, cancellation.',
  },
  {
    name: 'AWS SDK for JavaScript',
    variables: ['NODE_EXTRA_CA_CERTS'],
    explicit: web,
    transparent: web,
    note: 'Its own agents read no proxy variable: give `requestHandler` an `https.Agent` with `proxyEnv`, or steer it. Otherwise as boto3.',
  },
  {
    name: 'psql',
    variables: [],
    told: "nothing to trust: it sees the server's own certificate",
    explicit: ['postgres', 'postgres-tls'],
    transparent: ['postgres', 'postgres-tls'],
    note: 'libpq knows no proxy: in explicit mode only through something that speaks CONNECT for it. Passed untouched, without a credential.',
  },
];

/** `| client | … |` of README.md. */
export const matrixHead = ['client', 'told to trust by', 'explicit', 'transparent', 'to know'] as const;

export const matrixRows = (): readonly (readonly string[])[] =>
  clients.map(({ name, variables, told, note, ...cells }) => [
    name,
    [...variables.map((variable) => `\`${variable}\``), ...(told === undefined ? [] : [told])].join(', '),
    ...modes.map((mode) => cells[mode].map((protocol) => protocols[protocol]).join(', ')),
    note,
  ]);

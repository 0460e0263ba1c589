/**
 * What a program is told by its environment: where the proxy is, and whom to trust. One table for `outrider run`, the injector, the README
 * and the matrix of real clients. Pure: it reads no file and no environment of its own, and never replaces what a user set without a word.
 */
import { hostPort } from './destination.ts';

export interface ProxyPlace {
  /** The proxy's listener: loopback. */
  readonly host: string;
  readonly port: number;
  /** PEM: the system's roots and the interception authority. */
  readonly bundleFile: string;
  /** The same as PKCS #12, for JVMs; undefined when none is written. */
  readonly trustStoreFile: string | undefined;
}

export interface TrustVariable {
  readonly name: string;
  readonly readBy: string;
  /** Whether the file joins the roots that the program has, or stands in their place. */
  readonly effect: 'adds' | 'replaces';
}

/** Variables that name a PEM file. */
export const trustVariables: readonly TrustVariable[] = [
  { name: 'SSL_CERT_FILE', readBy: 'OpenSSL, Go, Python ssl and httpx, Ruby, Rust, .NET', effect: 'replaces' },
  { name: 'NODE_EXTRA_CA_CERTS', readBy: 'Node', effect: 'adds' },
  { name: 'REQUESTS_CA_BUNDLE', readBy: 'Python requests', effect: 'replaces' },
  { name: 'CURL_CA_BUNDLE', readBy: 'curl', effect: 'replaces' },
  { name: 'GIT_SSL_CAINFO', readBy: 'git', effect: 'replaces' },
  { name: 'AWS_CA_BUNDLE', readBy: 'AWS CLI and boto3', effect: 'replaces' },
  { name: 'PIP_CERT', readBy: 'pip', effect: 'replaces' },
  { name: 'CARGO_HTTP_CAINFO', readBy: 'cargo', effect: 'replaces' },
  { name: 'DENO_CERT', readBy: 'Deno', effect: 'adds' },
  { name: 'GRPC_DEFAULT_SSL_ROOTS_FILE_PATH', readBy: 'gRPC for C++, Python, Ruby, PHP and Node', effect: 'replaces' },
  { name: 'NIX_SSL_CERT_FILE', readBy: 'programs built by Nix', effect: 'replaces' },
];

/**
 * Both spellings, because programs differ in which they read; curl reads http_proxy in lower case only. ALL_PROXY is not among them: it
 * would bring other protocols than HTTP here, which the proxy does not speak.
 */
export const proxyVariables = ['http_proxy', 'HTTP_PROXY', 'https_proxy', 'HTTPS_PROXY'] as const;

/** Programs under test listen on loopback; the proxy does not dial it. */
const loopbackNames = ['localhost', '127.0.0.1', '::1'] as const;

/** Where `outrider run` keeps its files: tells a run inside of it what is no setting of the user's own. */
export const runDirectoryVariable = 'OUTRIDER_RUN_DIR';
export const bundleName = 'ca-bundle.pem';
export const trustStoreName = 'trust-store.p12';

/** What a program is told that has no settings of its own. */
export const environmentOf = (place: ProxyPlace): Readonly<Record<string, string>> => programEnvironment(place, {}).variables;

export interface ProgramEnvironment {
  /** To set over the user's own. */
  readonly variables: Readonly<Record<string, string>>;
  /** Trust variables that the user set: the proxy's authority must be joined to that file for programs that read them. */
  readonly toMerge: readonly { readonly name: string; readonly file: string }[];
  /** What the user should know, a sentence each. Never a variable's value: a proxy's URL may hold a password. */
  readonly notes: readonly string[];
}

/** `user` is the environment that the program would have had. */
export const programEnvironment = (place: ProxyPlace, user: Readonly<NodeJS.ProcessEnv>): ProgramEnvironment => {
  const outer = user[runDirectoryVariable] ?? '';
  const isOurs = (file: string): boolean => file === `${outer}/${bundleName}`;
  const url = `http://${hostPort(place)}`;
  const exceptions = exceptionsOf(user);
  const trusted = trustVariables.map(({ name }) => ({ name, file: user[name] ?? '' }));
  const toMerge = trusted.filter(({ file }) => file !== '' && !isOurs(file));
  const java = javaOptions(place, user, exceptions);
  return {
    variables: {
      ...Object.fromEntries(proxyVariables.map((name) => [name, url])),
      no_proxy: exceptions.join(','),
      NO_PROXY: exceptions.join(','),
      // Node's own http, https and fetch read the variables above only when told to.
      NODE_USE_ENV_PROXY: '1',
      ...Object.fromEntries(trusted.filter(({ file }) => file === '' || isOurs(file)).map(({ name }) => [name, place.bundleFile])),
      JAVA_TOOL_OPTIONS: java.options,
    },
    toMerge,
    notes: [...proxyNotes(user, url), ...java.notes],
  };
};

/** The user's exceptions, in their order, loopback, and what else is reached directly. */
export const exceptionsOf = (user: Readonly<NodeJS.ProcessEnv>, direct: readonly string[] = []): readonly string[] => {
  const written = [user['no_proxy'], user['NO_PROXY']].flatMap((list) => (list ?? '').split(/[\s,]+/)).filter((item) => item !== '');
  // Alone it means everything, and beside others nothing to curl: what is added would change it.
  return written.every((item) => item === '*') && written.length > 0 ? ['*'] : [...new Set([...written, ...loopbackNames, ...direct])];
};

const proxyNotes = (user: Readonly<NodeJS.ProcessEnv>, url: string): string[] => {
  const isInner = (user[runDirectoryVariable] ?? '') !== '';
  const replaced = proxyVariables.filter((name) => !isInner && (user[name] ?? '') !== '' && user[name] !== url);
  const around = ['grpc_proxy', 'GRPC_PROXY'].filter((name) => (user[name] ?? '') !== '');
  const none = exceptionsOf(user).includes('*');
  return [
    ...(replaced.length === 0
      ? []
      : [
          `${replaced.join(', ')} now lead to this proxy; if targets are reached through another, name it as upstream.proxy in the configuration`,
        ]),
    ...(around.length === 0 ? [] : [`${around.join(', ')} is kept as it was set: gRPC programs that read it go around this proxy`]),
    ...(none ? ['NO_PROXY has "*": programs that read it go around this proxy'] : []),
  ];
};

/** Java's list: "|" between, "*" at either end. Ranges cannot be said in it. What Kubernetes puts in, `$(NAME)`, is taken for an address. */
const javaExceptions = (exceptions: readonly string[]): string =>
  exceptions
    .filter((item) => !item.includes('/'))
    .flatMap((item) => {
      if (item === '*' || item === 'localhost' || item.startsWith('$(')) return [item];
      if (item === '127.0.0.1') return ['127.*'];
      if (item.includes(':')) return [item.startsWith('[') ? item : `[${item}]`];
      const name = item.replace(/^\*?\./, '');
      return /^[\d.]+$/.test(name) ? [name] : [name, `*.${name}`];
    })
    .join('|');

/** A JVM splits its options at white space and keeps what is in quotes together. */
const quoted = (option: string): string => (/\s/.test(option) ? `"${option}"` : option);

/** Where the proxy is, for a JVM. */
export const javaProxyOptions = (place: Pick<ProxyPlace, 'host' | 'port'>, exceptions: readonly string[]): readonly string[] => {
  const ways = ['http', 'https'].flatMap((scheme) => [`-D${scheme}.proxyHost=${place.host}`, `-D${scheme}.proxyPort=${place.port}`]);
  return [...ways, `-Dhttp.nonProxyHosts=${javaExceptions(exceptions)}`].map(quoted);
};

/** Whom to trust, for a JVM. */
export const javaTrustOptions = (trustStoreFile: string): readonly string[] =>
  [`-Djavax.net.ssl.trustStore=${trustStoreFile}`, '-Djavax.net.ssl.trustStoreType=PKCS12'].map(quoted);

/**
 * A JVM reads neither the proxy variables nor a PEM bundle. The last of two equal options counts, so ours come last; a trust store of
 * the user's own is left in force, since the two cannot be joined.
 */
const javaOptions = (place: ProxyPlace, user: Readonly<NodeJS.ProcessEnv>, exceptions: readonly string[]) => {
  const written = user['JAVA_TOOL_OPTIONS'] ?? '';
  const sources = ['JAVA_TOOL_OPTIONS', 'JDK_JAVA_OPTIONS', '_JAVA_OPTIONS'];
  const trusting = sources.filter((name) => {
    const stores = (user[name] ?? '').match(/-Djavax\.net\.ssl\.trustStore=\S+/g) ?? [];
    return stores.some((option) => !option.endsWith(`=${user[runDirectoryVariable] ?? ''}/${trustStoreName}`));
  });
  const trust = place.trustStoreFile === undefined || trusting.length > 0 ? [] : javaTrustOptions(place.trustStoreFile);
  const ours = [...javaProxyOptions(place, exceptions), ...trust];
  const notes =
    trusting.length === 0 ? [] : [`${trusting.join(', ')} names a trust store, which is kept: Java programs may not trust this proxy`];
  return { options: [...(written === '' ? [] : [written]), ...ours].join(' '), notes };
};

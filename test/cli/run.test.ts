import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { splitAtCommand } from '../../src/cli/command-line.ts';
import {
  environmentOf,
  programEnvironment,
  type ProxyPlace,
  runDirectoryVariable,
  trustVariables,
} from '../../src/core/program-environment.ts';
import { mergeTrustFiles } from '../../src/cli/run/trust-files.ts';
import { createAuthority } from '../../src/pki/authority.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { directoryOf } from '../support/directory.ts';
import { eventually } from '../support/stack.ts';

const execute = promisify(execFile);

const place: ProxyPlace = { host: '127.0.0.1', port: 15_001, bundleFile: '/run/o/ca-bundle.pem', trustStoreFile: '/run/o/trust-store.p12' };
const url = 'http://127.0.0.1:15001';

t.test('options end at the first word that is none, or at "--"', async (t) => {
  for (const [args, own, command] of [
    [
      ['--config', 'f', 'curl', '-h'],
      ['--config', 'f'],
      ['curl', '-h'],
    ],
    [
      ['--config', 'f', '--', '-odd', '--', 'x'],
      ['--config', 'f'],
      ['-odd', '--', 'x'],
    ],
    [['--config=f', '--ready-timeout', '5', 'curl'], ['--config=f', '--ready-timeout', '5'], ['curl']],
    [['--config', '--', 'curl'], ['--config', '--'], ['curl']],
    [['--help'], ['--help'], []],
    [['curl', '--config', 'f'], [], ['curl', '--config', 'f']],
    [['--config'], ['--config'], []],
    [['--'], [], []],
    [['-'], ['-'], []],
    [[], [], []],
  ] as const) {
    t.strictSame(splitAtCommand(args), { own, command }, args.join(' '));
  }
});

t.test('a program without settings of its own is told of the proxy and the bundle in every way it may read', async (t) => {
  const told = environmentOf(place);
  for (const name of ['http_proxy', 'HTTP_PROXY', 'https_proxy', 'HTTPS_PROXY']) t.equal(told[name], url);
  for (const name of ['no_proxy', 'NO_PROXY']) t.equal(told[name], 'localhost,127.0.0.1,::1');
  for (const { name } of trustVariables) t.equal(told[name], place.bundleFile);
  t.equal(told['NODE_USE_ENV_PROXY'], '1');
  t.notOk('ALL_PROXY' in told || 'all_proxy' in told, 'other protocols are not sent to a proxy that does not speak them');
  t.notOk(runDirectoryVariable in told);
  const { notes, toMerge } = programEnvironment(place, { PATH: '/bin', SSL_CERT_FILE: '' });
  t.strictSame([notes, toMerge], [[], []], 'and nothing is said of it');
});

t.test('NO_PROXY keeps what the user wrote in either spelling, and loopback is added once', async (t) => {
  for (const [user, merged] of [
    [{ NO_PROXY: 'internal.example,10.0.0.0/8' }, 'internal.example,10.0.0.0/8,localhost,127.0.0.1,::1'],
    [{ no_proxy: 'a.example, b.example', NO_PROXY: 'b.example,c.example' }, 'a.example,b.example,c.example,localhost,127.0.0.1,::1'],
    [{ no_proxy: 'localhost,127.0.0.1,::1' }, 'localhost,127.0.0.1,::1'],
    [{ NO_PROXY: '*' }, '*'],
    [{ NO_PROXY: '' }, 'localhost,127.0.0.1,::1'],
  ] as const) {
    const { variables } = programEnvironment(place, user);
    t.strictSame([variables['no_proxy'], variables['NO_PROXY']], [merged, merged]);
  }
  t.match(programEnvironment(place, { NO_PROXY: '*' }).notes, [/NO_PROXY has "\*"/]);
});

t.test('what is replaced or goes around the proxy is said, and never with its value', async (t) => {
  const { variables, notes } = programEnvironment(place, {
    https_proxy: 'http://someone:canary@proxy.corp.example:3128',
    HTTP_PROXY: url,
    grpc_proxy: 'http://canary.example:1',
    ALL_PROXY: 'socks5://canary.example:1080',
  });
  t.equal(variables['https_proxy'], url);
  t.notOk('ALL_PROXY' in variables || 'grpc_proxy' in variables, 'kept as they were');
  t.match(notes, [/^https_proxy now leads? to this proxy; .*upstream\.proxy/, /^grpc_proxy is kept/]);
  t.equal(notes.length, 2);
  t.notMatch(notes.join(), 'canary');
});

t.test('trust files of the user are joined, not replaced; those of a run around this one are replaced', async (t) => {
  const user = {
    SSL_CERT_FILE: '/etc/corp.pem',
    CURL_CA_BUNDLE: '/tmp/outer/ca-bundle.pem',
    GIT_SSL_CAINFO: '/tmp/outer/ca-bundle-of-yours-1.pem',
  };
  const { variables, toMerge } = programEnvironment(place, { ...user, [runDirectoryVariable]: '/tmp/outer' });
  t.strictSame(toMerge, [
    { name: 'SSL_CERT_FILE', file: '/etc/corp.pem' },
    { name: 'GIT_SSL_CAINFO', file: '/tmp/outer/ca-bundle-of-yours-1.pem' },
  ]);
  t.equal(variables['CURL_CA_BUNDLE'], place.bundleFile);
  t.notOk('SSL_CERT_FILE' in variables || 'GIT_SSL_CAINFO' in variables);
  const outside = programEnvironment(place, { CURL_CA_BUNDLE: '/tmp/outer/ca-bundle.pem' });
  t.strictSame(
    outside.toMerge,
    [{ name: 'CURL_CA_BUNDLE', file: '/tmp/outer/ca-bundle.pem' }],
    'without such a run it is a file like any other',
  );
});

const javaOptionsFor = (user: NodeJS.ProcessEnv, at = place): { options: string; notes: readonly string[] } => {
  const { variables, notes } = programEnvironment(at, user);
  return { options: variables['JAVA_TOOL_OPTIONS'] as string, notes };
};

t.test('Java is told by options after the user’s own; a trust store of theirs stays in force', async (t) => {
  const { options, notes } = javaOptionsFor({ JAVA_TOOL_OPTIONS: '-Xmx64m', NO_PROXY: '.corp.example,10.0.0.0/8,192.0.2.1' });
  t.equal(
    options,
    '-Xmx64m -Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=15001 -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=15001 ' +
      '-Dhttp.nonProxyHosts=corp.example|*.corp.example|192.0.2.1|localhost|127.*|[::1] -Djavax.net.ssl.trustStore=/run/o/trust-store.p12 ' +
      '-Djavax.net.ssl.trustStoreType=PKCS12',
  );
  t.strictSame(notes, []);
  for (const name of ['JAVA_TOOL_OPTIONS', 'JDK_JAVA_OPTIONS', '_JAVA_OPTIONS']) {
    const own = javaOptionsFor({ [name]: '-Djavax.net.ssl.trustStore=/etc/corp.p12' });
    t.notMatch(own.options, '/run/o/trust-store.p12');
    t.match(own.options, '-Dhttps.proxyPort=15001');
    t.match(own.notes, [new RegExp(`^${name} names a trust store, which is kept`)]);
  }
  const inner = javaOptionsFor({
    JAVA_TOOL_OPTIONS: '-Djavax.net.ssl.trustStore=/tmp/outer/trust-store.p12',
    [runDirectoryVariable]: '/tmp/outer',
  });
  t.match(inner.options, /trust-store\.p12.*\/run\/o\/trust-store\.p12/, 'the last one counts');
  t.strictSame(inner.notes, []);
  t.notMatch(javaOptionsFor({}, { ...place, trustStoreFile: undefined }).options, 'trustStore');
});

t.test('a real JVM reads them so, spaces and all', async (t) => {
  const directory = '/run/a directory/of "mine"'.replaceAll('"', '');
  const spaced = { ...place, trustStoreFile: `${directory}/trust-store.p12` };
  const { options } = javaOptionsFor({ JAVA_TOOL_OPTIONS: '-Dhttps.proxyPort=1 -Duser.own=yes' }, spaced);
  const shown = await execute('java', ['-XshowSettings:properties', '-version'], {
    env: { PATH: process.env['PATH'], JAVA_TOOL_OPTIONS: options },
  }).catch((error: NodeJS.ErrnoException) => error);
  if (shown instanceof Error) {
    t.notOk(process.env['OUTRIDER_REQUIRE_CLIENTS'], 'Java is installed where clients are required');
    return t.comment(`java does not run here: left out (${shown.code})`);
  }
  const property = (name: string): string | undefined =>
    new RegExp(`^ +${name.replaceAll('.', '\\.')} = (.*)$`, 'm').exec(shown.stderr)?.[1];
  t.equal(property('https.proxyPort'), '15001');
  t.equal(property('user.own'), 'yes');
  t.equal(property('http.nonProxyHosts'), 'localhost|127.*|[::1]');
  t.equal(property('javax.net.ssl.trustStore'), spaced.trustStoreFile);
});

const authorityPem = (commonName: string): string =>
  createAuthority({ commonName, key: createKeyPair(), nowMs: Date.now(), lifetimeMs: 3_600_000, permittedHosts: [] }).certificatePem;

/** Not written out, as no file may hold what looks like a key. */
const keyLabel = ['PRIVATE', 'KEY'].join(' ');

const replace = (file: string, text: string): void => {
  writeFileSync(`${file}.new`, text);
  renameSync(`${file}.new`, file);
};

t.test('the copy of a user’s bundle has their roots and the authority, alone, and follows the authority', async (t) => {
  const directory = directoryOf(t);
  const at = (name: string): string => join(directory, name);
  const [root, own, first, second] = ['A root', 'My root', 'Outrider interception 1', 'Outrider interception 1'].map(authorityPem) as [
    string,
    string,
    string,
    string,
  ];
  mkdirSync(at('run'));
  const bundle = at('run/ca-bundle.pem');
  writeFileSync(bundle, root + first);
  writeFileSync(
    at('mine.pem'),
    `# my roots\n${['BEGIN', 'canary', 'END'].map((word) => (word === 'canary' ? word : `-----${word} ${keyLabel}-----`)).join('\n')}\n${own}`,
  );
  writeFileSync(at('empty.pem'), 'nothing');
  symlinkSync(at('mine.pem'), at('link.pem'));
  const { files, close } = mergeTrustFiles(bundle, [
    { name: 'SSL_CERT_FILE', file: at('mine.pem') },
    { name: 'CURL_CA_BUNDLE', file: at('mine.pem') },
    { name: 'GIT_SSL_CAINFO', file: at('link.pem') },
    { name: 'PIP_CERT', file: at('empty.pem') },
    { name: 'DENO_CERT', file: directory },
    { name: 'AWS_CA_BUNDLE', file: at('none.pem') },
  ]);
  t.teardown(close);
  t.strictSame(Object.keys(files), ['SSL_CERT_FILE', 'CURL_CA_BUNDLE', 'GIT_SSL_CAINFO'], 'what has no certificates is left to the user');
  t.equal(files['SSL_CERT_FILE'], files['CURL_CA_BUNDLE'], 'one copy of one file');
  const read = (): string => readFileSync(files['SSL_CERT_FILE'] as string, 'utf8');
  const blocks = (text: string): string[] => text.match(/-----BEGIN[^-]+-----[^-]+-----END[^-]+-----/g) ?? [];
  t.strictSame(blocks(read()), blocks(own + first));
  t.notMatch(read(), 'canary');
  replace(bundle, root + second);
  await eventually(() => blocks(read()).join() === blocks(own + second).join());
  t.pass('it has the new certificate');
});

t.test('no copy is made where the bundle does not end with the authority', async (t) => {
  const directory = directoryOf(t);
  const bundle = join(directory, 'ca-bundle.pem');
  writeFileSync(bundle, authorityPem('A root'));
  writeFileSync(join(directory, 'mine.pem'), authorityPem('My root'));
  const { files, close } = mergeTrustFiles(bundle, [{ name: 'SSL_CERT_FILE', file: join(directory, 'mine.pem') }]);
  close();
  t.strictSame(files, {});
});

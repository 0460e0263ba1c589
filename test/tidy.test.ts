/** The rules that keep the code readable, held by reading it: layers, owners, names, bounds, secrets, and tables that mirror code. */
import t from 'tap';
import { missingOptionals, type Lockfile } from '../scripts/complete-lockfile.ts';
import { withTables } from '../scripts/readme-tables.ts';
import { faults } from '../src/core/fault.ts';
import { limits } from '../src/core/limits.ts';
import { metricTable } from '../src/ops/metric-table.ts';
import { filesIn, importsOf, packageOf, textOf } from './support/source-tree.ts';

const everything = filesIn('.');
const sources = everything.filter((path) => path.startsWith('src/') && path.endsWith('.ts'));
const scripts = everything.filter((path) => /^(?:src|test|scripts)\/.*\.ts$/.test(path));
const sourceText = new Map(sources.map((path) => [path, textOf(path)]));

const lineMax = 400;
/** Cases side by side read well longer than code does. */
const testLineMax = 600;

/** `src/proxy/route.ts` → proxy; main.ts is a layer of its own. */
const layerOf = (path: string): string => (path.startsWith('src/') ? (path.split('/')[1] as string).replace(/\.ts$/, '') : path);

/** What each layer may import from, besides itself. */
const mayImport: Readonly<Record<string, readonly string[]>> = {
  core: [],
  ops: ['core'],
  settings: ['core'],
  net: ['core', 'ops'],
  pki: ['core'],
  rpc: ['core', 'ops', 'pki', 'settings', 'proto'],
  broker: ['core', 'ops', 'settings', 'net', 'pki', 'rpc'],
  collector: ['core', 'ops', 'settings', 'net', 'pki', 'rpc'],
  proxy: ['core', 'ops', 'settings', 'net', 'pki', 'rpc'],
  injector: ['core', 'ops', 'settings', 'net', 'pki'],
  cli: ['core', 'ops', 'settings', 'net', 'pki', 'rpc', 'broker', 'collector', 'proxy', 'injector'],
  main: ['cli', 'bin/node-floor.cjs'],
};

t.test('imports go down: core, then settings, ops, net, pki, rpc, then the roles, then cli and main; roles never meet', async (t) => {
  for (const path of sources) {
    const layer = layerOf(path);
    const allowed = mayImport[layer];
    if (!allowed) t.fail(`${path} is in no known layer`);
    for (const { file } of importsOf(path)) {
      if (file === undefined) continue;
      const other = layerOf(file);
      if (other !== layer && !allowed?.includes(other)) t.fail(`${path} imports ${file}`);
    }
  }
  t.ok(sources.length > 50, 'there was something to look at');
});

/** Each stage of the request path is one file (and its folder); src/proxy/pipeline.ts alone knows their order. */
const stages = ['listener', 'route', 'identity', 'grant', 'authorize', 'hold', 'inject', 'upstream', 'event'];
const stageOf = (path: string): string | undefined =>
  stages.find((stage) => path === `src/proxy/${stage}.ts` || path.startsWith(`src/proxy/${stage}/`));
/** What of their own role stages may know: the value that grows, and how a fault is answered. */
const sharedByStages = new Set(['src/proxy/exchange.ts', 'src/proxy/respond.ts']);

t.test('stages of the proxy know the exchange and the layers below, never each other', async (t) => {
  for (const stage of stages) t.ok(sources.includes(`src/proxy/${stage}.ts`), `${stage} is one file`);
  for (const path of sources) {
    const stage = stageOf(path);
    if (stage === undefined) continue;
    for (const { file } of importsOf(path)) {
      if (!file?.startsWith('src/proxy/') || sharedByStages.has(file)) continue;
      if (stageOf(file) !== stage) t.fail(`${path} imports ${file}`);
    }
  }
});

/** Files that put a module's parts together from outside. */
const assemblers = new Set(['src/broker/run.ts', 'src/collector/run.ts', 'src/proxy/run.ts', 'src/settings/document.ts']);

t.test('a folder beside a file of its name is entered through that file', async (t) => {
  const known = new Set(sources);
  for (const path of sources) {
    if (assemblers.has(path)) continue;
    for (const { file, isType } of importsOf(path)) {
      if (file === undefined || isType) continue;
      const folders = file.split('/').slice(0, -1);
      for (let depth = 2; depth <= folders.length; depth += 1) {
        const folder = folders.slice(0, depth).join('/');
        const isInside = path === `${folder}.ts` || path.startsWith(`${folder}/`);
        if (known.has(`${folder}.ts`) && !isInside) t.fail(`${path} imports ${file} instead of ${folder}.ts`);
      }
    }
  }
});

/** npm package → where it may be imported. */
const owners: Readonly<Record<string, RegExp>> = {
  '@bufbuild/protobuf': /^src\/rpc\//,
  '@grpc/grpc-js': /^src\/rpc\//,
  'http-proxy': /^src\/cli\/front-door\.ts$/,
  jose: /^src\/(?:broker\/(?:attest|issuer|provider)[./]|cli\/demo\/cluster-issuer\.ts$)/,
  koffi: /^src\/net\/original-destination\.ts$/,
  oauth4webapi: /^src\/broker\/provider\//,
  pino: /^src\/ops\/log\.ts$/,
  'prom-client': /^src\/ops\/metrics\.ts$/,
  undici: /^src\/net\//,
  yaml: /^src\/settings\//,
  zod: /^src\/settings\//,
};

t.test('every dependency has one owner, and every package that is shipped is in use', async (t) => {
  const used = new Set<string>();
  for (const path of sources) {
    for (const { specifier, file } of importsOf(path)) {
      if (file !== undefined || specifier.startsWith('node:')) continue;
      const name = packageOf(specifier);
      used.add(name);
      if (!owners[name]?.test(path)) t.fail(`${path} imports ${specifier}`);
    }
  }
  t.strictSame([...used].toSorted(), Object.keys(owners).toSorted());
  const { dependencies } = JSON.parse(textOf('package.json')) as { dependencies: object };
  t.strictSame(Object.keys(dependencies).toSorted(), Object.keys(owners).toSorted());
});

t.test('files are named for what is in them, are short, and open with a comment (a test by its name)', async (t) => {
  for (const path of scripts) {
    const name = (path.split('/').at(-1) as string).replace(/(?:\.test|\.d)?\.ts$/, '');
    if (/^(?:index|utils?|helpers?|types?|common|misc)$/.test(name)) t.fail(`${path} says nothing about its content`);
    if (!/^[a-z0-9]+(?:-[a-z0-9]+)*$/.test(name)) t.fail(`${path} is not in kebab-case`);
    const text = textOf(path);
    if (!path.endsWith('.test.ts') && !/^(?:\/\*\*|\/\/)/.test(text)) t.fail(`${path} does not open with a comment`);
    const lines = text.split('\n').length;
    if (lines > (path.startsWith('test/') ? testLineMax : lineMax)) t.fail(`${path} has ${lines} lines`);
  }
  t.ok(scripts.length > sources.length);
});

t.test('nothing is left for later', async (t) => {
  const later = new RegExp(`\\b(?:${['TO', 'FIX'].map((start) => `${start}${start === 'TO' ? 'DO' : 'ME'}`).join('|')}|X{3})\\b`);
  for (const path of everything) if (path !== 'LICENSE' && later.test(textOf(path))) t.fail(path);
  for (const path of scripts)
    if (/\b(?:t|tap)\.skip\(|\bskip: *true|\btodo: *true|\.only\(/.test(textOf(path))) t.fail(`${path} leaves a test out`);
});

/** The only files in which a secret becomes bytes, each because that is its work. */
const revealing = [
  'src/broker/attest/compact-token.ts',
  'src/broker/attest/key-source.ts',
  'src/broker/attest/projected-token.ts',
  'src/broker/attest/token-review.ts',
  'src/broker/authority.ts',
  'src/broker/issuer/serve.ts',
  'src/broker/issuer/signing-key.ts',
  'src/broker/provider/client-authentication.ts',
  'src/broker/provider/credential.ts',
  'src/broker/service.ts',
  'src/broker/store/key-document.ts',
  'src/broker/store/sqlite.ts',
  'src/core/secret.ts',
  'src/injector/certificate-store.ts',
  'src/injector/server.ts',
  'src/net/api-server.ts',
  'src/net/chain.ts',
  'src/net/outbound/trust.ts',
  'src/proxy/inject.ts',
  'src/proxy/upstream/echo.ts',
  'src/rpc/wire/attestation.ts',
  'src/rpc/wire/grant.ts',
];

t.test('secrets are revealed in the listed files only', async (t) => {
  const found = sources.filter((path) => /\breveal\(\)(?! (?:gives|is|must|where))/.test(withoutComments(sourceText.get(path) as string)));
  t.strictSame(found.toSorted(), revealing);
});

const withoutComments = (text: string): string => text.replace(/\/\*[^]*?\*\/|(?<=^|\s)\/\/.*$/gm, '');

t.test('TLS verification is turned off nowhere but where a client certificate is optional and checked by hand', async (t) => {
  const off = new RegExp(['rejectUnauthorized: fal', 'se|NODE_TLS_REJECT', '_UNAUTHORIZED|--insec', 'ure|curl [^\\n]*\\s-k\\b'].join(''));
  const found = everything.filter((path) => /\.(?:ts|js|cjs|json|ya?ml|sh)$|\.ci\/run$|Dockerfile$/.test(path) && off.test(textOf(path)));
  t.strictSame(found, found.length === 0 ? [] : ['src/rpc/server/listener.ts']);
});

const mentions = (what: string, except: string): boolean =>
  sources.some((path) => path !== except && (sourceText.get(path) as string).includes(what));

t.test('every bound, fault and metric is in use', async (t) => {
  for (const name of Object.keys(limits)) if (!mentions(`limits.${name}`, 'src/core/limits.ts')) t.fail(`limits.${name} bounds nothing`);
  for (const code of Object.keys(faults)) if (!mentions(`'${code}'`, 'src/core/fault.ts')) t.fail(`nothing ends in ${code}`);
  for (const name of Object.keys(metricTable)) if (!mentions(`'${name}'`, 'src/ops/metric-table.ts')) t.fail(`${name} is never set`);
});

t.test('the tables of README.md mirror the code ("npm run docs" writes them)', async (t) => {
  const readme = textOf('README.md');
  t.equal(withTables(readme), readme);
});

const secretLooking: Readonly<Record<string, RegExp>> = {
  'a private key': /-----BEGIN [A-Z ]*PRIVATE KEY-----\s*[A-Za-z0-9+/]{20}/,
  'a JWT': /\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}/,
  'an AWS access key': /\b(?:AKIA|ASIA)[0-9A-Z]{16}\b/,
  'a GitHub token': /\bgh[pousr]_[A-Za-z0-9]{36}\b/,
  'a Slack token': /\bxox[abpr]-[0-9A-Za-z-]{10,}/,
  'a Stripe key': /\b[rs]k_live_[0-9A-Za-z]{16,}/,
};

t.test('no file holds what looks like a secret', async (t) => {
  for (const path of everything) {
    const text = textOf(path);
    for (const [what, pattern] of Object.entries(secretLooking)) if (pattern.test(text)) t.fail(`${path} holds ${what}`);
  }
});

t.test('no file names the machine it was written on, or a registry', async (t) => {
  const places = new RegExp(
    [
      ['/ro', 'ot/'],
      ['/home', '/[a-z]'],
      ['/wo', 'rk/'],
      ['registry\\.np', 'mjs'],
      ['local', 'host:4873'],
    ]
      .map((parts) => parts.join(''))
      .join('|'),
  );
  for (const path of everything) {
    const found = places.exec(textOf(path));
    if (found) t.fail(`${path}: ${found[0]}`);
  }
});

t.test('dependencies are exact, and the lockfile is whole for every platform and names no registry', async (t) => {
  const { dependencies, devDependencies } = JSON.parse(textOf('package.json')) as Record<string, Record<string, string>>;
  for (const [name, version] of Object.entries({ ...dependencies, ...devDependencies })) {
    t.match(version, /^(?:npm:(?:@[^/]+\/)?[^@]+@)?\d+\.\d+\.\d+$/, `${name} ${version}`);
  }
  const lockText = textOf('package-lock.json');
  t.strictSame([...missingOptionals(JSON.parse(lockText) as Lockfile)], [], '"npm run lockfile" adds what is missing');
  t.notMatch(lockText, '"resolved"');
});

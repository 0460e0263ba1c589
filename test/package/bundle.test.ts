import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Metafile } from 'esbuild';
import t from 'tap';
import { besideBundle, buildBundle, packagesIn, reachable } from '../../scripts/build.ts';
import { startDemo } from '../support/demo-process.ts';
import { root, textOf } from '../support/source-tree.ts';
import { directoryOf } from '../support/directory.ts';

/** At most this many npm packages may be in the process beside a workload. */
const sidecarPackagesMax = 25;
const vendors = /aws-sdk|@aws|@azure|@google|googleapis|gcp|vault|stripe|openai|anthropic|snowflake|@okta|auth0/i;

/** What the last image, the one that is published, starts, as the Dockerfile says it: the flags, and the program within the bundle. */
const entrypoint = (): { flags: readonly string[]; program: string } => {
  const [node, ...rest] = JSON.parse([...textOf('Dockerfile').matchAll(/^ENTRYPOINT (\[.*\])$/gm)].at(-1)?.[1] ?? '[]') as string[];
  if (node !== '/nodejs/bin/node') throw new Error(`the image starts ${node}`);
  return { flags: rest.slice(0, -1), program: relative('/outrider', rest.at(-1) as string) };
};

// Away from the repository, where no node_modules is above it: what it loads is in it.
const image = mkdtempSync(join(tmpdir(), 'outrider-bundle-'));
const bundle = join(image, 'outrider');
let metafile: Metafile;

type Koffi = typeof import('koffi').default;

t.before(async () => {
  metafile = await buildBundle(bundle);
});
t.teardown(() => rmSync(image, { recursive: true, force: true }));

interface Ran {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

const startImage = (...args: readonly string[]): readonly [string, readonly string[]] => {
  const { flags, program } = entrypoint();
  return [process.execPath, [...flags, join(bundle, program), ...args]];
};

const run = (...args: readonly string[]): Promise<Ran> =>
  new Promise((resolve) => {
    const [program, argv] = startImage(...args);
    execFile(program, argv, { cwd: image, timeout: 30_000 }, (error, out, err) =>
      resolve({ status: error === null ? 0 : Number(error.code), out, err }),
    );
  });

t.test(
  'the image is started without a debugging signal, without code made from strings, and with a bounded young generation',
  async (t) => {
    t.strictSame(entrypoint(), {
      flags: [
        '--disable-sigusr1',
        '--max-semi-space-size=8',
        '--max-old-space-size=512',
        '--v8-pool-size=1',
        '--disallow-code-generation-from-strings',
      ],
      program: 'main.js',
    });
  },
);

t.test('the bundle answers to help, version and check, started as the image starts it', async (t) => {
  const { version } = JSON.parse(textOf('package.json')) as { version: string };
  t.strictSame(await run('--version'), { status: 0, out: `outrider ${version} (Node ${process.versions.node})\n`, err: '' });
  t.match(await run('proxy', '--help'), { status: 0, out: /outrider proxy --config FILE/ });
  const examples = readdirSync(join(bundle, 'config/examples'));
  t.ok(examples.length > 0);
  for (const example of examples)
    t.match(await run('check', '--config', join(bundle, 'config/examples', example)), { status: 0, err: '' }, example);
  t.match(await run('broker', '--config', 'none.yaml'), { status: 1, err: /^none\.yaml:1:1 / });
});

t.test('the demo runs from the bundle', async (t) => {
  const directory = directoryOf(t);
  const demo = await startDemo(t, startImage('demo', '--any-port', '--dir', directory), directory);
  for (const role of ['proxy', 'broker', 'collector']) t.equal((await fetch(`${demo.frontDoor}/${role}/readyz`)).status, 200, role);
  t.equal(await demo.stop(), 0);
});

t.test('the bundle needs nothing beside it but what is shipped with it', async (t) => {
  const outside = Object.values(metafile.outputs).flatMap(({ imports }) =>
    imports.filter(({ external, path }) => external === true && !path.startsWith('node:')),
  );
  const builtIns = new Set(process.getBuiltinModule('module').builtinModules);
  t.strictSame(
    outside.map(({ path }) => path).filter((path) => !builtIns.has(path)),
    ['koffi'],
  );
  t.ok(besideBundle.includes('koffi') && besideBundle.length > 1, 'with a library for this platform');
  const { default: koffi } = (await import(pathToFileURL(join(bundle, 'node_modules/koffi/index.js')).href)) as { default: Koffi };
  t.equal(koffi.load(null).func('int getpid()')(), process.pid);
  for (const file of ['LICENSE', 'THIRD-PARTY-LICENSES', 'package.json', 'config/demo/proxy.yaml'])
    t.ok(existsSync(join(bundle, file)), file);
});

t.test('what runs beside a workload is small: few packages, no vendor SDK, none of the broker', async (t) => {
  const outputs = reachable(metafile, 'src/proxy/run.ts');
  const packages = [...packagesIn(metafile, outputs), ...besideBundle];
  t.ok(packages.length > besideBundle.length && packages.length <= sidecarPackagesMax, packages.join(' '));
  t.strictSame(
    packages.filter((name) => vendors.test(name)),
    [],
  );
  const inputs = [...outputs].flatMap((output) => Object.keys(metafile.outputs[output]?.inputs ?? {}));
  t.strictSame(
    inputs.filter((input) => /^src\/(?:broker|collector|cli\/demo)\//.test(input)),
    [],
  );
  for (const absent of ['@grpc/proto-loader', 'protobufjs', 'http-proxy', 'jose']) t.notOk(packages.includes(absent), absent);
});

t.test('every package in the bundle is named with its licence', async (t) => {
  const licenses = readFileSync(join(bundle, 'THIRD-PARTY-LICENSES'), 'utf8');
  for (const name of [...packagesIn(metafile, Object.keys(metafile.outputs)), ...besideBundle]) {
    const { name: published } = JSON.parse(textOf(`node_modules/${name}/package.json`)) as { name: string };
    t.match(licenses, new RegExp(`^${published} \\d+\\.\\d+\\.\\d+: \\S`, 'm'));
  }
});

t.test('the image runs as nobody, without a shell and without anything secret', async (t) => {
  const lines = textOf('Dockerfile')
    .split('\n')
    .filter((line) => !line.startsWith('#'));
  const last = lines.slice(lines.findLastIndex((line) => line.startsWith('FROM ')));
  t.match(last[0], /^FROM gcr\.io\/distroless\/nodejs24-debian13:nonroot$/);
  t.ok(
    last.some((line) => /^USER [1-9]\d*:[1-9]\d*$/.test(line)),
    'a number other than 0',
  );
  t.strictSame(
    last.filter((line) => /^(?:RUN|ADD|ARG|ENV|VOLUME) /.test(line)),
    ['ENV MALLOC_ARENA_MAX=1', 'ENV MALLOC_TRIM_THRESHOLD_=131072'],
  );
  for (const line of lines.filter((text) => /^(?:RUN|CMD|ENTRYPOINT) /.test(text))) t.match(line, /^\w+ \[".*"\]$/, 'no shell is started');
  const allowed = textOf('.dockerignore')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'));
  t.equal(allowed[0], '*', 'what is not named is not sent to the build');
  for (const entry of allowed.slice(1)) t.ok(existsSync(join(root, entry.slice(1))), entry);
});

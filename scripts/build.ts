/**
 * `npm run build`: the shipping form. One ESM entry, dist/main.js, and chunks that load when a role needs them; next to them what
 * the program reads at run time. Not minified: a stack trace in an incident has to be readable without the maps.
 */
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, type Metafile, type Plugin } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));

/**
 * grpc-js loads schemas for channelz and ORCA with proto-loader, which compiles code from strings. Neither is used here, and the
 * image forbids such code: a stand-in that throws when it is called keeps protobufjs and yargs out.
 */
const withoutProtoLoader: Plugin = {
  name: 'without-proto-loader',
  setup: (bundler) => {
    bundler.onResolve({ filter: /^@grpc\/proto-loader$/ }, () => ({ path: 'proto-loader', namespace: 'absent' }));
    bundler.onLoad({ filter: /.*/, namespace: 'absent' }, () => ({
      contents: `exports.loadSync = () => { throw new Error('@grpc/proto-loader is not part of this build: channelz and ORCA are not used'); };`,
      loader: 'js',
    }));
  },
};

/**
 * undici's own entry brings fetch, WebSocket, caches and mocks, which are never used here: half a mebibyte that every proxy would read
 * at its start. What src/net uses of it, by the files that hold it.
 */
const undiciParts: Plugin = {
  name: 'undici-parts',
  setup: (bundler) => {
    bundler.onResolve({ filter: /^undici$/ }, () => ({ path: 'undici', namespace: 'undici-parts' }));
    bundler.onLoad({ filter: /.*/, namespace: 'undici-parts' }, () => ({
      contents: `exports.Pool = require('undici/lib/dispatcher/pool.js');
exports.Client = require('undici/lib/dispatcher/client.js');
exports.errors = require('undici/lib/core/errors.js');
require('undici/lib/dispatcher/dispatcher.js').prototype.request = require('undici/lib/api/api-request.js');`,
      loader: 'js',
      resolveDir: root,
    }));
  },
};

/**
 * An ES module that imports node:http makes Node read every export of it, and one of them loads the undici that Node has for itself
 * (50 ms and 3 MiB at the start of a proxy). Asked for by `require`, it stays unread.
 */
const withoutFacade: Plugin = {
  name: 'without-facade',
  setup: (bundler) => {
    bundler.onResolve({ filter: /^node:http$/ }, ({ kind }) =>
      kind === 'import-statement' ? { path: 'node:http', namespace: 'without-facade' } : undefined,
    );
    bundler.onLoad({ filter: /.*/, namespace: 'without-facade' }, () => ({
      contents: `module.exports = require('node:http');`,
      loader: 'js',
    }));
  },
};

/** CommonJS packages ask for built-ins by `require`, which an ES module does not have. */
const requireForCommonJs = `import { createRequire as createRequireForBundle } from 'node:module'; const require = createRequireForBundle(import.meta.url);`;

/**
 * koffi loads a library for the processor and libc that it finds, which no bundle can hold: its files lie in node_modules beside the bundle,
 * and transparent mode alone loads them. Of the packages for platforms there is the one that npm installed here.
 */
const besideFiles: Readonly<Record<string, readonly string[]>> = {
  koffi: ['package.json', 'index.js', 'src/koffi/index.js', 'src/koffi/src/static.js', 'LICENSE.txt'],
  ...Object.fromEntries(
    readdirSync(join(root, 'node_modules/@koromix'))
      .filter((name) => name.startsWith('koffi-'))
      .map((name) => [`@koromix/${name}`, ['.']]),
  ),
};

/** Packages that are shipped as they are. */
export const besideBundle: readonly string[] = Object.keys(besideFiles);

/** Builds into `directory`, which is emptied first; the metafile says what went where. */
export const buildBundle = async (directory: string): Promise<Metafile> => {
  rmSync(directory, { recursive: true, force: true });
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: { main: 'src/main.ts' },
    outdir: directory,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node24',
    splitting: true,
    chunkNames: '[name]-[hash]',
    sourcemap: 'external',
    minify: false,
    legalComments: 'eof',
    metafile: true,
    logLevel: 'warning',
    external: ['koffi'],
    plugins: [withoutProtoLoader, undiciParts, withoutFacade],
    banner: { js: requireForCommonJs },
  });
  const { name, version, license } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Record<string, string>;
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'package.json'), `${JSON.stringify({ name, version, license, private: true, type: 'module' }, null, 2)}\n`);
  cpSync(join(root, 'config'), join(directory, 'config'), { recursive: true });
  cpSync(join(root, 'LICENSE'), join(directory, 'LICENSE'));
  for (const [name, files] of Object.entries(besideFiles))
    for (const file of files)
      cpSync(join(root, 'node_modules', name, file), join(directory, 'node_modules', name, file), { recursive: true });
  writeFileSync(join(directory, 'THIRD-PARTY-LICENSES'), thirdPartyLicenses(metafile));
  return metafile;
};

/** Every output that `entry` (a source file with chunks of its own) can load, itself included. */
export const reachable = ({ outputs }: Metafile, entry: string): Set<string> => {
  const first = Object.keys(outputs).find((output) => outputs[output]?.entryPoint === entry);
  if (first === undefined) throw new Error(`${entry} is not an entry of the bundle`);
  const seen = new Set<string>();
  const visit = (output: string): void => {
    if (seen.has(output)) return;
    seen.add(output);
    for (const { path } of outputs[output]?.imports ?? []) if (path in outputs) visit(path);
  };
  visit(first);
  return seen;
};

/** Directories of npm packages with code in these outputs, relative to the repository. */
const packageDirectories = ({ outputs }: Metafile, within: Iterable<string>): string[] => {
  const directories = [...within].flatMap((output) =>
    Object.entries(outputs[output]?.inputs ?? {})
      .filter(([, { bytesInOutput }]) => bytesInOutput > 0)
      .flatMap(([input]) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(input)?.[0] ?? []),
  );
  return [...new Set(directories)].toSorted();
};

/** npm packages, by name, with code in these outputs. */
export const packagesIn = (metafile: Metafile, within: Iterable<string>): string[] => [
  ...new Set(packageDirectories(metafile, within).map((directory) => directory.replace(/^.*node_modules\//, ''))),
];

/** The licences of all code in the bundle and beside it, which most of them ask to be shipped with; by name where a package has no text of its own. */
const thirdPartyLicenses = (metafile: Metafile): string =>
  [...packageDirectories(metafile, Object.keys(metafile.outputs)), ...besideBundle.map((name) => `node_modules/${name}`)]
    .map((directory) => {
      const { name, version, license } = JSON.parse(readFileSync(join(root, directory, 'package.json'), 'utf8')) as Record<string, string>;
      const file = readdirSync(join(root, directory)).find((entry) => /^licen[cs]e/i.test(entry));
      const text = file === undefined ? '' : `\n${readFileSync(join(root, directory, file), 'utf8').trim()}\n`;
      return `${name} ${version}: ${license}\n${text}`;
    })
    .join(`\n${'-'.repeat(80)}\n\n`);

if (import.meta.main) {
  const metafile = await buildBundle(join(root, 'dist'));
  const kib = (outputs: Iterable<string>): string => {
    const bytes = [...outputs].reduce((sum, output) => sum + (metafile.outputs[output]?.bytes ?? 0), 0);
    return `${(bytes / 1024).toFixed(0)} KiB`;
  };
  const code = Object.keys(metafile.outputs).filter((output) => output.endsWith('.js'));
  console.log(
    `dist/main.js and ${code.length - 1} chunks, ${kib(code)} in all, ${statSync(join(root, 'dist/main.js')).size} B before a command is chosen`,
  );
  console.log(`  beside it  ${besideBundle.join(', ')}`);
  for (const role of ['broker', 'collector', 'proxy', 'injector']) {
    const outputs = reachable(metafile, `src/${role}/run.ts`);
    console.log(`  ${role.padEnd(10)} ${kib(outputs)}, ${packagesIn(metafile, outputs).length} packages`);
  }
}

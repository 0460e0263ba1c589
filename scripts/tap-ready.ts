/**
 * Runs before tests and the type check: compiles tap's test class for the plugins that .taprc names, when a fresh `npm ci` has
 * left the default one (whose TypeScript plugin cannot load TypeScript 7). tap would do so itself, but too late for its first run.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const fromTap = createRequire(import.meta.resolve('tap'));
const testClass = readFileSync(fromTap.resolve('@tapjs/test/test-built'), 'utf8');

if (testClass.includes('@tapjs/typescript')) {
  const tap = fileURLToPath(new URL('../node_modules/.bin/tap', import.meta.url));
  process.exitCode = spawnSync(tap, ['build'], { stdio: 'inherit' }).status ?? 1;
}

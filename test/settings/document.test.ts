/** Files in, frozen settings or every problem out. What each problem says is in test/golden/config. */
import { execFileSync, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { inspect } from 'node:util';
import t from 'tap';
import { limits } from '../../src/core/limits.ts';
import {
  jsonSchemaOf,
  parseSettings,
  readSettings,
  type Settings,
  SettingsError,
  settingsKinds,
  takeSettings,
} from '../../src/settings/document.ts';

const root = join(import.meta.dirname, '../..');
const collector = `kind: collector
listen: 127.0.0.1:15005
admin: 127.0.0.1:15006
identity:
  broker: {address: 127.0.0.1:15002, spiffeId: spiffe://outrider.test/outrider/broker}
  brokerCaFile: ./ca.pem
  tokenFile: ./token
store: {file: ./events.jsonl}
`;

const problemsOf = (read: () => Settings): SettingsError => {
  try {
    read();
  } catch (error) {
    if (error instanceof SettingsError) return error;
    throw error;
  }
  throw new Error('was accepted');
};

t.test('a file that cannot be read is one problem that says why', async (t) => {
  const dir = t.testdir({
    'large.yaml': `${collector}${'#'.repeat(limits.configurationBytesMax)}`,
    'latin1.yaml': Buffer.from('kind: collector # caf\xe9\n', 'latin1'),
    folder: {},
    loop: t.fixture('symlink', 'loop'),
  });
  const cases: readonly (readonly [file: string, message: RegExp])[] = [
    [join(dir, 'missing.yaml'), /no such file/],
    [join(dir, 'large.yaml', 'x'), /no such file/],
    [join(dir, 'large.yaml'), new RegExp(`larger than ${limits.configurationBytesMax} bytes`)],
    [join(dir, 'latin1.yaml'), /not UTF-8/],
    [join(dir, 'folder'), /directory/],
    [join(dir, 'loop'), /link/],
    ['/dev/zero', /neither a file nor a pipe/],
  ];
  for (const [file, message] of cases) {
    const { problems, message: text } = problemsOf(() => readSettings(file));
    t.equal(problems.length, 1);
    t.match(problems[0], { line: 1, column: 1, path: '', message });
    t.equal(text, `${file}:1:1 ${problems[0]?.message}`);
  }
});

t.test('a pipe is read as a file is', async (t) => {
  const pipe = join(t.testdir(), 'pipe');
  execFileSync('mkfifo', [pipe]);
  const writer = spawn('sh', ['-c', 'printf %s "$1" > "$2"', 'sh', collector, pipe]);
  t.equal(readSettings(pipe).kind, 'collector');
  writer.kill();
});

t.test('a byte order mark and CR LF change nothing, positions included', async (t) => {
  const file = join(t.testdir(), 'windows.yaml');
  writeFileSync(file, `\uFEFF${collector.replaceAll('\n', '\r\n')}`);
  t.same(readSettings(file), parseSettings(collector, 'plain.yaml'));
  const wrong = collector.replace('store:', 'stores:');
  t.same(
    problemsOf(() => parseSettings(wrong.replaceAll('\n', '\r\n'), 'f')).problems,
    problemsOf(() => parseSettings(wrong, 'f')).problems,
  );
});

t.test('settings are frozen, all the way down', async (t) => {
  const settings = readSettings(join(root, 'config/examples/broker-kubernetes.yaml'));
  const thawed: string[] = [];
  const visit = (value: unknown, path: string): void => {
    if (typeof value !== 'object' || value === null) return;
    if (!Object.isFrozen(value)) thawed.push(path);
    for (const [key, member] of Object.entries(value)) visit(member, `${path}.${key}`);
  };
  visit(settings, 'settings');
  t.same(thawed, []);
});

t.test('of very many problems the first hundred are written out and the others counted', async (t) => {
  const unknown = Array.from({ length: 150 }, (_, i) => `k${i}: 1\n`).join('');
  const { problems, message } = problemsOf(() => parseSettings(`${collector}${unknown}`, 'f'));
  t.equal(problems.length, 150);
  t.equal(message.split('\n').length, 101);
  t.match(message, /f: and 50 more problems$/);
});

t.test('an error shows nothing of the text however it is printed', async (t) => {
  const canary = 'Canary7f3b9SecretValue';
  for (const text of [
    `kind: broker\nx: "${canary}`,
    `kind: broker\n${canary}`,
    `kind: ${canary}`,
    `${canary}: {${canary}: [${canary}`,
    `${collector}log: ${canary}`,
  ]) {
    const error = problemsOf(() => parseSettings(text, 'f'));
    for (const printed of [error.message, String(error), error.stack, inspect(error, { depth: 9 }), JSON.stringify(error)])
      t.notMatch(printed, canary);
    t.equal(error.cause, undefined);
  }
});

t.test('hostile text of 100 KB is answered in time', async (t) => {
  const size = 100_000;
  const texts: Readonly<Record<string, string>> = {
    'many keys': `kind: broker\n${Array.from({ length: size / 10 }, (_, i) => `k${i}: 1`).join('\n')}`,
    'deep brackets': `kind: ${'['.repeat(size)}`,
    'deep dashes': `kind: broker\ntargets:\n  ${'- '.repeat(size / 2)}`,
    aliases: `kind: broker\na: &a x\nb: [${'*a, '.repeat(size / 4)}]`,
    'unknown names': `kind: broker\npolicies:\n- name: p\n  rules:\n  - workloads: [${Array.from({ length: size / 10 }, (_, i) => `w${i}`).join(', ')}]\nworkloads:\n${Array.from({ length: size / 20 }, (_, i) => `- name: work-load-${i}`).join('\n')}`,
    errors: 'a: b: c\n'.repeat(size / 8),
  };
  for (const [name, text] of Object.entries(texts)) {
    const startedAt = performance.now();
    t.ok(problemsOf(() => parseSettings(text, 'f')).problems.length > 0, name);
    const ms = performance.now() - startedAt;
    t.ok(ms < 5_000, `${name}: ${ms.toFixed(0)} ms`);
  }
});

t.test('settings are read where code generation from strings is not allowed', async (t) => {
  const script = `
    const { readSettings } = await import('./src/settings/document.ts');
    process.stdout.write(readSettings('config/examples/broker-kubernetes.yaml').kind);
  `;
  const flags = ['--disallow-code-generation-from-strings', '--input-type=module', '--eval', script];
  t.equal(execFileSync(process.execPath, flags, { cwd: root, encoding: 'utf8' }), 'broker');
});

t.test('the JSON Schema of each kind knows every key, refuses others, and names no secret by value', async (t) => {
  for (const kind of settingsKinds) {
    const schema = jsonSchemaOf(kind);
    t.match(schema, { type: 'object', additionalProperties: false, properties: { kind: { const: kind }, listen: {}, admin: {}, log: {} } });
  }
  const broker = JSON.stringify(jsonSchemaOf('broker'));
  for (const key of ['clientAuthentication', 'keyOverlap', 'expires', 'placement', 'kubernetes.namespace', 'authorizationTokenFile'])
    t.match(broker, `"${key}"`);
  t.notMatch(broker, '"additionalProperties":{}');
});

t.test('a configuration in an environment variable is read once, and its problems say where it is', async (t) => {
  const environment: NodeJS.ProcessEnv = { GOOD: 'kind: collector\nlisten: 127.0.0.1:0', OTHER: 'x' };
  const problems = (name: string): string => {
    try {
      takeSettings(environment, name);
    } catch (error) {
      return (error as SettingsError).message;
    }
    return '';
  };
  t.match(problems('GOOD'), /^env GOOD:1:1 admin: is missing/);
  t.strictSame(environment, { OTHER: 'x' });
  t.equal(problems('GOOD'), 'env GOOD:1:1 is not set, write the configuration into it');
});

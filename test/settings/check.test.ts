/** `outrider check` as a person and as a program use it. */
import { join } from 'node:path';
import t from 'tap';
import { check } from '../../src/cli/check.ts';
import { UsageError } from '../../src/cli/terminal.ts';

const config = join(import.meta.dirname, '../../config');
const golden = join(import.meta.dirname, '../golden/config');

const run = (...args: string[]): { status: number; lines: string[]; complaints: string[] } => {
  const lines: string[] = [];
  const complaints: string[] = [];
  const terminal = {
    print: (line: string) => void lines.push(...line.split('\n')),
    complain: (line: string) => void complaints.push(line),
    stopRequested: new Promise<void>(() => {}),
  };
  return { status: check(args, terminal), lines, complaints };
};

t.test('a good file is one line with what is in it and its version', async (t) => {
  const file = join(config, 'examples/broker-kubernetes.yaml');
  const { status, lines } = run('--config', file);
  t.equal(status, 0);
  t.match(
    lines.at(-1),
    /broker-kubernetes\.yaml: broker configuration is valid \(3 workloads, 12 targets, 9 providers, 3 policies\), version [0-9a-f]{16}$/,
  );
  t.match(run('--config', join(config, 'demo/broker.yaml')).lines.at(-1), /\(2 workloads, 1 target, 1 provider, 1 policy\)/);
  t.match(run('--config', join(config, 'demo/proxy.yaml')).lines.at(-1), /proxy configuration is valid, version [0-9a-f]{16}$/);
});

t.test('migration debt is a warning, not a problem', async (t) => {
  const file = join(config, 'examples/broker-kubernetes.yaml');
  const { status, lines } = run('--config', file);
  t.equal(status, 0);
  t.ok(
    lines.includes(
      `warning: ${file}: provider legacy-key: a static credential is migration debt: it does not expire and must be rotated by hand`,
    ),
  );
});

t.test('every problem is a line, and one bad file fails them all', async (t) => {
  const bad = join(golden, 'broker-secrets.yaml');
  const { status, lines } = run('--config', join(config, 'demo/proxy.yaml'), '--config', bad, '--config', join(golden, 'nothing.yaml'));
  t.equal(status, 1);
  t.ok(lines.filter((line) => line.startsWith(`${bad}:`)).length > 20);
  t.ok(lines.some((line) => line.includes('nothing.yaml:1:1 there is no such file')));
  t.notMatch(lines.join('\n'), /canary/i);
});

t.test('--json is one object a file, with places as numbers', async (t) => {
  const { status, lines } = run('--json', '--config', join(config, 'demo/broker.yaml'), '--config', join(golden, 'yaml-tab.yaml'));
  t.equal(status, 1);
  const [good, bad] = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  t.match(good, {
    valid: true,
    kind: 'broker',
    version: /^[0-9a-f]{16}$/,
    policies: [{ name: 'demo', version: /^[0-9a-f]{16}$/ }],
    problems: [],
  });
  t.match(bad, { valid: false, problems: [{ line: 3, column: 1, path: '', message: /tab/ }], warnings: [] });
});

t.test('--schema prints the JSON Schema of a kind', async (t) => {
  const { status, lines } = run('--schema', 'proxy');
  t.equal(status, 0);
  t.match(JSON.parse(lines.join('\n')), { $schema: /json-schema/, properties: { kind: { const: 'proxy' } } });
});

t.test('wrong arguments are told from wrong files', async (t) => {
  t.throws(() => run(), UsageError);
  t.throws(() => run('--schema', 'gateway'), UsageError);
  t.throws(() => run('--colour'), UsageError);
  t.throws(() => run('--config', join(config, 'demo/proxy.yaml'), 'more'), UsageError);
});

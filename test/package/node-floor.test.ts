import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { nodeComplaint } from '../../bin/node-floor.cjs';
import { root } from '../support/source-tree.ts';

t.test('the floor is exact', async (t) => {
  for (const version of ['24.18.1', '24.18.2', '24.21.0', '25.0.0', '26.3.1', '100.0.0'])
    t.equal(nodeComplaint(version), undefined, version);
  for (const version of ['24.18.0', '24.17.9', '24.2.0', '22.99.99', '20.20.2', '12.0.0', '0.10.48', 'unknown'])
    t.ok(nodeComplaint(version), version);
});

t.test('the sentence says what was found, what is needed, why and what to do', async (t) => {
  const sentence = nodeComplaint('20.20.2') ?? '';
  for (const part of ['Node 24.18.1', 'Node 20.20.2', 'HTTP parser is unsafe', 'npm ci', 'npm start', 'npm run -s outrider'])
    t.ok(sentence.includes(part), part);
  t.equal(sentence.split('\n').length, 1);
});

/** Nodes that a machine may have apart from ours. */
const others = ['/usr/bin/node', '/usr/local/bin/node'].filter(existsSync);

t.test('a Node of the machine, whichever it is, gets through or gets the sentence', async (t) => {
  for (const node of [...others, process.execPath]) {
    const version = spawnSync(node, ['--version'], { encoding: 'utf8' }).stdout.trim().slice(1);
    const { status, stderr } = spawnSync(node, ['bin/node-floor.cjs'], { cwd: root, encoding: 'utf8' });
    const complaint = nodeComplaint(version);
    t.equal(status, complaint === undefined ? 0 : 1, `${node} ${version}`);
    t.equal(stderr, complaint === undefined ? '' : `${complaint}\n`);
  }
});

t.test('the guard itself is written for any Node', async (t) => {
  const text = readFileSync(join(root, 'bin/node-floor.cjs'), 'utf8').replace(/\/\*[^]*?\*\//g, '');
  t.notMatch(text, /=>|`|\bconst\b|\blet\b|\?\?|\?\.|\bimport\b|\basync\b/);
});

t.test('nothing of ours is loaded before the guard has been asked', async (t) => {
  const imports = [...readFileSync(join(root, 'src/main.ts'), 'utf8').matchAll(/^import (?!type ).*from '(.+)';$/gm)].map(
    (match) => match[1] as string,
  );
  // What Node itself brings is there in every version.
  const ours = imports.filter((specifier) => specifier !== 'node:os');
  t.strictSame(ours, ['../bin/node-floor.cjs']);
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> };
  for (const name of ['start', 'outrider', 'pretest']) t.match(scripts[name], /^node bin\/node-floor\.cjs && /, name);
});

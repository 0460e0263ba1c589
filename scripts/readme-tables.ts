/**
 * `npm run docs`: writes the tables of README.md and SECURITY.md that mirror the code between their markers, `<!-- faults -->` to
 * `<!-- /faults -->` and so on. test/tidy.test.ts and test/threats.test.ts fail when one is out of date.
 */
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { trustVariables } from '../src/core/program-environment.ts';
import { faults } from '../src/core/fault.ts';
import { annotationTable } from '../src/injector/annotations.ts';
import { metricTable } from '../src/ops/metric-table.ts';
import { matrixHead, matrixRows } from '../test/clients/table.ts';
import { type Threat, threats } from '../test/threats.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

/**
 * Where the faults that a stage can end in are named: its own files, and those of the layers below that fail in its place. The
 * identity and grant stages also end in what the broker answered.
 */
const stageSources: Readonly<Record<string, readonly string[]>> = {
  listener: ['src/proxy/listener.ts', 'src/proxy/listener'],
  route: ['src/proxy/route.ts', 'src/proxy/route'],
  identity: [
    'src/proxy/identity.ts',
    'src/rpc/svid-source.ts',
    'src/rpc/status.ts',
    'src/broker/attest.ts',
    'src/broker/attest',
    'src/broker/service/admission.ts',
    'src/pki',
  ],
  grant: [
    'src/proxy/grant.ts',
    'src/proxy/grant',
    'src/rpc/status.ts',
    'src/rpc/wire/grant.ts',
    'src/rpc/wire/placement.ts',
    'src/broker/service.ts',
    'src/broker/provider.ts',
    'src/broker/provider',
  ],
  authorize: ['src/proxy/authorize.ts'],
  hold: ['src/proxy/hold.ts'],
  inject: ['src/proxy/inject.ts', 'src/proxy/inject', 'src/pki/client-certificate.ts'],
  event: ['src/proxy/event.ts'],
  upstream: [
    'src/proxy/upstream.ts',
    'src/proxy/upstream',
    'src/net/dial.ts',
    'src/net/dial',
    'src/net/chain.ts',
    'src/net/outbound.ts',
    'src/net/outbound',
  ],
};

const sourcesIn = (path: string): string[] => {
  const at = join(root, path);
  if (!existsSync(at)) return [];
  if (statSync(at).isFile()) return [readFileSync(at, 'utf8')];
  return readdirSync(at).flatMap((name) => sourcesIn(join(path, name)));
};

const codes = Object.keys(faults);

/** Fault codes written as literals in a stage's sources, in the table's order. */
export const codesOfStage = (stage: string): string[] => {
  const text = (stageSources[stage] ?? []).flatMap(sourcesIn).join('\n');
  return codes.filter((code) => text.includes(`'${code}'`));
};

const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`).join('\n');

const code = (text: string): string => `\`${text}\``;

/** Marker → what stands between it and its end. */
export const tables = (): Readonly<Record<string, string>> => ({
  stages: table(
    ['stage', 'can end in'],
    Object.keys(stageSources).map((stage) => [stage, codesOfStage(stage).map(code).join(' ')]),
  ),
  faults: table(
    ['code', 'status', 'whose', 'retry', 'what happened'],
    Object.entries(faults).map(([name, { status, blame, retry, title }]) => [
      code(name),
      String(status),
      blame,
      retry ? 'yes' : 'no',
      title,
    ]),
  ),
  annotations: table(
    ['annotation', 'may be', 'unless written', 'meaning'],
    annotationTable.map(({ name, values, default: otherwise, meaning }) => [code(`outrider.dev/${name}`), values, otherwise, meaning]),
  ),
  clients: table(matrixHead, matrixRows()),
  trust: table(
    ['variable', 'read by', 'to the roots a program has'],
    trustVariables.map(({ name, readBy, effect }) => [code(name), readBy, effect === 'adds' ? 'adds' : 'takes their place']),
  ),
  metrics: table(
    ['metric', 'kind', 'labels', 'meaning'],
    Object.entries(metricTable).map(([name, { kind, labels, help }]) => [code(name), kind, labels.map(code).join(' '), help]),
  ),
});

const shown = ({ shownBy, left }: Threat): string =>
  [
    ...shownBy.map(([file, name]) => `${code(`test/${file}`)}: ${name.replaceAll(/\$\{[^}]*\}/g, '…')}`),
    ...(left === undefined ? [] : [`*${left}*`]),
  ].join('<br>');

/** Marker → what stands there in SECURITY.md. */
export const securityTables = (): Readonly<Record<string, string>> => ({
  threats: table(
    ['', 'attack', 'shown to fail by, and *what is left*'],
    threats.map((threat) => [threat.id, threat.attack, shown(threat)]),
  ),
});

/** `text` with every table between markers made anew. Throws when a marker is missing. */
export const withTables = (document: string, made = tables(), name = 'README.md'): string =>
  Object.entries(made).reduce((text, [marker, content]) => {
    const between = new RegExp(`(<!-- ${marker} -->\n)[^]*?(<!-- /${marker} -->)`);
    if (!between.test(text)) throw new Error(`${name} has no <!-- ${marker} --> … <!-- /${marker} -->, each on a line of its own`);
    return text.replace(between, (_, start: string, end: string) => `${start}\n${content}\n\n${end}`);
  }, document);

if (import.meta.main) {
  for (const [name, made] of [
    ['README.md', tables()],
    ['SECURITY.md', securityTables()],
  ] as const) {
    const file = join(root, name);
    const before = readFileSync(file, 'utf8');
    const after = withTables(before, made, name);
    if (after !== before) writeFileSync(file, after);
    console.log(after === before ? `${name} is up to date` : `${name}: tables rewritten`);
  }
}

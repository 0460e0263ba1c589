import { readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { createSteer } from '../../src/cli/steer.ts';
import { installing, readInstalled } from '../../src/cli/steer/rules.ts';
import { type Ran, type Run, usesIPv6 } from '../../src/cli/steer/tables.ts';
import { UsageError } from '../../src/cli/terminal.ts';
import { type Finished, type Pod, podsArePossible, startPod } from '../support/namespace.ts';

interface Steered {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

const ok: Ran = { status: 0, out: '', err: '' };

const steer = async (args: readonly string[], run: Run, hasIPv6 = true): Promise<Steered> => {
  const [out, err]: [string[], string[]] = [[], []];
  const terminal = {
    print: (line: string) => void out.push(line),
    complain: (line: string) => void err.push(line),
    stopRequested: Promise.resolve(),
  };
  const status = await createSteer({ run, hasIPv6: () => hasIPv6 })(args, terminal);
  return { status, out: out.join('\n'), err: err.join('\n') };
};

/** Two tables that understand what is written to them: enough of iptables to follow one chain. */
const fakeTables = (fails: (program: string, call: number) => Ran | undefined = () => undefined) => {
  const tables: Record<string, string[]> = { iptables: [], ip6tables: [] };
  let calls = 0;
  const run: Run = (program, args, input) => {
    calls += 1;
    const failure = fails(program, calls);
    if (failure) return Promise.resolve(failure);
    const name = program.replace('-restore', '');
    if (args.includes('-S')) return Promise.resolve({ ...ok, out: ['-P OUTPUT ACCEPT', ...(tables[name] as string[])].join('\n') });
    let lines = [...(tables[name] as string[])];
    for (const line of input.split('\n')) {
      if (line.startsWith(':')) lines = [...lines.filter((one) => one !== '-N OUTRIDER_OUTPUT'), '-N OUTRIDER_OUTPUT'];
      if (line.startsWith('-F') || line.startsWith('-X')) lines = lines.filter((one) => !one.startsWith('-A OUTRIDER_OUTPUT'));
      if (line.startsWith('-X')) lines = lines.filter((one) => one !== '-N OUTRIDER_OUTPUT');
      if (line.startsWith('-A')) lines.push(line);
      if (line.startsWith('-I')) lines.push(line.replace('-I', '-A'));
      if (line.startsWith('-D')) lines.splice(lines.indexOf(line.replace('-D', '-A')), 1);
    }
    tables[name] = lines;
    return Promise.resolve(ok);
  };
  return { run, tables };
};

t.test('what is not a port, a range or a user is said before anything is run', async (t) => {
  const never: Run = () => {
    throw new Error('nothing is to be run');
  };
  for (const args of [
    [],
    ['start'],
    ['install', 'now', '--except-uid', '1'],
    ['install'],
    ['install', '--except-uid', ''],
    ['install', '--except-uid', 'proxy'],
    ['install', '--except-uid', '-1'],
    ['install', '--except-uid', '1,,2'],
    ['install', '--except-uid', '4294967295'],
    ['install', '--except-uid', '007'],
    ['install', '--except-uid', '1', '--to', '0'],
    ['install', '--except-uid', '1', '--to', '65536'],
    ['install', '--except-uid', '1', '--to', '80 -j ACCEPT'],
    ['install', '--except-uid', '1', '--except-port', '0'],
    ['install', '--except-uid', '1', '--except-port', '65536'],
    ['install', '--except-uid', '1', '--except-port', '25,30-20'],
    ['install', '--except-uid', '1', '--except-port', '1-2-3'],
    ['install', '--except-uid', '1', '--except-port', '0x50'],
    ['install', '--except-uid', '1', '--only-port', '80:90'],
    ['install', '--except-uid', '1', '--except-range', '10.0.0.0/33'],
    ['install', '--except-uid', '1', '--except-range', 'fd00::/129'],
    ['install', '--except-uid', '1', '--except-range', '10.0.0/8'],
    ['install', '--except-uid', '1', '--except-range', 'example.com'],
    ['install', '--except-uid', '1', '--except-range', 'fe80::%eth0/64'],
    ['install', '--except-uid', '1', '--except-range', '! 10.0.0.0/8'],
    ['install', '--except-uid', '1', '--except-port', Array.from({ length: 257 }, (_, i) => i + 1).join(',')],
    ['remove', '--to', '15008'],
    ['show', '--except-uid', '1'],
    ['show', '--dry-run'],
    ['install', '--unknown'],
  ]) {
    await t.rejects(steer(args, never), UsageError, args.join(' ').slice(0, 80));
  }
});

t.test('rules except, in this order, loopback, users, ranges and ports; the rest is steered', async (t) => {
  const { run } = fakeTables();
  const flags = [
    '--except-uid',
    '65532,1337',
    '--except-port',
    '25,3000-3010',
    '--except-range',
    '10.0.0.0/8,fd00::/8,192.0.2.1',
    '--to',
    '15999',
  ];
  const { status, out } = await steer(['install', '--dry-run', ...flags], run);
  t.equal(status, 0);
  t.equal(
    out,
    `# iptables-restore --noflush
*nat
:OUTRIDER_OUTPUT - [0:0]
-F OUTRIDER_OUTPUT
-A OUTRIDER_OUTPUT -o lo -j RETURN
-A OUTRIDER_OUTPUT -d 127.0.0.0/8 -j RETURN
-A OUTRIDER_OUTPUT -m owner --uid-owner 65532 -j RETURN
-A OUTRIDER_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A OUTRIDER_OUTPUT -d 10.0.0.0/8 -j RETURN
-A OUTRIDER_OUTPUT -d 192.0.2.1/32 -j RETURN
-A OUTRIDER_OUTPUT -p tcp -m tcp --dport 25 -j RETURN
-A OUTRIDER_OUTPUT -p tcp -m tcp --dport 3000:3010 -j RETURN
-A OUTRIDER_OUTPUT -p tcp -j REDIRECT --to-ports 15999
-I OUTPUT -p tcp -j OUTRIDER_OUTPUT
COMMIT
# ip6tables-restore --noflush
*nat
:OUTRIDER_OUTPUT - [0:0]
-F OUTRIDER_OUTPUT
-A OUTRIDER_OUTPUT -o lo -j RETURN
-A OUTRIDER_OUTPUT -d ::1/128 -j RETURN
-A OUTRIDER_OUTPUT -m owner --uid-owner 65532 -j RETURN
-A OUTRIDER_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A OUTRIDER_OUTPUT -d fd00::/8 -j RETURN
-A OUTRIDER_OUTPUT -p tcp -m tcp --dport 25 -j RETURN
-A OUTRIDER_OUTPUT -p tcp -m tcp --dport 3000:3010 -j RETURN
-A OUTRIDER_OUTPUT -p tcp -j REDIRECT --to-ports 15999
-I OUTPUT -p tcp -j OUTRIDER_OUTPUT
COMMIT`,
  );
});

t.test('neither IP version is steered when one of them fails, and what was steered before is again', async (t) => {
  const refusing = (program: string): Ran | undefined =>
    program === 'ip6tables-restore' ? { status: 4, out: '', err: 'ip6tables-restore: line 13 failed\n' } : undefined;
  for (const before of [
    [],
    ['-N OUTRIDER_OUTPUT', '-A OUTRIDER_OUTPUT -p tcp -j REDIRECT --to-ports 1', '-A OUTPUT -p tcp -j OUTRIDER_OUTPUT'],
  ]) {
    const { run, tables } = fakeTables(refusing);
    tables['iptables'] = [...before, '-A OUTPUT -d 192.0.2.1/32 -j ACCEPT'];
    const { status, err } = await steer(['install', '--except-uid', '1'], run);
    t.equal(status, 1);
    t.equal(err, 'ip6tables-restore failed: ip6tables-restore: line 13 failed.');
    t.strictSame(tables['iptables'].toSorted(), [...before, '-A OUTPUT -d 192.0.2.1/32 -j ACCEPT'].toSorted());
  }
});

t.test('a missing program, missing rights and a missing table are told apart, and nothing is changed', async (t) => {
  for (const [ran, sentence] of [
    [{ status: undefined, out: '', err: '' }, /^iptables is not installed$/],
    [
      { status: 4, out: '', err: '\nFatal: Permission denied (you must be root)\n' },
      /you must be root\)\. Steering needs root with the capability NET_ADMIN/,
    ],
    [
      { status: 3, out: '', err: "can't initialize iptables table `nat': Table does not exist\n" },
      /^iptables failed: can't initialize .*exist\.$/,
    ],
  ] as const) {
    const { run, tables } = fakeTables((program) => (program === 'iptables' ? ran : undefined));
    const { status, err } = await steer(['install', '--except-uid', '1'], run);
    t.equal(status, 1);
    t.match(err, sentence);
    t.strictSame(tables, { iptables: [], ip6tables: [] });
  }
});

t.test('IPv6 that cannot be steered is a failure where there is IPv6, and a notice where there is none', async (t) => {
  const absent = (program: string): Ran | undefined =>
    program === 'ip6tables' ? { status: 3, out: '', err: 'no nat table\n' } : undefined;
  const first = fakeTables(absent);
  t.match(await steer(['install', '--except-uid', '1'], first.run, true), { status: 1, err: 'ip6tables failed: no nat table.' });
  t.strictSame(first.tables['iptables'], []);
  const second = fakeTables(absent);
  const { status, out, err } = await steer(['install', '--except-uid', '1'], second.run, false);
  t.equal(status, 0);
  t.equal(out, 'TCP connections are steered to port 15008 (IPv4)');
  t.match(err, /^notice: IPv6 is left alone/);
});

t.test('IPv6 is in use when an interface other than loopback has an address of it', async (t) => {
  const loopback = '00000000000000000000000000000001 01 80 10 80       lo\n';
  t.notOk(usesIPv6(() => loopback));
  t.notOk(usesIPv6(() => ''));
  t.notOk(usesIPv6(() => readFileSync('/nowhere', 'utf8')));
  t.ok(usesIPv6(() => `${loopback}fd6f0000000000000000000000000001 02 40 00 80     eth0\n`));
});

t.test('show says what is missing from rules that somebody has changed', async (t) => {
  const hook = '-A OUTPUT -p tcp -j OUTRIDER_OUTPUT';
  const guard = '-A OUTRIDER_OUTPUT -m owner --uid-owner 65532 -j RETURN';
  const redirect = '-A OUTRIDER_OUTPUT -p tcp -j REDIRECT --to-ports 15008';
  const chain = '-N OUTRIDER_OUTPUT';
  for (const [lines, said, status] of [
    [[], /^IPv4: not installed$/m, 1],
    [[hook], /there is no chain/, 1],
    [[chain, guard, redirect], /from nowhere/, 1],
    [[chain, guard, redirect, hook, hook], /more than once/, 1],
    [[chain, guard, hook], /nothing is redirected/, 1],
    [[chain, redirect, hook], /own connections are not excepted/, 1],
    [[chain, redirect, guard, hook], /own connections are not excepted/, 1],
    [[chain, guard, redirect, hook], /^IPv4: complete, to port 15008$/m, 0],
  ] as const) {
    const { run, tables } = fakeTables();
    tables['iptables'] = [...lines];
    tables['ip6tables'] = [...lines];
    const shown = await steer(['show'], run);
    t.match(shown, { status, out: said });
  }
  const { run, tables } = fakeTables();
  tables['iptables'] = [chain, guard, redirect, hook];
  t.match(await steer(['show'], run), { status: 1, out: /IPv4: complete[^]*IPv6: not installed/ }, 'one IP version is not enough');
  tables['ip6tables'] = [chain, guard, redirect.replace('15008', '15009'), hook];
  t.match(await steer(['show'], run), { status: 1, out: /different ports/ });
});

t.test('rules of others are neither read as ours nor written', async (t) => {
  const listing = `-P OUTPUT ACCEPT
-N OUTRIDER_OUTPUT_OLD
-N ISTIO_OUTPUT
-A OUTPUT -p tcp -j ISTIO_OUTPUT
-A OUTPUT -p tcp -j OUTRIDER_OUTPUT_OLD
-A OUTRIDER_OUTPUT_OLD -j RETURN
`;
  t.strictSame(readInstalled(listing), { hooks: [], rules: undefined });
  t.notMatch(installing(readInstalled(listing), ['OUTRIDER_OUTPUT -j RETURN']), /ISTIO|_OLD/);
});

const rulesIn = async (pod: Pod): Promise<string> => {
  const saved = await Promise.all(['iptables-save', 'ip6tables-save'].map((program) => pod.run(program, ['-t', 'nat'])));
  return saved.map(({ out }) => out.replace(/^#.*$/gm, '').replace(/\[\d+:\d+\]/g, '')).join('\n');
};

const expectOk = (t: Test, { status, err }: Finished): void => void t.strictSame({ status, err }, { status: 0, err: '' });

t.test('real tables', async (t) => {
  if (!podsArePossible(t)) return;
  const pod = startPod(t);
  for (const program of ['iptables', 'ip6tables'])
    expectOk(t, await pod.run(program, ['-w', '-t', 'nat', '-A', 'OUTPUT', '-p', 'tcp', '--dport', '9', '-j', 'ACCEPT']));
  const foreign = await rulesIn(pod);
  const install = ['steer', 'install', '--except-uid', '65532', '--except-port', '25,3000-3010', '--except-range', '10.0.0.0/8,fd00::/8'];

  await t.test('installed twice is installed once, and completely', async (t) => {
    expectOk(t, await pod.outrider(...install));
    const once = await rulesIn(pod);
    expectOk(t, await pod.outrider(...install));
    t.equal(await rulesIn(pod), once);
    t.equal(once.match(/^-A OUTPUT -p tcp -j OUTRIDER_OUTPUT$/gm)?.length, 2, 'one for each IP version');
    t.match(once, /^-A OUTPUT -p tcp -j OUTRIDER_OUTPUT\n-A OUTPUT -p tcp -m tcp --dport 9 -j ACCEPT$/m, 'before what others have');
    t.match(await pod.outrider('steer', 'show'), { status: 0, out: /^IPv4: complete, to port 15008$[^]*^IPv6: complete, to port 15008$/m });
  });

  await t.test('installed again with other flags is what these say', async (t) => {
    expectOk(t, await pod.outrider('steer', 'install', '--except-uid', '7', '--to', '15999', '--only-port', '80,443'));
    const rules = await rulesIn(pod);
    t.notMatch(rules, /65532|3000|fd00|15008/);
    t.equal(rules.match(/-j REDIRECT --to-ports 15999$/gm)?.length, 4);
  });

  await t.test('removed leaves what others have and nothing else, and so does removed again', async (t) => {
    for (const _ of [1, 2]) {
      t.match(await pod.outrider('steer', 'remove'), { status: 0, out: 'no steering rules are left\n', err: '' });
      t.equal(await rulesIn(pod), foreign);
    }
    t.match(await pod.outrider('steer', 'show'), { status: 1, out: 'IPv4: not installed\nIPv6: not installed\n' });
  });

  await t.test('a dry run changes nothing', async (t) => {
    t.match(await pod.outrider(...install, '--dry-run'), { status: 0, out: /^\*nat$[^]*^\*nat$/m });
    t.equal(await rulesIn(pod), foreign);
  });

  await t.test('without the right to change the tables it says so and changes nothing', async (t) => {
    const { status, err } = await pod.run(process.execPath, ['--disable-sigusr1', 'src/main.ts', ...install], { uid: 65_532 });
    t.equal(status, 1);
    t.match(err, /Steering needs root with the capability NET_ADMIN/);
    t.equal(await rulesIn(pod), foreign);
  });
});

import { createServer } from 'node:net';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { runCommand } from '../../src/cli/command.ts';
import { commandNames } from '../../src/cli/help.ts';
import { createTestAuthority } from '../support/certificates.ts';

interface Ran {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

const run = async (...argv: string[]): Promise<Ran> => {
  const [out, err]: [string[], string[]] = [[], []];
  const terminal = {
    print: (line: string) => void out.push(line),
    complain: (line: string) => void err.push(line),
    stopRequested: Promise.resolve(),
  };
  const status = await runCommand(argv, terminal);
  return { status, out: out.join('\n'), err: err.join('\n') };
};

t.test('help names every command, and every command has help of its own', async (t) => {
  const { status, out, err } = await run('--help');
  t.equal(status, 0);
  t.equal(err, '');
  for (const name of commandNames) {
    t.match(out, new RegExp(`^  ${name} `, 'm'));
    const help = await run(name, '--help');
    t.equal(help.status, 0);
    t.match(help.out, `outrider ${name}`);
    t.same(await run('help', name), help);
    t.same(await run(name, '--unknown', '-h'), help, 'whatever else is asked');
  }
});

t.test('no command at all is a question, not a success', async (t) => {
  const { status, out } = await run();
  t.equal(status, 2);
  t.equal(out, (await run('--help')).out);
});

t.test('the version is that of the package', async (t) => {
  const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
  t.strictSame(await run('--version'), { status: 0, out: `outrider ${version} (Node ${process.versions.node})`, err: '' });
});

t.test('an unknown command gets the nearest known one', async (t) => {
  for (const [written, meant] of [
    ['borker', 'broker'],
    ['Proxy', 'proxy'],
    ['event', 'events'],
    ['--config', undefined],
    ['zzz', undefined],
  ] as const) {
    const { status, err, out } = await run(written);
    t.equal(status, 2);
    t.equal(out, '');
    t.match(err, 'outrider --help');
    if (meant === undefined) t.notMatch(err, 'did you mean');
    else t.match(err, `did you mean ${meant}?`);
  }
});

t.test('wrong arguments say what to write, with exit status 2', async (t) => {
  const cases: readonly (readonly [argv: string, sentence: string])[] = [
    ['broker', 'broker needs --config FILE'],
    ['proxy --config', 'config'],
    ['proxy --config x --config-env Y', 'write --config or --config-env, not both'],
    ['collector --confg x', "Unknown option '--confg'"],
    ['proxy --config x y', "Unexpected argument 'y'"],
    ['check', '--config FILE'],
    ['demo --only issuer', '--only takes "issuer,target"'],
    ['demo --token-lifetime 0', '--token-lifetime takes a whole number of seconds'],
    ['demo --any-port=yes', "'--any-port' does not take an argument"],
  ];
  for (const [argv, sentence] of cases) {
    const { status, err, out } = await run(...argv.split(' '));
    t.equal(status, 2, argv);
    t.equal(out, '');
    t.ok(err.includes(sentence), `${argv}: ${err}`);
    t.match(err, `outrider ${argv.split(' ', 1)[0]} --help`);
  }
});

t.test('a configuration of another kind names the command for it', async (t) => {
  const { status, err } = await run('proxy', '--config', 'config/demo/broker.yaml');
  t.equal(status, 1);
  t.equal(err, 'config/demo/broker.yaml is a broker configuration: start it with "outrider broker --config config/demo/broker.yaml".');
  const unset = await run('proxy', '--config-env', 'OUTRIDER_TEST_UNSET');
  t.equal(unset.status, 1);
  t.equal(unset.err, 'env OUTRIDER_TEST_UNSET:1:1 is not set, write the configuration into it');
});

t.test('a configuration that is wrong is refused with its lines and nothing else', async (t) => {
  const file = join(t.testdir({ 'collector.yaml': 'kind: collector\nlistne: 127.0.0.1:1\n' }), 'collector.yaml');
  const { status, out, err } = await run('collector', '--config', file);
  t.equal(status, 1);
  t.equal(out, '');
  for (const line of err.split('\n')) t.ok(line.startsWith(`${file}:`), line);
  t.match(err, 'listen');
  const missing = await run('broker', '--config', join(file, '..', 'none.yaml'));
  t.equal(missing.status, 1);
  t.match(missing.err, 'none.yaml:1:1');
});

const collectorFile = (t: Test, port: number): string => {
  const directory = t.testdir({});
  const settings = readFileSync('config/demo/collector.yaml', 'utf8')
    .replaceAll('.outrider/demo', directory)
    .replace('127.0.0.1:15005', '127.0.0.1:0')
    .replace('127.0.0.1:15006', `127.0.0.1:${port}`);
  return join(t.testdir({ 'collector.yaml': settings, broker: {} }), 'collector.yaml');
};

t.test('a role says where it listens, and stops when asked to though it is not ready', async (t) => {
  const { status, out, err } = await run('collector', '--config', collectorFile(t, 0));
  t.equal(err, '');
  t.equal(status, 0);
  t.match(out, /^collector listens: gRPC 127\.0\.0\.1:\d+, admin 127\.0\.0\.1:\d+\ncollector stopped$/);
});

t.test('a broker that is asked to stop while it waits for shared keys has stopped, and not failed', async (t) => {
  const dir = t.testdir({ 'ca.pem': createTestAuthority('API server authority').pem, token: 'unused' });
  const text = `kind: broker
trustDomain: outrider.test
stateDir: ${dir}/state
sharedKeys: { apiServer: "https://127.0.0.1:1", caFile: ${dir}/ca.pem, tokenFile: ${dir}/token, namespace: outrider, secret: keys, configMap: trust }
bundleFile: ${dir}/broker-ca.pem
listen: 127.0.0.1:0
admin: 127.0.0.1:0
issuer: { url: "https://issuer.outrider.test", listen: "127.0.0.1:0" }
attestors:
  - { kind: projected_token, name: cluster, issuer: "https://issuer.cluster.test", audience: outrider }
`;
  writeFileSync(join(dir, 'broker.yaml'), text);
  t.strictSame(await run('broker', '--config', join(dir, 'broker.yaml')), {
    status: 0,
    out: 'broker stopped: it was waiting for the keys that the brokers share',
    err: '',
  });
});

t.test('a port in use is one sentence, not a crash', async (t) => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const { port } = server.address() as AddressInfo;
  const { status, err } = await run('collector', '--config', collectorFile(t, port));
  t.equal(status, 1);
  t.match(err, new RegExp(`^collector: 127\\.0\\.0\\.1:${port} is in use: stop the program`));
});

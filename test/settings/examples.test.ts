/** What we ship as configuration is read, fits together, and shows what it claims to show. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { parseSpiffeId } from '../../src/core/spiffe-id.ts';
import type { BrokerSettings } from '../../src/settings/broker.ts';
import type { CollectorSettings } from '../../src/settings/collector.ts';
import { parseSettings, readSettings, type Settings } from '../../src/settings/document.ts';
import type { ProxySettings } from '../../src/settings/proxy.ts';

const config = join(import.meta.dirname, '../../config');
const files = readdirSync(config, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.yaml'));

const read = <K extends Settings['kind']>(kind: K, file: string): Extract<Settings, { kind: K }> => {
  const settings = readSettings(join(config, file));
  if (settings.kind !== kind) throw new Error(`${file} is a ${settings.kind} configuration`);
  return settings as Extract<Settings, { kind: K }>;
};

const sets: readonly { of: string; broker: BrokerSettings; collector: CollectorSettings; proxy: ProxySettings }[] = (
  ['demo/*', 'examples/*', 'examples/*-kubernetes'] as const
).map((pattern) => {
  const file = (kind: string): string => `${pattern.replace('*', kind)}.yaml`;
  return {
    of: pattern,
    broker: read('broker', file('broker')),
    collector: read('collector', file('collector')),
    proxy: read('proxy', file('proxy')),
  };
});

for (const file of files) {
  t.test(`config/${file} is valid`, async (t) => {
    t.ok(readSettings(join(config, file)));
  });
}

for (const { of, broker, collector, proxy } of sets) {
  t.test(`config/${of}: the three roles find each other`, async (t) => {
    const portOf = (address: string): number => Number(address.split(':').at(-1));
    t.same(
      [proxy, collector].map(({ identity }) => portOf(identity.broker.address)),
      [broker.listen.port, broker.listen.port],
    );
    t.equal(portOf(proxy.collector.address), collector.listen.port);
    for (const { spiffeId } of [proxy.identity.broker, collector.identity.broker, proxy.collector]) {
      t.equal(parseSpiffeId(spiffeId)?.trustDomain, broker.trustDomain);
    }
  });

  t.test(`config/${of}: the collector is a workload that the broker knows by the name the proxy expects`, async (t) => {
    const [, , namespace, , serviceAccount] = parseSpiffeId(proxy.collector.spiffeId)?.path.split('/') ?? [];
    const match = { 'kubernetes.namespace': namespace, 'kubernetes.service_account': serviceAccount };
    t.ok(broker.workloads.some((workload) => JSON.stringify(workload.match) === JSON.stringify(match)));
    if (!of.includes('kubernetes')) t.not(collector.identity.tokenFile, proxy.identity.tokenFile);
  });
}

t.test('the examples for a laptop use the stand-ins of the demo, and state of their own', async (t) => {
  const [demo, laptop] = sets;
  if (!demo || !laptop) throw new Error('no sets');
  t.same(laptop.broker.attestors, demo.broker.attestors);
  t.same(laptop.proxy.upstream, demo.proxy.upstream);
  t.equal(laptop.proxy.identity.tokenFile, demo.proxy.identity.tokenFile);
  t.equal(laptop.collector.identity.tokenFile, demo.collector.identity.tokenFile);
  const written = ({ broker, collector, proxy }: typeof demo) => [
    broker.stateDir,
    broker.bundleFile,
    collector.store.file,
    proxy.interception.bundleFile,
  ];
  t.ok(written(demo).every((file) => file.startsWith('.outrider/demo/')));
  t.ok(written(laptop).every((file) => file.startsWith('.outrider/example/')));
  for (const { broker, collector, proxy } of [demo, laptop]) {
    t.equal(proxy.identity.brokerCaFile, broker.bundleFile);
    t.equal(collector.identity.brokerCaFile, broker.bundleFile);
  }
});

t.test('the demo lets its program use the echo target, but not /admin', async (t) => {
  const [demo] = sets;
  t.match(demo?.broker, {
    trustDomain: 'outrider.test',
    providers: [{ kind: 'jwt', audience: 'https://echo.outrider.test', lifetimeMs: 300_000 }],
    targets: [{ name: 'echo', hosts: ['echo.outrider.test'], ports: [443, 80], cleartext: 'allowed' }],
    policies: [
      {
        name: 'demo',
        rules: [
          { name: 'use-echo', effect: 'allow', workloads: ['demo-app'], targets: ['echo'] },
          { name: 'no-admin', effect: 'deny', paths: ['/admin/**'] },
        ],
      },
    ],
  });
  t.equal(demo?.proxy.onUnmatched, 'tunnel');
});

t.test('the example for a cluster shows every kind there is', async (t) => {
  const cluster = sets[2]?.broker;
  const kinds = (values: readonly { kind: string }[] = []): string[] => [...new Set(values.map(({ kind }) => kind))].toSorted();
  t.same(kinds(cluster?.attestors), ['projected_token', 'token_review']);
  t.same(kinds(cluster?.providers), ['jwt', 'oauth2_client_credentials', 'static_file', 'x509']);
  t.same(kinds(cluster?.targets.flatMap(({ credentials }) => credentials.map(({ placement }) => placement))), [
    'aws_sigv4',
    'basic',
    'bearer',
    'body_field',
    'client_certificate',
    'cookie',
    'dpop',
    'header',
    'hmac',
    'path_segment',
    'query',
  ]);
});

t.test('a default that an example names in a comment is the default', async (t) => {
  const commented = (file: string, key: string): string => {
    const text = readFileSync(join(config, 'examples', file), 'utf8');
    const found = new RegExp(`^ *#? *${key}: (\\S+)`, 'm').exec(text)?.[1];
    if (found === undefined) throw new Error(`${file} does not name ${key}`);
    return found;
  };
  const [, laptop] = sets;
  t.equal(commented('broker.yaml', 'algorithm'), laptop?.broker.issuer.algorithm);
  t.equal(commented('broker.yaml', 'keyLifetime'), `${(laptop?.broker.issuer.keyLifetimeMs ?? 0) / 3_600_000}h`);
  t.equal(commented('broker.yaml', 'keyOverlap'), `${(laptop?.broker.issuer.keyOverlapMs ?? 0) / 3_600_000}h`);
  t.equal(commented('broker.yaml', 'svidLifetime'), `${(laptop?.broker.svidLifetimeMs ?? 0) / 3_600_000}h`);
  t.equal(commented('broker.yaml', 'protocol'), laptop?.broker.targets[0]?.protocol);
  t.equal(commented('broker.yaml', 'paths'), laptop?.broker.targets[0]?.paths);
  t.equal(`TLSv${commented('broker.yaml', 'tlsVersionMin')}`, laptop?.broker.targets[0]?.tlsVersionMin);
  t.equal(commented('proxy.yaml', 'eventQueueMax'), String(laptop?.proxy.eventQueueMax));
  t.equal(commented('proxy.yaml', 'unmatchedPrivateAddresses'), laptop?.proxy.upstream.unmatchedPrivateAddresses);
  t.equal(commented('proxy.yaml', 'level'), laptop?.proxy.log.level);
});

t.test('what the example for a laptop leaves in comments is valid when it is not', async (t) => {
  const text = readFileSync(join(config, 'examples/proxy.yaml'), 'utf8');
  // A comment that is a key or an item; prose has neither at its start, but for the two words it explains.
  const whole = text.replaceAll(/^( *)# ((?: *- \{| *(?!required|best_effort)[A-Za-z]+:).*)$/gm, '$1$2');
  const proxy = parseSettings(whole, 'proxy.yaml') as ProxySettings;
  t.match(proxy, {
    transparent: { port: 15_008 },
    routes: [{ to: { scheme: 'https', host: 'echo.outrider.test', port: 443 } }],
    interception: { stateFile: String },
    upstream: { proxy: { scheme: 'http', host: 'proxy.corp.example', port: 3_128, noProxy: ['.internal.example', '10.0.0.0/8'] } },
  });
});

t.test('the example for a cluster has every way in, and its route leads to a target', async (t) => {
  const { proxy, broker } = sets[2] as (typeof sets)[number];
  t.equal(proxy.transparent?.port, 15_008, 'where "outrider steer install" leads unless told');
  t.ok(proxy.routes.length > 0);
  for (const { to } of proxy.routes) t.ok(broker.targets.some(({ hosts, ports }) => hosts.includes(to.host) && ports.includes(to.port)));
});

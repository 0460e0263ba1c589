import { isIPv6 } from 'node:net';
import fc from 'fast-check';
import t from 'tap';
import { type AddressClass, classifyAddress, dialProblem, isOwnListener, operatorDialProblem } from '../../src/net/guard.ts';

t.test('every special range is known, in every form', async (t) => {
  const rows: [string, AddressClass][] = [
    ['8.8.8.8', 'public'],
    ['2606:4700::1111', 'public'],
    ['127.0.0.1', 'loopback'],
    ['127.255.255.255', 'loopback'],
    ['::1', 'loopback'],
    ['0.0.0.0', 'reserved'],
    ['::', 'reserved'],
    ['169.254.169.254', 'metadata'],
    ['169.254.170.2', 'metadata'],
    ['169.254.170.23', 'metadata'],
    ['fd00:ec2::254', 'metadata'],
    ['fd00:ec2::23', 'metadata'],
    ['169.254.1.1', 'link_local'],
    ['fe80::1', 'link_local'],
    ['fe80::1%eth0', 'link_local'],
    ['10.0.0.1', 'private'],
    ['172.16.0.1', 'private'],
    ['172.32.0.1', 'public'],
    ['192.168.255.255', 'private'],
    ['100.64.0.1', 'private'],
    ['fd12::1', 'private'],
    ['fec0::1', 'private'],
    ['224.0.0.1', 'reserved'],
    ['255.255.255.255', 'reserved'],
    ['ff02::1', 'reserved'],
    ['198.18.0.1', 'reserved'],
    // An IPv4 address inside an IPv6 one: mapped, translated, NAT64, 6to4, Teredo, compatible.
    ['::ffff:169.254.169.254', 'metadata'],
    ['::ffff:a9fe:a9fe', 'metadata'],
    ['::ffff:0:127.0.0.1', 'loopback'],
    ['64:ff9b::7f00:1', 'loopback'],
    ['64:ff9b::169.254.169.254', 'metadata'],
    ['64:ff9b::8.8.8.8', 'public'],
    ['64:ff9b:1::1', 'reserved'],
    ['2002:a9fe:a9fe::', 'metadata'],
    ['2002:7f00:1::1', 'loopback'],
    ['2002:808:808::1', 'public'],
    ['2001:0:808:808:0:0:80ff:fffe', 'loopback'],
    ['::7f00:2', 'loopback'],
    ['::10.0.0.1', 'private'],
    // ISATAP, behind any prefix.
    ['2606:4700::5efe:a9fe:a9fe', 'metadata'],
    ['2606:4700::200:5efe:127.0.0.1', 'loopback'],
    ['2606:4700::5efe:8.8.8.8', 'public'],
    ['2606:4700::1:5efe:a9fe:a9fe', 'public'],
    ['fd00:42::42', 'metadata'],
    ['2001:2::1', 'reserved'],
    ['not an address', 'reserved'],
    ['0x7f000001', 'reserved'],
  ];
  for (const [address, wanted] of rows) t.equal(classifyAddress(address), wanted, address);
});

t.test('an IPv4 address is judged alike in each IPv6 form that carries it', async (t) => {
  const seed = Date.now();
  t.comment(`seed ${seed}`);
  fc.assert(
    fc.property(fc.ipV4(), (address) => {
      const [a, b, c, d] = address.split('.').map(Number) as [number, number, number, number];
      const hex = `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
      const forms = [`::ffff:${address}`, `::ffff:${hex}`, `64:ff9b::${address}`, `2002:${hex}::1`];
      return forms.every((form) => isIPv6(form) && classifyAddress(form) === classifyAddress(address));
    }),
    { seed, numRuns: 2_000 },
  );
});

t.test('only what something names may be dialled beyond public addresses', async (t) => {
  const strict = { privateAllowed: false, named: [] };
  t.equal(dialProblem('8.8.8.8', strict), undefined);
  t.type(dialProblem('10.0.0.1', strict), 'string');
  t.equal(dialProblem('10.0.0.1', { ...strict, privateAllowed: true }), undefined);
  for (const address of ['127.0.0.1', '::1', '169.254.169.254', '169.254.1.1', '0.0.0.0']) {
    t.type(dialProblem(address, { ...strict, privateAllowed: true }), 'string', address);
    t.equal(dialProblem(address, { ...strict, named: [address] }), undefined, `${address} named exactly`);
  }
});

t.test('what the operator names may be private or on this machine, and nothing worse', async (t) => {
  for (const address of ['8.8.8.8', '10.0.0.1', 'fd12::1', '127.0.0.1', '::1']) t.equal(operatorDialProblem(address), undefined, address);
  for (const address of ['169.254.169.254', '169.254.1.1', 'fd00:ec2::254', '0.0.0.0', '::ffff:a9fe:a9fe', '224.0.0.1'])
    t.type(operatorDialProblem(address), 'string', address);
});

t.test('a listener of ours is known by every address that leads to it, and another port or machine is not it', async (t) => {
  const loopback = [{ address: '127.0.0.1', port: 15_001 }, undefined];
  const everywhere = [{ address: '0.0.0.0', port: 9_090 }];
  const local = (): readonly string[] => ['127.0.0.1', '10.1.2.3', 'fd00::7'];
  const isOwn = (address: string, port: number): boolean => isOwnListener({ address, port }, [...loopback, ...everywhere], local);
  for (const address of ['127.0.0.1', '127.9.9.9', '::1', '::ffff:7f00:1', '0.0.0.0', '::', '::ffff:0:0'])
    t.ok(isOwn(address, 15_001), `${address}, a listener on loopback`);
  for (const address of ['127.0.0.1', '10.1.2.3', '::ffff:10.1.2.3', 'fd00::7', '0.0.0.0'])
    t.ok(isOwn(address, 9_090), `${address}, one on all addresses`);
  t.notOk(isOwn('10.1.2.3', 15_001), 'loopback alone listens there');
  t.notOk(isOwn('10.1.2.4', 9_090), 'another machine');
  t.notOk(isOwn('127.0.0.1', 9_091), 'another port');
});

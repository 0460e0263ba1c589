import t from 'tap';
import { limits } from '../../src/core/limits.ts';
import { createSystemLookup } from '../../src/net/dial.ts';

/** Names that the test answers, in the order it likes. */
const scripted = () => {
  const asked: { host: string; answer: (...addresses: string[]) => void; fail: () => void }[] = [];
  const ask = (host: string): Promise<readonly string[]> =>
    new Promise((resolve, reject) => {
      asked.push({ host, answer: (...addresses) => resolve(addresses), fail: () => reject(new Error('ENOTFOUND')) });
    });
  return { asked, ask, hosts: () => asked.map(({ host }) => host) };
};
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

t.test('one name is asked for once at a time, and anew for the next connection', async (t) => {
  const { asked, ask } = scripted();
  const lookup = createSystemLookup({ ask });
  const both = Promise.all([lookup('a.test', true), lookup('a.test', false)]);
  t.equal(asked.length, 1);
  asked[0]?.answer('192.0.2.1');
  t.strictSame(await both, [['192.0.2.1'], ['192.0.2.1']]);
  const next = lookup('a.test', true);
  t.equal(asked.length, 2, 'nothing is kept');
  asked[1]?.fail();
  await t.rejects(next, { code: 'target_unresolved' });
});

t.test('names that no target names leave room for those that one does, however silent the name server is', async (t) => {
  const { asked, ask, hosts } = scripted();
  const lookup = createSystemLookup({ ask });
  const made = Array.from({ length: 50 }, (_, i) => lookup(`${i}.attacker.test`, false).catch(() => []));
  t.equal(asked.length, limits.dnsLookupsUnmatchedMax, 'all that a program makes up');
  const target = lookup('api.example.com', true);
  t.equal(asked.length, limits.dnsLookupsUnmatchedMax + 1, 'a target is asked for at once');
  asked.at(-1)?.answer('192.0.2.7');
  t.strictSame(await target, ['192.0.2.7']);
  for (let i = 0; i < asked.length; i += 1) {
    asked[i]?.answer('192.0.2.1');
    await settled();
  }
  await Promise.all(made);
  t.strictSame(hosts().slice(0, 2), ['0.attacker.test', '1.attacker.test']);
  t.equal(asked.length, 51, 'the others have their turn, in order');
});

t.test('a name server that says nothing is given up in time, waiting included, and the place is free when it has spoken', async (t) => {
  const { asked, ask } = scripted();
  const lookup = createSystemLookup({ ask, timeoutMs: 20 });
  const startedAt = performance.now();
  const all = await Promise.allSettled(Array.from({ length: 10 }, (_, i) => lookup(`${i}.test`, true)));
  t.ok(all.every((one) => one.status === 'rejected' && (one.reason as { code: string }).code === 'target_unresolved'));
  t.ok(performance.now() - startedAt < 2_000);
  t.equal(asked.length, limits.dnsLookupsMax, 'what waited when its time was over is not asked for');
  await t.rejects(lookup('late.test', true), { code: 'target_unresolved' });
  for (const { fail } of asked) fail();
  await settled();
  const next = lookup('next.test', true);
  asked.at(-1)?.answer('192.0.2.1');
  t.strictSame(await next, ['192.0.2.1']);
});

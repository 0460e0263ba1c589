/** News for many: told in turns, so that whoever asks for a grant meanwhile is answered, and nobody is told what is no longer so. */
import { setImmediate as turn } from 'node:timers/promises';
import t from 'tap';
import type { View } from '../../src/broker/registry.ts';
import { createWatchers } from '../../src/broker/service/watchers.ts';
import { limits } from '../../src/core/limits.ts';
import { createLog } from '../../src/ops/log.ts';

const silent = createLog({ role: 'test', level: 'silent' });
const viewOf = (configurationVersion: string): View => ({
  configurationVersion,
  snapshot: { configurationVersion, targets: [] },
  rulesFor: () => [],
});

const rig = (count: number) => {
  let view = viewOf('1');
  const watchers = createWatchers(silent);
  const all = Array.from({ length: count }, () => {
    const heard: string[] = [];
    const ending = new AbortController();
    watchers.add(
      () => view,
      ({ configurationVersion }) => void heard.push(configurationVersion),
      ending.signal,
    );
    return { heard, end: () => ending.abort() };
  });
  return {
    watchers,
    all,
    refreshTo: (version: string) => {
      view = viewOf(version);
      watchers.refresh();
    },
    heardOf: (version: string): number => all.filter(({ heard }) => heard.includes(version)).length,
  };
};

t.test('a change is told to so many at once and no more, and to all in the end', async (t) => {
  const count = 3 * limits.watchersToldAtOnce + 1;
  const { all, refreshTo, heardOf } = rig(count);
  refreshTo('2');
  const told = [heardOf('2')];
  while (told.at(-1) !== count) {
    await turn();
    told.push(heardOf('2'));
  }
  t.equal(told[0], limits.watchersToldAtOnce, 'the first of them at once');
  t.ok(
    told.every((now, i) => i === 0 || now - (told[i - 1] as number) <= limits.watchersToldAtOnce),
    told.join(' '),
  );
  t.strictSame(new Set(all.map(({ heard }) => heard.join(' '))), new Set(['1 2']), 'each once');
});

t.test('a change that comes before all have heard of the one before goes to all, and those who have left hear nothing', async (t) => {
  const count = 3 * limits.watchersToldAtOnce;
  const { watchers, all, refreshTo, heardOf } = rig(count);
  refreshTo('2');
  const last = all.at(-1);
  last?.end();
  refreshTo('3');
  while (heardOf('3') < count - 1) await turn();
  await turn();
  t.strictSame(last?.heard, ['1']);
  t.equal(watchers.count(), count - 1);
  t.equal(heardOf('2'), limits.watchersToldAtOnce, 'the rest was spared what was no longer so');
  t.ok(all.every(({ heard }) => heard.length === new Set(heard).size));
});

t.test('a watcher whose first snapshot ended its stream is not one', async (t) => {
  const watchers = createWatchers(silent);
  const ending = new AbortController();
  watchers.add(
    () => viewOf('1'),
    () => ending.abort(),
    ending.signal,
  );
  t.equal(watchers.count(), 0);
});

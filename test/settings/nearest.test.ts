import t from 'tap';
import { editDistance, either, nearest } from '../../src/settings/nearest.ts';

const keys = ['kind', 'name', 'lifetime', 'audience', 'caFile', 'tokenUrl', 'log'];

t.test('a slip of the finger finds its key', async (t) => {
  const slips = {
    lifetme: 'lifetime',
    lifteime: 'lifetime',
    nmae: 'name',
    KIND: 'kind',
    ca_file: 'caFile',
    'token-url': 'tokenUrl',
    audiences: 'audience',
    loglevel: 'log',
  };
  for (const [written, meant] of Object.entries(slips)) t.equal(nearest(written, keys), meant, written);
});

t.test('what is like nothing finds nothing', async (t) => {
  for (const written of ['', 'x', 'colour', 'zzzzzzzz', 'l'.repeat(10_000)])
    t.equal(nearest(written, keys), undefined, written.slice(0, 20));
});

t.test('a swap of neighbours costs one', async (t) => {
  t.equal(editDistance('ab', 'ba'), 1);
  t.equal(editDistance('', 'abc'), 3);
  t.equal(editDistance('kitten', 'sitting'), 3);
  t.equal(editDistance('same', 'same'), 0);
});

t.test('names are listed as people write them', async (t) => {
  t.same([[], ['a'], ['a', 'b'], ['a', 'b', 'c']].map(either), ['', 'a', 'a or b', 'a, b or c']);
});

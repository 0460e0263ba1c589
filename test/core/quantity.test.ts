import t from 'tap';
import { bytesOf, millicoresOf } from '../../src/core/quantity.ts';

t.test('CPU is read in millicores', async (t) => {
  const cases: readonly [string, number | undefined][] = [
    ['250m', 250],
    ['2', 2_000],
    ['0.5', 500],
    ['0.29', 290],
    ['1.5', 1_500],
    ['0.0001', undefined],
    ['0', undefined],
    ['-1', undefined],
    ['1e3', undefined],
    ['1 ', undefined],
    ['1Gi', undefined],
    ['.5', undefined],
    ['', undefined],
    ['9999999999', undefined],
  ];
  for (const [text, amount] of cases) t.equal(millicoresOf(text), amount, JSON.stringify(text));
});

t.test('memory is read in bytes', async (t) => {
  const cases: readonly [string, number | undefined][] = [
    ['384Mi', 384 * 2 ** 20],
    ['1Gi', 2 ** 30],
    ['1.5Gi', 1.5 * 2 ** 30],
    ['1024Mi', 2 ** 30],
    ['500M', 500e6],
    ['128974848', 128_974_848],
    ['1k', 1_000],
    ['0.5', undefined],
    ['100m', undefined],
    ['1Mb', undefined],
    ['1mi', undefined],
    ['0Mi', undefined],
    ['99999Ti', undefined],
  ];
  for (const [text, amount] of cases) t.equal(bytesOf(text), amount, JSON.stringify(text));
});

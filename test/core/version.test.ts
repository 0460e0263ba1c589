import t from 'tap';
import { versionOf } from '../../src/core/version.ts';

await t.test('equal content has an equal version, however it was written', (t) => {
  const version = versionOf({ a: 1, b: { c: [1, 2], d: 'x' } });
  t.match(version, /^[0-9a-f]{16}$/);
  t.equal(versionOf({ b: { d: 'x', c: [1, 2] }, a: 1 }), version, 'order of keys');
  t.equal(versionOf({ a: 1, b: { c: [1, 2], d: 'x', e: undefined } }), version, 'members that are undefined');
  t.equal(version, '402a3ca52530f07e', 'SHA-256 of the canonical JSON');
  t.end();
});

await t.test('different content has a different version', (t) => {
  const contents = [
    {},
    [],
    { a: [1, 2] },
    { a: [2, 1] },
    { a: ['1', '2'] },
    { a: '1,2' },
    { a: null },
    { a: [null] },
    { a: { b: 1 } },
    { 'a":{"b': 1 },
    { a: [[1], 2] },
  ];
  t.equal(new Set(contents.map(versionOf)).size, contents.length);
  t.end();
});

import { randomBytes } from 'node:crypto';
import t from 'tap';
import { createGrantId, isGrantIdOf } from '../../src/broker/service/grant-id.ts';

const subject = { workload: 'spiffe://outrider.test/ns/demo/sa/demo-app', target: 'echo' };
const key = randomBytes(32);
const nowMs = 1_795_000_000_000;

t.test('an id is a UUIDv7 of its moment, and no two are the same', async (t) => {
  const ids = Array.from({ length: 10_000 }, () => createGrantId(subject, nowMs, key));
  t.equal(new Set(ids).size, ids.length);
  for (const id of ids.slice(0, 100)) {
    t.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    t.equal(Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16), nowMs);
  }
});

t.test('it is known again by who has the key, for its workload and its target, and not with one digit changed', async (t) => {
  const id = createGrantId(subject, nowMs, key);
  t.ok(isGrantIdOf(id, subject, [key]));
  t.ok(isGrantIdOf(id, subject, [randomBytes(32), key]), 'also where that key is the one of before');
  t.notOk(isGrantIdOf(id, subject, [randomBytes(32)]));
  t.notOk(isGrantIdOf(id, { ...subject, target: 'other' }, [key]));
  t.notOk(isGrantIdOf(id, { ...subject, workload: `${subject.workload}-2` }, [key]));
  t.notOk(isGrantIdOf(createGrantId({ workload: 'a', target: 'bc' }, nowMs, key), { workload: 'ab', target: 'c' }, [key]));
  for (let i = 0; i < id.length; i += 1) {
    const digit = id[i];
    const other = digit === '0' ? '1' : '0';
    if (digit !== '-') t.notOk(isGrantIdOf(`${id.slice(0, i)}${other}${id.slice(i + 1)}`, subject, [key]), `digit ${i}`);
  }
  for (const odd of ['', id.toUpperCase(), `${id} `, `{${id}}`, id.replaceAll('-', ''), 'x'.repeat(36), 'é'.repeat(36)]) {
    t.notOk(isGrantIdOf(odd, subject, [key]), odd);
  }
});

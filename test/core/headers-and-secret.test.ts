import { format, inspect } from 'node:util';
import t from 'tap';
import { badNomination, fromRaw, toRaw, withoutHopByHop, writableValue } from '../../src/core/headers.ts';
import { Secret } from '../../src/core/secret.ts';
import { parseSpiffeId, spiffeId } from '../../src/core/spiffe-id.ts';

t.test('order, case and duplicates of fields survive', async (t) => {
  const raw = ['X-B', '1', 'x-a', '2', 'X-b', '3'];
  t.same(toRaw(withoutHopByHop(fromRaw(raw))), raw);
});

t.test('hop-by-hop fields and those that Connection names do not travel', async (t) => {
  const list = fromRaw([
    'Connection',
    'close, X-Trace',
    'x-trace',
    '1',
    'Keep-Alive',
    '5',
    'Proxy-Authorization',
    'Basic x',
    'TE',
    'trailers',
    'Upgrade',
    'h2c',
    'HTTP2-Settings',
    'AAMA',
    'Accept',
    '*/*',
  ]);
  t.same(toRaw(withoutHopByHop(list)), ['Accept', '*/*']);
});

t.test('Connection must not name what carries framing, routing or credentials', async (t) => {
  for (const name of ['authorization', 'Content-Length', 'HOST', 'cookie']) {
    t.equal(badNomination(fromRaw(['Connection', `close, ${name}`])), name.toLowerCase());
  }
  t.equal(badNomination(fromRaw(['Connection', 'keep-alive, x-trace'])), undefined);
});

t.test('a field value may hold visible ASCII and inner blanks only', async (t) => {
  for (let byte = 0; byte < 256; byte += 1) {
    const char = String.fromCharCode(byte);
    const wanted = byte >= 0x20 && byte <= 0x7e;
    t.equal(writableValue(`a${char}b`), wanted || byte === 0x09, `byte ${byte}`);
  }
  t.notOk(writableValue(' a'));
  t.notOk(writableValue('a '));
});

t.test('a secret prints as [secret] everywhere', async (t) => {
  const canary = `canary-${Math.random()}`;
  const secret = new Secret(canary);
  const printed = [
    ``.concat(secret as unknown as string),
    String(secret),
    JSON.stringify({ secret }),
    inspect(secret, { showHidden: true, depth: 9 }),
    format('%s %o %j %O', secret, secret, secret, { secret }),
    [secret].join(),
    Object.values(secret).join(),
    structuredCloneOf(secret),
  ];
  for (const text of printed) t.notMatch(text, canary);
  t.equal(secret.reveal(), canary);
  t.equal(JSON.stringify({ secret }), '{"secret":"[secret]"}');
});

const structuredCloneOf = (value: unknown): string => JSON.stringify(structuredClone(value));

t.test('a SPIFFE ID has no empty, dot or odd segment', async (t) => {
  t.equal(spiffeId('outrider.test', 'ns', 'demo', 'sa', 'app'), 'spiffe://outrider.test/ns/demo/sa/app');
  for (const segment of ['', '.', '..', 'a/b/', 'ä', 'a b', 'a%20b']) t.throws(() => spiffeId('outrider.test', 'ns', segment), segment);
  for (const bad of [
    'spiffe://',
    'spiffe://A.b/c',
    'http://a/b',
    'spiffe://a/b/',
    'spiffe://a//b',
    'spiffe://a:1/b',
    'spiffe://u@a/b',
    'spiffe://a/b?c',
    'spiffe://a/b#c',
  ]) {
    t.equal(parseSpiffeId(bad), undefined, bad);
  }
});

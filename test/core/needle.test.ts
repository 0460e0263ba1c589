import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import t from 'tap';
import { compileNeedle, mayHold, type Needle, Search, withoutHits } from '../../src/core/needle.ts';

const secret = 'sk-Live_0a1B2c3D+4e5F/6g7H=8i9J';
const needleFor = (...texts: string[]): Needle => compileNeedle(texts) as Needle;

const every = (text: string, spell: (byte: number) => string): string => [...Buffer.from(text)].map(spell).join('');
const hex = (byte: number): string => byte.toString(16).padStart(2, '0');
const escapeHtml: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

/** Every way in which a program may write a text. */
const spellings: Readonly<Record<string, (text: string) => string>> = {
  exact: (text) => text,
  'upper case': (text) => text.toUpperCase(),
  'lower case': (text) => text.toLowerCase(),
  'percent, what must be': (text) => encodeURIComponent(text),
  'percent, all, upper': (text) => every(text, (byte) => `%${hex(byte).toUpperCase()}`),
  'percent, all, lower': (text) => every(text, (byte) => `%${hex(byte)}`),
  'percent, every third': (text) => every(text, (byte) => (byte % 3 === 0 ? `%${hex(byte)}` : String.fromCharCode(byte))),
  JSON: (text) => JSON.stringify(text).slice(1, -1),
  'JSON, slashes': (text) => JSON.stringify(text).slice(1, -1).replaceAll('/', '\\/'),
  'JSON, all \\u': (text) => every(text, (byte) => `\\u00${hex(byte)}`),
  'JSON, some \\u, upper': (text) =>
    every(text, (byte) => (byte % 2 === 0 ? `\\u00${hex(byte).toUpperCase()}` : String.fromCharCode(byte))),
  'JavaScript \\x': (text) => every(text, (byte) => `\\x${hex(byte)}`),
  'HTML, named': (text) => text.replace(/[&<>"']/g, (one) => escapeHtml[one] as string),
  'HTML, decimal': (text) => every(text, (byte) => `&#${byte};`),
  'HTML, hex': (text) =>
    every(text, (byte) => (/\w/.test(String.fromCharCode(byte)) ? String.fromCharCode(byte) : `&#x${hex(byte).toUpperCase()};`)),
  'hex, lower': (text) => Buffer.from(text).toString('hex'),
  'hex, upper': (text) => Buffer.from(text).toString('hex').toUpperCase(),
  base64: (text) => Buffer.from(text).toString('base64'),
  'base64, second alignment': (text) => Buffer.from(`u${text}x`).toString('base64'),
  'base64, third alignment': (text) => Buffer.from(`u:${text}`).toString('base64'),
  'base64, of a longer text': (text) => Buffer.from(`{"Authorization":"Bearer ${text}"}`).toString('base64'),
  base64url: (text) => Buffer.from(text).toString('base64url'),
  'base64url, second alignment': (text) => Buffer.from(`?${text}`).toString('base64url'),
  'base64, percent': (text) => encodeURIComponent(Buffer.from(text).toString('base64')),
  'base64, JSON slashes': (text) => Buffer.from(text).toString('base64').replaceAll('/', '\\/'),
};

interface Found {
  readonly text: string;
  readonly hits: number;
}

const searched = (needle: Needle, chunks: readonly Buffer[]): Found => {
  const search = new Search(needle);
  const settled = chunks.map((chunk) => search.push(chunk));
  settled.push(search.end());
  return { text: Buffer.concat(settled).toString('latin1'), hits: search.hits };
};

const atOnce = (needle: Needle, text: string): Found => searched(needle, [Buffer.from(text, 'latin1')]);

/** What is left of the text is none of it but what base64 mixes with its neighbours. */
const isGone = (found: Found, spelled: string): boolean =>
  found.hits === 1 && !found.text.includes(spelled) && found.text.includes('********');

for (const [name, spell] of Object.entries(spellings)) {
  t.test(`a text written as ${name} is found, wherever the stream is cut`, async (t) => {
    const needle = needleFor(secret);
    const spelled = spell(secret);
    const whole = `{"before":"x","token":"${spelled}","after":"y"}`;
    const bytes = Buffer.from(whole, 'latin1');
    const once = atOnce(needle, whole);
    t.ok(isGone(once, spelled), once.text);
    t.equal(once.text.length, whole.length, 'same length');
    t.ok(once.text.startsWith('{"before":"x","token":"') && once.text.endsWith('","after":"y"}'), 'and nothing else is touched');
    for (let cut = 1; cut < bytes.length; cut += 1)
      if (searched(needle, [bytes.subarray(0, cut), bytes.subarray(cut)]).text !== once.text) t.fail(`cut at ${cut}`);
    for (let size = 1; size <= 5; size += 1) {
      const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.subarray(i * size, (i + 1) * size));
      const found = searched(needle, chunks);
      if (found.text !== once.text || found.hits !== 1) t.fail(`chunks of ${size}`);
    }
    t.ok(mayHold(needle, whole));
    t.same(withoutHits(needle, whole), once);
  });
}

t.test('any text of visible characters is found in any spelling, at any place, in any chunks', async (t) => {
  const seed = Date.now();
  t.comment(`seed ${seed}`);
  const visible = fc.string({
    unit: fc.integer({ min: 0x21, max: 0x7e }).map((code) => String.fromCharCode(code)),
    minLength: 8,
    maxLength: 60,
  });
  fc.assert(
    fc.property(
      visible,
      fc.constantFrom(...Object.entries(spellings)),
      fc.string({ maxLength: 40 }),
      fc.string({ maxLength: 40 }),
      fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 12 }),
      (text, [name, spell], before, after, cuts) => {
        const spelled = spell(text);
        const bytes = Buffer.from(`${before}${spelled}${after}`, 'latin1');
        const chunks: Buffer[] = [];
        let from = 0;
        for (const length of cuts) {
          chunks.push(bytes.subarray(from, from + length));
          from += length;
        }
        chunks.push(bytes.subarray(from));
        const found = searched(needleFor(text), chunks);
        if (found.hits === 0) throw new Error(`${name}: ${spelled} not found`);
        return found.text.length === bytes.length;
      },
    ),
    { seed, numRuns: 3_000 },
  );
});

t.test('what is not there is not found, and comes out as it went in', async (t) => {
  const seed = Date.now();
  t.comment(`seed ${seed}`);
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 60 }), { maxLength: 10 }), (chunks) => {
      const needle = needleFor(secret, 'another-credential');
      const found = searched(
        needle,
        chunks.map((chunk) => Buffer.from(chunk)),
      );
      return found.hits === 0 && found.text === Buffer.concat(chunks).toString('latin1');
    }),
    { seed, numRuns: 2_000 },
  );
  const almost = `${secret.slice(0, -1)} ${secret.slice(1)} %${hex(0x73)}k-Live_0a1B2c3D+4e5F/6g7H=8i9`;
  t.same(atOnce(needleFor(secret), almost), { text: almost, hits: 0 });
});

t.test('one chunk that holds nothing and begins nothing comes back itself, not a copy', async (t) => {
  const search = new Search(needleFor(secret));
  const chunk = Buffer.from('data: {"delta":"hello"}\n\n');
  t.equal(search.push(chunk).buffer, chunk.buffer);
  t.equal(search.held, 0, 'an event that is whole waits for nothing');
  t.equal(search.end().length, 0);
});

t.test('only what may begin a hit is held, and goes on as soon as it cannot', async (t) => {
  const search = new Search(needleFor(secret));
  t.equal(Buffer.from(search.push(Buffer.from(`token=${secret.slice(0, 9)}`))).toString(), 'token=');
  t.equal(search.held, 9);
  t.equal(Buffer.from(search.push(Buffer.from('!\n'))).toString(), `${secret.slice(0, 9)}!\n`);
  t.equal(search.held, 0);
  search.push(Buffer.from('50%'));
  t.equal(search.held, 1, 'an escape that has begun is waited for');
  search.push(Buffer.from(' of'));
  t.equal(search.held, 0);
  const long = randomBytes(3_000).toString('base64url');
  const other = new Search(needleFor(long));
  for (const byte of Buffer.from(long.slice(0, -1))) other.push(Buffer.from([byte]));
  t.equal(other.held, long.length - 1);
  t.equal(other.push(Buffer.from('?')).length, long.length);
  t.equal(other.hits, 0);
});

t.test('a hit that begins where another reading of the bytes before it would swallow it is found', async (t) => {
  for (const before of ['%', '%a', '\\', '\\\\', '\\u00', '\\u', '\\x', '&#', '&', secret.slice(0, 8)]) {
    const text = 'deadbeef00ab-1234-cafe';
    const found = atOnce(needleFor(text, secret), `${before}${text} `);
    t.equal(found.hits, 1, before);
    t.notOk(found.text.includes('beef'), before);
  }
});

t.test('texts that contain escapes, or one another, or repeat themselves are found whole', async (t) => {
  for (const text of [
    '100%25abcdef',
    'back\\\\slash\\n99',
    'amp&amp;ersand&#39;',
    '%41%42%43%44%45%46',
    'aaaaaaaaaaaa',
    'abababababababab',
  ]) {
    for (const name of ['exact', 'percent, all, upper', 'JSON', 'HTML, named', 'base64', 'hex, lower']) {
      const spelled = (spellings[name] as (text: string) => string)(text);
      const found = atOnce(needleFor(text), `<${spelled}>`);
      t.ok(found.hits >= 1 && !found.text.includes(spelled), `${name}: ${found.text}`);
    }
  }
  const nested = needleFor('inner-secret', 'outer-inner-secret-outer');
  t.same(atOnce(nested, '<outer-inner-secret-outer>'), { text: `<${'*'.repeat(24)}>`, hits: 1 });
  t.same(atOnce(nested, '<outer-inner-secret-oute>'), { text: `<outer-${'*'.repeat(12)}-oute>`, hits: 1 });
  t.equal(atOnce(needleFor(secret), `${secret}${secret} ${secret}`).hits, 3, 'each is counted');
});

t.test('short texts are looked for as they stand, and still shorter ones not at all', async (t) => {
  t.equal(compileNeedle(['', 'a', 'abc']), undefined);
  const needle = needleFor('hunter2');
  t.equal(atOnce(needle, 'x hunter2 %68unter2').hits, 2);
  t.equal(atOnce(needle, Buffer.from('hunter2').toString('hex')).hits, 0);
});

t.test('work is linear in what is searched, whoever sends it and however it is cut', async (t) => {
  const costOf = (needle: Needle, chunks: Iterable<Buffer>): number => {
    const search = new Search(needle);
    const before = process.cpuUsage();
    for (const chunk of chunks) search.push(chunk);
    search.end();
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1000;
  };
  const repeated = (text: string, length: number): Buffer => Buffer.from(text.repeat(Math.ceil(length / text.length)).slice(0, length));
  const bytewise = function* (bytes: Buffer): Iterable<Buffer> {
    for (let i = 0; i < bytes.length; i += 1) yield bytes.subarray(i, i + 1);
  };
  const long = randomBytes(12_000).toString('base64url');
  const hostile: Record<string, (length: number) => number> = {
    'the beginning, again and again': (length) => costOf(needleFor(long), [repeated(long.slice(0, 30), length)]),
    'all but the last character, again and again': (length) => costOf(needleFor(long), [repeated(long.slice(0, -1), length)]),
    'a text of one letter': (length) => costOf(needleFor('a'.repeat(16_000)), [repeated(`${'a'.repeat(15_999)}b`, length)]),
    'escapes of the beginning': (length) =>
      costOf(needleFor(long), [
        repeated(
          every(long.slice(0, 26), (byte) => `\\u00${hex(byte)}`),
          length,
        ),
      ]),
    'half escapes': (length) => costOf(needleFor(long), [repeated('%\\u00\\\\u0%4&#&', length)]),
    'the beginning, byte by byte': (length) => costOf(needleFor(long), bytewise(repeated(long.slice(0, -1), length))),
  };
  const [little, much] = [128 * 1024, 1024 * 1024];
  for (const [name, run] of Object.entries(hostile)) {
    const [few, many] = [run(little), run(much)];
    t.comment(`${name}: ${few.toFixed(0)} ms of CPU for ${little} bytes, ${many.toFixed(0)} ms for ${much}`);
    // Eight times as much: linear work costs eight times, quadratic sixty-four. Between the two, as clocks are coarse.
    t.ok(many < 24 * few + 200, name);
  }
});

t.test('what was given back before it was known is not given twice, and the rest of a hit is written over', async (t) => {
  const text = ['sk', 'live', '0123456789abcdef'].join('_');
  for (let cut = 1; cut < text.length; cut += 1) {
    const search = new Search(needleFor(text));
    const parts = [
      search.push(Buffer.from(`before ${text.slice(0, cut)}`)),
      search.give(),
      search.push(Buffer.from(`${text.slice(cut)} after`)),
    ];
    parts.push(search.give(), search.end());
    const seen = Buffer.concat(parts).toString();
    t.equal(seen, `before ${text.slice(0, cut)}${'*'.repeat(text.length - cut)} after`, `cut at ${cut}`);
    t.equal(search.hits, 1);
  }
  const search = new Search(needleFor(text));
  const innocent = ['s', 'k', '_l', 'ak', 'e sk_'].map((part) => Buffer.concat([search.push(Buffer.from(part)), search.give()]).toString());
  t.strictSame(innocent, ['s', 'k', '_l', 'ak', 'e sk_'], 'nothing waits, nothing is lost');
  t.equal(search.end().length, 0);
  t.equal(search.hits, 0);
});

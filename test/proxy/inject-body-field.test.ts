/** A credential in a body: one value is replaced, every other byte stays. */
import * as fc from 'fast-check';
import t from 'tap';
import type { HeaderList } from '../../src/core/headers.ts';
import { limits } from '../../src/core/limits.ts';
import { locate, stringMember, withMember } from '../../src/proxy/inject/json-member.ts';
import { needs, run } from '../pki/external-program.ts';
import { type Asked, credential, injected, refusal, textOf } from '../support/injection.ts';

const json = (field: string, value = 'the"credential') => credential({ kind: 'body_field', format: 'json', field }, value);
const form = (field: string, value = 'a b&c') => credential({ kind: 'body_field', format: 'form', field }, value);
const asJson = (body: string | Uint8Array, headers: HeaderList = []): Asked => ({
  method: 'POST',
  body,
  headers: [['Content-Type', 'application/json'], ...headers],
});
const asForm = (body: string): Asked => ({ method: 'POST', body, headers: [['Content-Type', 'application/x-www-form-urlencoded']] });
const sent = (asked: Asked, of = json('/key')): Promise<string> => textOf(injected(asked, [of]).body);

const seed = Date.now() & 0x7fffffff;
t.comment(`seed ${seed}`);

t.test('the member is replaced whatever its value, and the rest of the document keeps its bytes', async (t) => {
  const odd = '{ "n" : 1.0, "big":12345678901234567890,"e":1E400 ,\r\n "u":"\\u00e4\\/", "key" : KEY ,"ä":[ 1 , { } ]}\n';
  for (const value of ['"x"', 'null', '17', '{"a":[1,"}"]}', '[ "]" ]', '"\\""'])
    t.equal(await sent(asJson(odd.replace('KEY', value))), odd.replace('KEY', '"the\\"credential"'), value);
  t.equal(await sent(asJson('{"a":[{"b":1},{"b":2}]}'), json('/a/1/b')), '{"a":[{"b":1},{"b":"the\\"credential"}]}');
  t.equal(await sent(asJson('{"a/b":{"m~n":1}}'), json('/a~1b/m~0n')), '{"a/b":{"m~n":"the\\"credential"}}');
  t.equal(await sent(asJson('{"":{"":1}}'), json('//')), '{"":{"":"the\\"credential"}}', 'an empty name is a name');
  t.equal(await sent(asJson('{"k\\u0065y":1}')), '{"k\\u0065y":"the\\"credential"}', 'the name in another spelling of the same text');
  t.equal(await sent(asJson('{"0":{"1":2}}'), json('/0/1')), '{"0":{"1":"the\\"credential"}}', 'numbers are names in objects');
});

t.test('a member that its object has not is added', async (t) => {
  t.equal(await sent(asJson('{}')), '{"key":"the\\"credential"}');
  t.equal(await sent(asJson(' { "a" : 1 } ')), ' {"key":"the\\"credential", "a" : 1 } ');
  t.equal(await sent(asJson('{"a":{}}'), json('/a/key')), '{"a":{"key":"the\\"credential"}}');
});

t.test('a document that has no such place, or could be read in two ways, is refused', async (t) => {
  const bodies: Record<string, [string | Uint8Array, string?]> = {
    'no object for it': ['{"a":1}', '/a/key'],
    'no object on the way': ['{}', '/a/key'],
    'an array without the element': ['[1]', '/1'],
    'an element by another spelling of its number': ['[1,2]', '/01'],
    'the end of an array': ['[1]', '/-'],
    'no object at all': ['"key"'],
    'the name twice': ['{"key":1,"key":2}'],
    'the name twice, once escaped': ['{"key":1,"k\\u0065y":2}'],
    'the name in capitals': ['{"KEY":1}'],
    'the name in capitals besides': ['{"key":1,"Key":2}'],
    'the name with the Kelvin sign': ['{"\u212aey":1}'],
    'the name twice on the way': ['{"a":{},"a":{"key":1}}', '/a/key'],
    nothing: [''],
    'two documents': ['{}{}'],
    'a comma too many': ['{"a":1,}'],
    'a comment': ['{/**/"key":1}'],
    'single quotes': ["{'key':1}"],
    'a number that is none': ['{"a":01,"key":1}'],
    NaN: ['{"a":NaN,"key":1}'],
    'a line break in a string': ['{"a":"\n","key":1}'],
    'an escape that is none': ['{"a":"\\x41","key":1}'],
    'a cut document': ['{"key":"x"'],
    'a byte order mark': ['\ufeff{"key":1}'],
    'UTF-16': [Buffer.from('{"key":1}', 'utf16le')],
    'bytes that are not UTF-8': [Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])],
    'too many levels': [`${'['.repeat(limits.heldBodyDepthMax + 1)}${']'.repeat(limits.heldBodyDepthMax + 1)}`],
    'a number without end': [`{"a":1${'0'.repeat(limits.heldBodyNumberCharsMax)}}`],
  };
  for (const [name, [body, field = '/key']] of Object.entries(bodies))
    t.equal(
      refusal(() => injected(asJson(body), [json(field)])),
      'credential_place_missing',
      name,
    );
  t.equal(
    refusal(() => injected({ method: 'POST', headers: [['content-type', 'application/json']] }, [json('/key')])),
    'credential_place_missing',
    'no body',
  );
});

t.test('the content type must say what the body is', async (t) => {
  const asked = (headers: HeaderList, body = '{}'): Asked => ({ method: 'POST', body, headers });
  const types = [
    'application/json',
    'APPLICATION/JSON; charset=UTF-8',
    'application/json;charset="utf-8"',
    'application/vnd.api+json',
    'application/json; odata=x',
  ];
  for (const type of types) t.equal(await sent(asked([['content-type', type]])), '{"key":"the\\"credential"}', type);
  const refused: readonly HeaderList[] = [
    [],
    [['content-type', 'text/plain']],
    [['content-type', 'application/x-www-form-urlencoded']],
    [['content-type', 'application/jsonp']],
    [['content-type', 'application/json, text/plain']],
    [['content-type', 'application/json; charset=utf-16']],
    [['content-type', 'application/json; charset=utf-8; charset=latin1']],
    [
      ['content-type', 'application/json'],
      ['Content-Type', 'application/json'],
    ],
    [
      ['content-type', 'application/json'],
      ['content_type', 'text/plain'],
    ],
    [
      ['content-type', 'application/json'],
      ['content-encoding', 'gzip'],
    ],
    [
      ['content-type', 'application/json'],
      ['content_encoding', 'br'],
    ],
  ];
  for (const headers of refused)
    t.equal(
      refusal(() => injected(asked(headers), [json('/key')])),
      'credential_place_missing',
      JSON.stringify(headers),
    );
  const identity: HeaderList = [
    ['content-type', 'application/json'],
    ['content-encoding', 'identity'],
  ];
  t.equal(await sent(asked(identity)), '{"key":"the\\"credential"}');
});

t.test('every form field of the name is replaced by one', async (t) => {
  t.equal(await sent(asForm('client_secret=x&grant_type=y'), form('client_secret')), 'grant_type=y&client_secret=a%20b%26c');
  t.equal(
    await sent(asForm('a=1&Client_Secret=x&cl%69ent_secret=y&b=2;client_secret=z&c=%zz'), form('client_secret')),
    'a=1&c=%zz&client_secret=a%20b%26c',
  );
  t.equal(await sent(asForm(''), form('k', 'v')), 'k=v');
  t.equal(
    refusal(() => injected({ ...asForm('a=1'), headers: [['content-type', 'multipart/form-data; boundary=x']] }, [form('k')])),
    'credential_place_missing',
  );
});

t.test('the length is corrected, a body without one stays without, and digests of the old body go', async (t) => {
  const { headers } = injected(
    asJson('{}', [
      ['Content-Length', '2'],
      ['Content-MD5', 'x'],
      ['Digest', 'x'],
      ['content-digest', 'x'],
      ['X-A', '1'],
    ]),
    [json('/key')],
  );
  t.strictSame(headers, [
    ['Content-Type', 'application/json'],
    ['Content-Length', String('{"key":"the\\"credential"}'.length)],
    ['X-A', '1'],
  ]);
  t.strictSame(injected(asJson('{}'), [json('/key')]).headers, [['Content-Type', 'application/json']]);
  const umlaut = injected(asJson('{"ä":"€"}', [['content-length', '12']]), [json('/key', 'x')]);
  t.equal(umlaut.headers[1]?.[1], String(Buffer.byteLength(await textOf(umlaut.body))), 'in bytes');
});

t.test('two fields of one body are both written', async (t) => {
  t.equal(await textOf(injected(asJson('{"id":0,"secret":0}'), [json('/id', 'i'), json('/secret', 's')]).body), '{"id":"i","secret":"s"}');
});

t.test('an answer may repeat neither the value nor its spelling in the body', async (t) => {
  t.strictSame(
    injected(asJson('{}'), [json('/key')]).unspoken.map((secret) => secret.reveal()),
    ['the"credential', 'the\\"credential'],
  );
});

// Properties --------------------------------------------------------------------------------------------------------

const names = ['key', 'a', 'b', '', '__proto__', 'ä', '"'];
const document = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    fc.jsonValue({ maxDepth: 0 }),
    fc.array(tie('value'), { maxLength: 3 }),
    fc
      .uniqueArray(fc.tuple(fc.constantFrom(...names), tie('value')), { maxLength: 4, selector: ([name]) => name })
      .map((entries) => ({ entries })),
  ),
})).value;

/** Written with odd spaces; `{entries}` stands for an object, so that __proto__ is a name like others. */
const written = (value: unknown, space: string): string => {
  if (Array.isArray(value)) return `[${space}${value.map((one) => written(one, space)).join(`${space},`)}${space}]`;
  if (typeof value === 'object' && value !== null && 'entries' in value) {
    const entries = value.entries as readonly (readonly [string, unknown])[];
    return `{${space}${entries.map(([name, one]) => `${JSON.stringify(name)}${space}:${written(one, space)}`).join(`,${space}`)}}`;
  }
  return JSON.stringify(value);
};

t.test('for any document and place, what is read back there is the credential, and the text around it is as it was', async () => {
  const tokens = fc.array(fc.constantFrom(...names, '0', '1'), { minLength: 1, maxLength: 3 });
  fc.assert(
    fc.property(document, fc.constantFrom('', ' ', '\n\t'), tokens, fc.string(), (value, space, pointer, secret) => {
      const text = written(value, space);
      const found = locate(text, pointer);
      const changed = withMember(text, pointer, secret);
      if (found.kind === 'problem') return typeof changed !== 'string';
      if (typeof changed !== 'string') return false;
      const [start, end] = found.kind === 'value' ? [found.start, found.end] : [found.at, found.at];
      const isAround = changed.startsWith(text.slice(0, start)) && changed.endsWith(text.slice(end));
      return isAround && stringMember(changed, pointer) === secret && JSON.parse(changed) !== undefined;
    }),
    { seed, numRuns: 2_000 },
  );
});

t.test('what is taken for JSON is what JSON.parse takes', async () => {
  const mutated = fc
    .tuple(document, fc.array(fc.tuple(fc.nat(200), fc.constantFrom(...Array.from('{}[]",:\\u0e1-.tn \t'))), { maxLength: 3 }))
    .map(([value, changes]) => {
      let text = written(value, ' ');
      for (const [at, char] of changes) text = text.slice(0, at) + char + text.slice(at + 1);
      return text;
    });
  const isJson = (text: string): boolean => {
    try {
      JSON.parse(text);
      return true;
    } catch {
      return false;
    }
  };
  fc.assert(
    fc.property(fc.oneof(mutated, fc.string()), (text) => {
      const found = locate(text, ['no such name']);
      return (found.kind === 'problem' && found.problem === 'is not JSON') || (found.kind === 'problem' && found.problem.includes('end'))
        ? !isJson(text)
        : isJson(text);
    }),
    { seed, numRuns: 3_000 },
  );
});

/** With either separator: older readers take ";" for one. */
const pythonReads = `
import json, sys
from urllib.parse import parse_qs
for line in sys.stdin:
    found = [parse_qs(json.loads(line), keep_blank_values=True, separator=separator) for separator in "&;"]
    print(json.dumps([value for form in found for name, values in form.items() if name.lower() == "key" for value in values]))
`;

t.test('whatever form or query the program sends, other readers find ours and nothing else', needs('python3'), async (t) => {
  const pieces = [
    'key',
    'KEY',
    '=',
    '&',
    '&&',
    ';',
    'theirs',
    'a',
    'a=1',
    '%6b',
    'ey',
    '%',
    '%2',
    '%zz',
    '+',
    '%20',
    '%3D',
    '%26',
    '%3B',
    '?',
    '#',
  ];
  const more = ['key=theirs', 'Key=theirs', 'k%65y', '[', ']', '.', '%00', '%c3%28'];
  const text = fc.array(fc.constantFrom(...pieces, ...more), { minLength: 1, maxLength: 8 }).map((parts) => parts.join(''));
  const written = fc.sample(text, { seed, numRuns: 5_000 });
  const inQuery = credential({ kind: 'query', name: 'key' }, 'ours');
  const forms = await Promise.all(written.map((body) => sent(asForm(body), form('key', 'ours'))));
  const queries = written.map((query) =>
    injected({ query: `?${query}` }, [inQuery])
      .path.split('?')
      .slice(1)
      .join('?'),
  );
  const all = [...forms, ...queries];
  const { ok, output } = run('python3', ['-c', pythonReads], { input: all.map((one) => `${JSON.stringify(one)}\n`).join('') });
  t.ok(ok, output.slice(-500));
  const byPython = output
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as string[]);
  t.equal(byPython.length, all.length);
  for (const [index, one] of all.entries()) {
    const here = [...new URLSearchParams(one)].filter(([name]) => name.toLowerCase() === 'key').map(([, value]) => value);
    const isOurs = here.join() === 'ours' && byPython[index]?.every((value) => value === 'ours') && byPython[index]?.length > 0;
    if (!isOurs) t.fail(`${JSON.stringify(one)} was read as ${JSON.stringify([here, byPython[index]])}`);
  }
});

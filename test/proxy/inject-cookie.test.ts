/** A credential as a cookie: the program's others stay, whatever some server would read as ours goes. */
import * as fc from 'fast-check';
import t from 'tap';
import type { HeaderList } from '../../src/core/headers.ts';
import { needs, run } from '../pki/external-program.ts';
import { credential, injected, refusal } from '../support/injection.ts';

const session = (value = 'the-credential') => credential({ kind: 'cookie', name: 'session' }, value);
const cookiesSent = (...fields: readonly string[]): HeaderList =>
  injected({ headers: fields.map((value) => ['Cookie', value]) }, [session()]).headers.filter(([name]) => name.toLowerCase() === 'cookie');

t.test('it is set beside the cookies of the program, in one field', async (t) => {
  t.strictSame(cookiesSent(), [['cookie', 'session=the-credential']], 'where there was none');
  t.strictSame(cookiesSent('theme=dark; lang=de'), [['cookie', 'session=the-credential; theme=dark; lang=de']]);
  t.strictSame(
    cookiesSent('theme=dark', 'lang="d e"'),
    [['cookie', 'session=the-credential; theme=dark; lang="d e"']],
    'several fields become one',
  );
  const { headers } = injected(
    {
      headers: [
        ['COOKIE', 'a=1'],
        ['Accept', '*/*'],
        ['cookie', 'b=2'],
      ],
    },
    [session()],
  );
  t.strictSame(headers, [
    ['Accept', '*/*'],
    ['cookie', 'session=the-credential; a=1; b=2'],
  ]);
});

t.test('every cookie that some server reads by its name is replaced', async (t) => {
  const theirs = [
    'session=theirs',
    'SESSION=theirs',
    'Session = theirs',
    '  session  =theirs',
    '"session"=theirs',
    'session',
    'session="theirs"',
    'a=1; session=theirs; session=theirs',
    '$session=theirs',
    '=session=theirs',
    '%73ession=theirs',
    'sess%69on=theirs',
    'a=1,session=theirs',
    'a="x; session=theirs',
    ';;session=theirs;',
    'session=a=b=theirs',
    'a=1 session=theirs',
    'a=1= session=theirs,',
    '.$Version=1\tsession=theirs',
  ];
  for (const written of theirs) {
    const [[, value] = ['', ''], ...others] = cookiesSent(written);
    t.equal(others.length, 0, written);
    t.match(value, /^session=the-credential(?:; a=(?:1|"x))?$/, written);
  }
  for (const apart of ['sessions=1', 'xsession=1', 'session-id=1', 'a=session', 'se ssion=1']) {
    t.strictSame(cookiesSent(apart), [['cookie', `session=the-credential; ${apart}`]], `${apart} is another cookie`);
  }
});

t.test('a name with a dot is read with an underscore by some servers', async (t) => {
  const { headers } = injected({ headers: [['cookie', 'a_b=theirs; a.b=theirs; a b=theirs; a-b=1']] }, [
    credential({ kind: 'cookie', name: 'a.b' }, 'ours'),
  ]);
  t.strictSame(headers, [['cookie', 'a.b=ours; a-b=1']]);
});

t.test('two cookies stand beside each other', async (t) => {
  const csrf = credential({ kind: 'cookie', name: 'csrf' }, 'second');
  t.strictSame(injected({ headers: [['cookie', 'csrf=x; a=1; session=y']] }, [session(), csrf]).headers, [
    ['cookie', 'csrf=second; session=the-credential; a=1'],
  ]);
});

t.test('what no cookie can hold is refused', async (t) => {
  for (const value of ['', 'a b', 'a;b', 'a,b', 'a"b', 'a\\b', 'a\r\nb', 'ä', 'a\u007f', '\ta'])
    t.equal(
      refusal(() => injected({}, [session(value)])),
      'credential_invalid',
      JSON.stringify(value),
    );
  t.equal(
    refusal(() => injected({}, [session("a=b:/?#[]@!$&'()*+")])),
    'none',
  );
});

t.test('an answer may not repeat it', async (t) => {
  t.strictSame(
    injected({}, [session()]).unspoken.map((secret) => secret.reveal()),
    ['the-credential'],
  );
});

/** http.cookies of Python ends cookies at spaces too, reads quotes and escapes, and gives up where it does not understand. */
const pythonReads = `
import json, sys
from http.cookies import CookieError, SimpleCookie
for line in sys.stdin:
    cookies = SimpleCookie()
    try:
        cookies.load(json.loads(line))
    except CookieError:
        pass
    print(json.dumps([cookie.value for name, cookie in cookies.items() if name.lower() == "session"]))
`;

t.test('whatever cookies the program sends, another reader finds ours or none', needs('python3'), async (t) => {
  const seed = Date.now() & 0x7fffffff;
  t.comment(`seed ${seed}`);
  const pieces = [
    'session',
    'SESSION',
    '=',
    '=',
    ';',
    '; ',
    ';;',
    ',',
    '"',
    ' ',
    '\t',
    '$',
    'theirs',
    'a',
    'a=1',
    'b="x',
    '%73',
    '.',
    '[',
    ']',
    '\\',
    '\\073',
  ];
  const more = [
    '$Version=1',
    'Path=/',
    'expires=Thu, 01 Jan',
    'session=theirs',
    '"session"=theirs',
    'httponly',
    '\\"',
    "'",
    ':',
    '@',
    '{',
    '/',
    '<',
    '&',
    '+',
  ];
  const field = fc.array(fc.constantFrom(...pieces, ...more), { minLength: 1, maxLength: 8 }).map((parts) => parts.join('').trim());
  const written = fc.sample(field, { seed, numRuns: 10_000 });
  const sent = written.map((value) => cookiesSent(value)[0]?.[1] as string);
  const { ok, output } = run('python3', ['-c', pythonReads], { input: sent.map((value) => `${JSON.stringify(value)}\n`).join('') });
  t.ok(ok, output.slice(-500));
  const read = output
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as string[]);
  t.equal(read.length, sent.length);
  for (const [index, values] of read.entries())
    if (values.some((value) => value !== 'the-credential'))
      t.fail(`${JSON.stringify(written[index])} became ${JSON.stringify(sent[index])}`);
  t.ok(read.filter(({ length }) => length === 1).length > 1_000, 'it finds it more often than not');
});

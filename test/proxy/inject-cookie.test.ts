/** A credential as a cookie: the program's others stay, whatever some server would read as ours goes. */
import t from 'tap';
import { credential, injected, refusal } from '../support/injection.ts';

const session = (value = 'the-credential') => credential({ kind: 'cookie', name: 'session' }, value);
const cookiesSent = (...fields: readonly string[]): (readonly [string, string])[] =>
  injected({ headers: fields.map((value) => ['Cookie', value]) }, [session()]).headers.filter(
    ([name]) => name.toLowerCase() === 'cookie',
  ) as (readonly [string, string])[];

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

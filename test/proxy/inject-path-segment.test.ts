/** A credential in the path: only what is sent has it, and it can be nothing but that one segment. */
import * as fc from 'fast-check';
import t from 'tap';
import type { Placement } from '../../src/core/grant.ts';
import { canonicalTarget } from '../../src/core/request-target.ts';
import { asking, context, credential, injected, refusal } from '../support/injection.ts';
import { inject } from '../../src/proxy/inject.ts';

const bot: Placement = { kind: 'path_segment', segment: 1, template: 'bot{credential}' };
const pathSent = (path: string, value: string, placement: Placement = bot, query = ''): string =>
  injected({ path, query }, [credential(placement, value)]).path;

t.test('the segment is replaced, and everything else of the path and the query stays', async (t) => {
  t.equal(pathSent('/botX/sendMessage', '123:AAF-x_y'), '/bot123:AAF-x_y/sendMessage');
  t.equal(pathSent('/botX', '123', bot, '?a=botX'), '/bot123?a=botX');
  t.equal(pathSent('/a/b/', '123', { kind: 'path_segment', segment: 2, template: '{credential}' }), '/a/123/');
  t.equal(pathSent('/a/key-old.json', 'n', { kind: 'path_segment', segment: 2, template: 'key-{credential}.json' }), '/a/key-n.json');
  t.equal(pathSent('/botX%20Y/z%3Dz', '1'), '/bot1/z%3Dz', 'whatever stood there');
});

t.test('what was judged keeps what the program wrote', async (t) => {
  const request = asking({ path: '/botX/sendMessage' }, credential(bot, 'secret'));
  const prepared = inject(request, context);
  t.equal(prepared.path, '/botsecret/sendMessage');
  t.strictSame((prepared.accepted as typeof request).path, { path: '/botX/sendMessage', query: '' });
});

t.test('a path without the place is refused', async (t) => {
  for (const path of ['/', '/bot', '/robotX', '/Botx', '/a/botX'])
    t.equal(
      refusal(() => pathSent(path, 's')),
      'credential_place_missing',
      path,
    );
  for (const path of ['/a', '/a/'])
    t.equal(
      refusal(() => pathSent(path, 's', { kind: 'path_segment', segment: 2, template: '{credential}' })),
      'credential_place_missing',
      path,
    );
});

t.test('a verbatim path with a second reading is refused: the segment would be another one', async (t) => {
  for (const path of ['//botX', '/./botX', '/../botX', '/botX/%2e%2e/a', '/botX;a=b', '/botX\\a', '/bot%58', '/a%2FbotX/c'])
    t.equal(
      refusal(() => injected({ path, target: { paths: 'verbatim' } }, [credential(bot, 's')])),
      'credential_place_missing',
      path,
    );
});

t.test('a value that could be read as more than one segment is refused', async (t) => {
  for (const value of ['', 'a/b', '../x', 'a%2Fb', '100%', 'a;b', 'a\\b', 'a\r\nb', ' a', 'ä'])
    t.equal(
      refusal(() => pathSent('/botX', value)),
      'credential_invalid',
      JSON.stringify(value),
    );
  const whole: Placement = { kind: 'path_segment', segment: 1, template: '{credential}' };
  for (const value of ['.', '..'])
    t.equal(
      refusal(() => pathSent('/x', value, whole)),
      'credential_invalid',
      value,
    );
  const dotted: Placement = { kind: 'path_segment', segment: 1, template: '.{credential}' };
  t.equal(
    refusal(() => pathSent('/.x', '.', dotted)),
    'credential_invalid',
    'also when the template makes it one',
  );
  t.equal(pathSent('/x', 'a?b#c d"e', whole), '/a%3Fb%23c%20d%22e');
});

t.test('whatever the value, what is sent is canonical and has as many segments', async () => {
  const seed = Date.now() & 0x7fffffff;
  t.comment(`seed ${seed}`);
  fc.assert(
    fc.property(fc.string({ minLength: 1 }), (value) => {
      if (refusal(() => pathSent('/v1/botX/z', value, { kind: 'path_segment', segment: 2, template: 'bot{credential}' })) !== 'none')
        return true;
      const sent = pathSent('/v1/botX/z', value, { kind: 'path_segment', segment: 2, template: 'bot{credential}' });
      const canonical = canonicalTarget(sent);
      return 'path' in canonical && canonical.path === sent && canonical.query === '' && sent.split('/').length === 4;
    }),
    { seed, numRuns: 500 },
  );
});

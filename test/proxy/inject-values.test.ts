/** Whatever a credential holds (THREATS E-10): what is read back in its place is the credential, or the request is refused. */
import t from 'tap';
import type { Placement } from '../../src/core/grant.ts';
import { type HeaderList, valuesOf } from '../../src/core/headers.ts';
import type { Prepared } from '../../src/proxy/exchange.ts';
import { type Asked, credential, injected, refusal, textOf } from '../support/injection.ts';

interface Place {
  readonly placement: Placement;
  readonly asked: Asked;
  /** By the rules of the place's own standard, not by the code under test. */
  readonly readBack: (prepared: Prepared) => string | Promise<string>;
}

const only = (values: readonly string[]): string => {
  if (values.length !== 1) throw new Error(`${values.length} values`);
  return values[0] as string;
};
const after = (start: string, text: string): string => {
  if (!text.startsWith(start)) throw new Error('something else stands there');
  return text.slice(start.length);
};
const posted = (type: string, body: string): Asked => ({ method: 'POST', headers: [['content-type', type]], body });

const places: Readonly<Record<string, Place>> = {
  bearer: {
    placement: { kind: 'bearer' },
    asked: {},
    readBack: ({ headers }) => after('Bearer ', only(valuesOf(headers, 'authorization'))),
  },
  basic: {
    placement: { kind: 'basic', username: 'u' },
    asked: {},
    readBack: ({ headers }) => after('u:', Buffer.from(after('Basic ', only(valuesOf(headers, 'authorization'))), 'base64').toString()),
  },
  header: {
    placement: { kind: 'header', name: 'X-Key', template: 'k={credential}' },
    asked: {},
    readBack: ({ headers }) => after('k=', only(valuesOf(headers, 'x-key'))),
  },
  query: {
    placement: { kind: 'query', name: 'key' },
    asked: { query: '?a=1' },
    readBack: ({ path }) => only(new URL(path, 'https://api.outrider.test').searchParams.getAll('key')),
  },
  cookie: {
    placement: { kind: 'cookie', name: 'key' },
    asked: { headers: [['cookie', 'a=1']] },
    readBack: ({ headers }) =>
      after(
        'key=',
        only(
          only(valuesOf(headers, 'cookie'))
            .split('; ')
            .filter((pair) => pair !== 'a=1'),
        ),
      ),
  },
  'path segment': {
    placement: { kind: 'path_segment', segment: 2, template: 'k{credential}' },
    asked: { path: '/a/kX/b' },
    readBack: ({ path }) => {
      const segments = new URL(path, 'https://api.outrider.test').pathname.split('/');
      if (segments.length !== 4 || segments[1] !== 'a' || segments[3] !== 'b') throw new Error('another path');
      return after('k', decodeURIComponent(segments[2] as string));
    },
  },
  'JSON body': {
    placement: { kind: 'body_field', format: 'json', field: '/key' },
    asked: posted('application/json', '{"a":1,"key":0}'),
    readBack: async ({ body }) => {
      const { key, ...others } = JSON.parse(await textOf(body)) as { key: string };
      if (JSON.stringify(others) !== '{"a":1}') throw new Error('another document');
      return key;
    },
  },
  'form body': {
    placement: { kind: 'body_field', format: 'form', field: 'key' },
    asked: posted('application/x-www-form-urlencoded', 'a=1&key=0'),
    readBack: async ({ body }) => {
      const form = new URLSearchParams(await textOf(body));
      if (form.getAll('a').join() !== '1' || form.size !== 2) throw new Error('another form');
      return only(form.getAll('key'));
    },
  },
};

const isOneLine = (headers: HeaderList): boolean =>
  headers.every(([name, value]) => /^[\x21-\x7e]+$/.test(name) && /^[\t\x20-\x7e]*$/.test(value));

for (const [name, { placement, asked, readBack }] of Object.entries(places)) {
  t.test(`${name}: every character at every place is read back as it was, or refused`, async (t) => {
    let taken = 0;
    for (let code = 0; code < 0x180; code += 1) {
      const char = String.fromCharCode(code);
      for (const value of [char, `${char}bc`, `a${char}c`, `ab${char}`, `${char}${char}`]) {
        const grant = [credential(placement, value)];
        const code = refusal(() => injected(asked, grant));
        if (code === 'credential_invalid') continue;
        const prepared = injected(asked, grant);
        const found = await readBack(prepared);
        if (code !== 'none' || found !== value || !isOneLine(prepared.headers))
          t.fail(`${JSON.stringify(value)} was read as ${JSON.stringify(found)}`);
        taken += 1;
      }
    }
    // Letters and digits, at the least.
    t.ok(taken >= 62 * 5, `${taken} were taken`);
  });

  t.test(`${name}: no value with a line break, a NUL or a character beyond ASCII is written`, async (t) => {
    for (const char of ['\r', '\n', '\0', '\u0085', '\u2028', 'ä', '\u{1f600}', '\ud800'])
      t.equal(
        refusal(() => injected(asked, [credential(placement, `a${char}b`)])),
        'credential_invalid',
        `U+${char.codePointAt(0)?.toString(16)}`,
      );
  });
}

import fc from 'fast-check';
import t from 'tap';
import { createBudget } from '../../src/core/budget.ts';
import {
  badNomination,
  type HeaderField,
  type HeaderList,
  nominatedBy,
  overridingFields,
  sameNameKey,
  withoutHopByHop,
} from '../../src/core/headers.ts';
import type { Placement } from '../../src/core/grant.ts';
import { Fault } from '../../src/core/fault.ts';
import { limits } from '../../src/core/limits.ts';
import { Secret } from '../../src/core/secret.ts';
import type { Authorized } from '../../src/proxy/exchange.ts';
import { inject } from '../../src/proxy/inject.ts';
import { admit } from '../../src/proxy/listener/admit.ts';
import { allowAll, bearer, grantOf, target } from '../support/path.ts';
import { holds } from './seed.ts';

/** Laws of the header list, of what is written into it, and of framing (THREATS E-10 to E-12, F-1). */

const known = [
  'Authorization',
  'Cookie',
  'Connection',
  'Keep-Alive',
  'Proxy-Authorization',
  'Proxy-Connection',
  'TE',
  'Trailer',
  'Upgrade',
  'X-Api-Key',
  'X-A',
  'X-Forwarded-Host',
  'Forwarded',
  'X-HTTP-Method-Override',
  'Host',
  'Expect',
  'Accept',
  'Content-Type',
  'HTTP2-Settings',
];
/** A name in some spelling that some server takes for it. */
const name = fc
  .tuple(fc.constantFrom(...known), fc.nat(5))
  .map(([one, how]) => (how === 0 ? one.toUpperCase() : how === 1 ? one.toLowerCase() : how === 2 ? one.replaceAll('-', '_') : one));
const value = fc.oneof(
  fc.stringMatching(/^[\x21-\x7e]{0,12}$/),
  fc.constantFrom('close', 'x-a', 'X-Api-Key, close', 'authorization', 'keep-alive, Authorization', 'X_A', 'a b', ',', 'é'),
);
const list: fc.Arbitrary<HeaderList> = fc.array(fc.tuple(name, value) as fc.Arbitrary<HeaderField>, { maxLength: 10 });

const isSubsequence = (part: HeaderList, whole: HeaderList): boolean => {
  let at = 0;
  return part.every((field) => {
    at = whole.indexOf(field, at) + 1;
    return at > 0;
  });
};

t.test('what travels is what came, in order, without what belongs to the connection or is named by it; and that is final', (t) =>
  holds(
    t,
    'hop by hop',
    fc.property(list, (before) => {
      const after = withoutHopByHop(before);
      const nominated = nominatedBy(before);
      const stays = ([field]: HeaderField): boolean =>
        !['connection', 'keep-alive', 'proxy-authorization', 'proxy-connection', 'te', 'trailer', 'upgrade', 'http2-settings'].includes(
          field.toLowerCase(),
        ) && !nominated.has(field.toLowerCase());
      if (!isSubsequence(after, before)) throw new Error('fields changed or moved');
      if (after.length !== before.filter(stays).length || !after.every(stays)) throw new Error('too much or too little was taken');
      if (withoutHopByHop(after).length !== after.length) throw new Error('something is left');
    }),
    5_000,
  ),
);

const context = {
  buffers: createBudget(limits.heldBytesTotalMax),
  nowMs: 1_700_000_000_000,
  uuid: () => '00000000-0000-4000-8000-000000000000',
};
const echo = target('echo');
const authorized = (headers: HeaderList, placements: readonly { placement: Placement; value: string }[], query = ''): Authorized =>
  ({
    method: 'GET',
    destination: { scheme: 'https', host: 'echo.outrider.test', port: 443 },
    path: { path: '/a', query },
    headers,
    body: undefined,
    protocol: 'http/1.1',
    scheme: 'https',
    route: { kind: 'target', target: echo, configurationVersion: 'c1' },
    grant: grantOf(echo, {
      rules: [allowAll],
      credentials: placements.map((one) => ({ ...bearer(one.value), placement: one.placement, value: new Secret(one.value) })),
    }),
  }) as unknown as Authorized;

const visible = fc.stringMatching(/^[\x21-\x7e]{1,20}$/);
const inField: fc.Arbitrary<Placement> = fc.constantFrom<Placement>(
  { kind: 'bearer' },
  { kind: 'basic', username: 'u' },
  { kind: 'header', name: 'X-Api-Key', template: 'key {credential}' },
  { kind: 'header', name: 'authorization', template: '{credential}' },
);
const fieldOf = (placement: Placement): string => (placement.kind === 'header' ? sameNameKey(placement.name) : 'authorization');

t.test('a credential in a field is there exactly once, in whatever spelling a program filled its place, and nothing else moves', (t) =>
  holds(
    t,
    'set, never appended',
    fc.property(list, inField, visible, (headers, placement, secret) => {
      const prepared = inject(authorized(headers, [{ placement, value: secret }]), context);
      const owned = prepared.headers.filter(([field]) => sameNameKey(field) === fieldOf(placement));
      if (owned.length !== 1) throw new Error(`${owned.length} fields in its place`);
      const written = (owned[0] as HeaderField)[1];
      const wanted =
        placement.kind === 'basic'
          ? `Basic ${Buffer.from(`u:${secret}`).toString('base64')}`
          : placement.kind === 'bearer'
            ? `Bearer ${secret}`
            : (placement as { template: string }).template.replace('{credential}', () => secret);
      if (written !== wanted) throw new Error(`${written} instead of ${wanted}`);
      const others = prepared.headers.filter((field) => field !== owned[0]);
      if (!isSubsequence(others, headers)) throw new Error('other fields changed or moved');
      const never = others.find(([field]) => overridingFields.has(sameNameKey(field)) || ['host', 'expect'].includes(sameNameKey(field)));
      if (never) throw new Error(`${never[0]} travels`);
      const lost = withoutHopByHop(headers).filter(
        (field) =>
          !others.includes(field) &&
          sameNameKey(field[0]) !== fieldOf(placement) &&
          !overridingFields.has(sameNameKey(field[0])) &&
          !['host', 'expect'].includes(sameNameKey(field[0])),
      );
      if (lost.length > 0) throw new Error(`${lost.join()} is lost`);
    }),
    5_000,
  ),
);

t.test('a credential that could end a field is never written: each byte at each place of it', async (t) => {
  let written = 0;
  for (const placement of [
    { kind: 'bearer' },
    { kind: 'basic', username: 'u' },
    { kind: 'header', name: 'x', template: 'a{credential}b' },
    { kind: 'query', name: 'key' },
    { kind: 'cookie', name: 'key' },
  ] as const) {
    for (let byte = 0; byte < 256; byte += 1) {
      for (let at = 0; at <= 2; at += 1) {
        const secret = `${'ab'.slice(0, at)}${String.fromCharCode(byte)}${'ab'.slice(at)}`;
        try {
          const { headers, path } = inject(authorized([], [{ placement, value: secret }]), context);
          written += 1;
          const text = headers.map(([field, one]) => `${field}: ${one}`).join('') + path;
          if (/[^\x20-\x7e\t]/.test(text) || headers.length > 1 || /[\s#]/.test(path))
            t.fail(`${placement.kind} with ${byte} at ${at}: ${JSON.stringify(text)}`);
        } catch (error) {
          if ((error as Fault).code !== 'credential_invalid') t.fail(`${placement.kind} with ${byte} at ${at}: ${String(error)}`);
        }
      }
    }
  }
  t.ok(written > 5 * 3 * 80, `${written} of ${5 * 3 * 256} were written`);
});

const framingField: fc.Arbitrary<HeaderField> = fc.tuple(
  fc.constantFrom(
    'Content-Length',
    'content-length',
    'Transfer-Encoding',
    'TRANSFER-ENCODING',
    'Content_Length',
    'transfer_encoding',
    'X-A',
  ),
  fc.constantFrom(
    '0',
    '5',
    '05',
    '+5',
    '5,5',
    '5 ',
    '',
    '-1',
    '99999999999999999999',
    '1e3',
    '0x5',
    'chunked',
    'Chunked',
    'identity',
    'gzip, chunked',
    'chunked, chunked',
    'chunked ',
    ',chunked',
    '\u000bchunked',
  ),
);

/** RFC 9112 section 6 as one sentence for each, apart from the code under test. */
const framingByRule = (version: string, headers: HeaderList): 'none' | 'length' | 'chunked' | 'refused' => {
  const lengths = headers.filter(([field]) => /^content[-_]length$/i.test(field));
  const codings = headers.filter(([field]) => /^transfer[-_]encoding$/i.test(field));
  if ([...lengths, ...codings].some(([field]) => field.includes('_')) || lengths.length + codings.length > 1) return 'refused';
  const [coding, length] = [codings[0]?.[1], lengths[0]?.[1]];
  if (coding !== undefined) return version === '1.1' && coding.toLowerCase() === 'chunked' ? 'chunked' : 'refused';
  if (length === undefined) return 'none';
  return ['0', '5'].includes(length) ? (length === '0' ? 'none' : 'length') : 'refused';
};

t.test('a head has one framing or is refused, whatever fields frame it', (t) =>
  holds(
    t,
    'one framing',
    fc.property(
      fc.array(framingField, { maxLength: 3 }),
      fc.constantFrom('1.0', '1.1'),
      fc.constantFrom('GET', 'POST', 'HEAD', 'DELETE'),
      (fields, httpVersion, method) => {
        const wanted = framingByRule(httpVersion, fields);
        let found: string;
        try {
          found = admit({ method, target: '/', httpVersion, headers: [['Host', 'a'], ...fields] }).hasBody ? 'body' : 'none';
        } catch (error) {
          if (!(error instanceof Fault) || error.code !== 'framing_invalid') throw error;
          found = 'refused';
        }
        return found === (wanted === 'length' || wanted === 'chunked' ? 'body' : wanted);
      },
    ),
    20_000,
  ),
);

t.test('a nomination is refused when it names what frames, routes or authenticates, in any case', (t) =>
  holds(
    t,
    'nominations',
    fc.property(
      fc.constantFrom('Authorization', 'CONTENT-LENGTH', 'host', 'Cookie', 'Content-Type', 'expect', 'X-A', 'close', 'te', 'a b', '"x"'),
      list,
      (one, others) => {
        const bad = badNomination([['Connection', `close, ${one}`]]) !== undefined;
        const isSound = ['X-A', 'close', 'te'].includes(one);
        // Other fields, however they are named, do not make it sound.
        return (
          bad !== isSound &&
          (isSound ||
            badNomination([...others.filter(([field]) => field.toLowerCase() !== 'connection'), ['connection', one]]) !== undefined)
        );
      },
    ),
    2_000,
  ),
);

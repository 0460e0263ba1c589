/** How an operator writes a target, and where a credential may be written into a request. */
import * as z from 'zod';
import type { Placement } from '../../core/grant.ts';
import { echoTreatments, pathReadings, targetProtocols } from '../../core/target.ts';
import { sameNameKey, tokenPattern, withoutHopByHop, writableValue } from '../../core/headers.ts';
import { host, port } from '../address.ts';
import type { TargetSettings } from '../broker.ts';
import { keys, list, oneOf, oneOfNumerals, Refusal, scalar, variant } from '../grammar.ts';
import { filePath, name } from '../text.ts';

/** What says where a message ends, what is in it, or who it is for; hop-by-hop fields besides. */
const ownedFields = new Set(['host', 'content-length', 'content-type', 'content-encoding', 'expect', 'date', 'via', 'forwarded']);

const fieldName = scalar({ what: 'the name of a header field', write: 'a token such as X-Api-Key' }, (text) => {
  if (!tokenPattern.test(text) || text.length > 64) return undefined;
  const key = sameNameKey(text);
  const isOwned = ownedFields.has(key) || withoutHopByHop([[key, '']]).length === 0;
  return isOwned
    ? new Refusal(
        'is a field that frames or routes the message, and no credential may go there, write a field of its own, such as X-Api-Key',
      )
    : text;
});

const mark = '{credential}';
const template = scalar({ what: 'a template', write: `text in quotes with ${mark} in it, such as "Token ${mark}"` }, (text) => {
  if (text.split(mark).length !== 2) return new Refusal(`must have ${mark} exactly once, write for example "Token ${mark}"`);
  return writableValue(text) && text.length <= 256
    ? text
    : new Refusal('cannot be the value of a header field, write one line of ASCII without spaces at its ends');
});

const username = scalar({ what: 'a user name', write: 'one line of ASCII without ":"' }, (text) =>
  /^[\x20-\x39\x3b-\x7e]{0,256}$/.test(text) ? text : undefined,
);

const queryName = scalar({ what: 'the name of a query parameter', write: 'letters, digits and . _ ~ -, such as api_key' }, (text) =>
  /^[A-Za-z0-9._~-]{1,64}$/.test(text) ? text : undefined,
);

const placement = variant('kind', ['bearer', 'basic', 'header', 'query', 'client_certificate'] satisfies readonly Placement['kind'][], [
  keys({ kind: z.literal('bearer') }, ''),
  keys({ kind: z.literal('basic'), username }, ''),
  keys({ kind: z.literal('header'), name: fieldName, template: template.default(mark) }, ''),
  keys({ kind: z.literal('query'), name: queryName }, ''),
  keys({ kind: z.literal('client_certificate') }, ''),
]).transform((written): Placement => written);

/** Long enough never to stand anywhere by chance, and of characters that no place has to encode. */
const placeholder = scalar(
  { what: 'a placeholder', write: '8 to 128 letters, digits, "_" and "-", such as OUTRIDER_PLACEHOLDER' },
  (text) => (/^[A-Za-z0-9_-]{8,128}$/.test(text) ? text : undefined),
);

const credential = keys({ provider: name, placement }, '{provider: NAME, placement: {kind: bearer}}');

export const target = keys(
  {
    name,
    hosts: list(host, { write: '[api.example.com]', min: 1 }),
    ports: list(port, { write: '[443]', min: 1 }).default([443]),
    cleartext: oneOf(['allowed', 'refused']).default('refused'),
    caFile: filePath('/etc/outrider/target-ca.pem').optional(),
    protocol: oneOf(targetProtocols, { isGuessed: false }).default('auto'),
    tlsVersionMin: oneOfNumerals(['1.2', '1.3']).default('1.2'),
    echo: oneOf(echoTreatments).default('redact'),
    paths: oneOf(pathReadings).default('canonical'),
    placeholder: placeholder.default(''),
    credentials: list(credential, { write: '[{provider: NAME, placement: {kind: bearer}}]', min: 1 }),
  },
  '{name: orders, hosts: [api.example.com], credentials: [{provider: NAME, placement: {kind: bearer}}]}',
).transform(({ caFile, tlsVersionMin, ...written }): TargetSettings => ({ ...written, caFile, tlsVersionMin: `TLSv${tlsVersionMin}` }));

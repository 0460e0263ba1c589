/** Attacks on verifiers of JSON Web Tokens (THREATS P-6; RFC 8725 section 2). */
import { createHmac } from 'node:crypto';
import type { Attesting } from '../../fakes/attestors.ts';
import { createIssuerKey, encode, type IssuerKey, publicJwk, signWith } from '../../fakes/cluster-issuer.ts';
import { claims, header, parts, seconds, type Vector, vector } from './vector.ts';

const none = Buffer.alloc(0);
const hmac = (secret: string | Buffer) => (signingInput: string) => createHmac('sha256', secret).update(signingInput).digest();
const currentKey = ({ issuer }: Attesting): IssuerKey => issuer.keys.at(-1) as IssuerKey;
const attacker = createIssuerKey();
/** Published beside the RSA key wherever these run. */
export const elliptic = createIssuerKey('ES256');

export const algorithms: readonly Vector[] = [
  ...['none', 'None', 'NONE', 'nOnE', ''].flatMap((alg) => [
    parts(`alg ${JSON.stringify(alg)} without a signature`, 'evidence_invalid', () => ({ header: { alg }, signature: () => none })),
    header(`alg ${JSON.stringify(alg)} with a signature`, { alg }, { alg: 'RS256' }),
  ]),
  header('no alg', { alg: undefined }),
  header('a list of algs', { alg: ['RS256'] }),
  header('alg in other letters', { alg: 'rs256' }),
  ...['RS384', 'PS256', 'HS256', 'ES256K', 'EdDSA', 'RSA1_5', 'dir'].map((alg) => header(`alg ${alg}`, { alg })),
  header("alg ES256 with an RSA key's name and signature", { alg: 'ES256' }),
  ...(['pem', 'der', 'jwk'] as const).map((form) =>
    parts(`HS256 with the public key as ${form} for a secret`, 'evidence_invalid', (on) => ({
      header: { alg: 'HS256' },
      signature: hmac(publicBytes(currentKey(on), form)),
    })),
  ),
];
const publicBytes = (key: IssuerKey, form: 'pem' | 'der' | 'jwk'): string | Buffer =>
  form === 'jwk'
    ? JSON.stringify(publicJwk(key))
    : form === 'der'
      ? key.publicKey.export({ type: 'spki', format: 'der' })
      : key.publicKey.export({ type: 'spki', format: 'pem' });

export const keyTricks: readonly Vector[] = [
  parts('signed by another key of the same name', 'evidence_invalid', (on) => ({ header: { kid: currentKey(on).kid }, key: attacker })),
  parts('signed by a key that is not published', 'evidence_invalid', () => ({ key: attacker })),
  ...[
    '../../../../dev/null',
    "' OR 1=1 --",
    '',
    '__proto__',
    'constructor',
    '0',
    'https://attacker.outrider.test/jwks',
    'k'.repeat(257),
  ].flatMap((kid) => [
    parts(
      `kid ${JSON.stringify(kid.slice(0, 40))} with the issuer's signature`,
      'evidence_invalid',
      () => ({ header: { kid } }),
      (on) => ({ header: { kid: currentKey(on).kid } }),
    ),
    parts(`kid ${JSON.stringify(kid.slice(0, 40))} with an empty secret`, 'evidence_invalid', () => ({
      header: { kid, alg: 'HS256' },
      signature: hmac(''),
    })),
  ]),
  ...[undefined, null, 0, [], {}].map((kid) => header(`kid ${JSON.stringify(kid)}`, { kid })),
  ...(['jku', 'x5u', 'jwk', 'x5c'] as const).flatMap((name) => {
    const value = {
      jku: 'https://attacker.outrider.test/jwks',
      x5u: 'https://attacker.outrider.test/x5',
      jwk: publicJwk(attacker),
      x5c: ['MIIB'],
    }[name];
    return [
      parts(`${name} with the key it brings`, 'evidence_invalid', () => ({ header: { [name]: value }, key: attacker })),
      header(`${name} beside the issuer's signature`, { [name]: value }, { note: value }),
    ];
  }),
  header('crit', { crit: ['exp'], exp: 1 }, { exp: 1 }),
  header('crit, empty', { crit: [] }),
  header('b64 false', { b64: false, crit: ['b64'] }),
  header('b64 true', { b64: true }),
  header('zip', { zip: 'DEF' }),
  header('enc', { enc: 'A256GCM' }),
  ...['at+jwt', 'JOSE', 'logout+jwt', '', 1, null].map((typ) => header(`typ ${JSON.stringify(typ)}`, { typ }, { typ: 'JWT' })),
];

export const signatures: readonly Vector[] = [
  parts('no signature', 'evidence_invalid', () => ({ signature: () => none })),
  parts('a signature cut short', 'evidence_invalid', (on) => ({ signature: (input) => signWith(currentKey(on), input).subarray(0, -1) })),
  parts('a signature with a bit changed', 'evidence_invalid', (on) => ({ signature: (input) => flipped(signWith(currentKey(on), input)) })),
  parts('the signature of another token', 'evidence_invalid', (on) => ({ signature: () => signWith(currentKey(on), 'x.y') })),
  ...[0, 1].map((filling) =>
    vector(
      `ECDSA with r = s = ${filling}`,
      'evidence_invalid',
      (on) => {
        const half = Buffer.concat([Buffer.alloc(31), Buffer.of(filling)]);
        return on.issuer.token({ key: elliptic, signature: () => Buffer.concat([half, half]) });
      },
      (on) => {
        return on.issuer.token({ key: elliptic });
      },
    ),
  ),
];
const flipped = (bytes: Buffer): Buffer => {
  bytes.writeUInt8(bytes.readUInt8(10) ^ 1, 10);
  return bytes;
};

/** The header's text with spaces, so that its base64 ends in a character with bits to spare. */
const spacedHeader = (on: Attesting): string => {
  const text = JSON.stringify({ alg: 'RS256', kid: currentKey(on).kid });
  return text + ' '.repeat(3 - (text.length % 3) + 1);
};
/** The same bytes in another spelling: a lenient decoder drops the last bits. */
const withSpareBits = (part: string): string => {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  return part.slice(0, -1) + alphabet[alphabet.indexOf(part.at(-1) as string) | 1];
};
const respelled = (on: Attesting): string => {
  const [head = ''] = on.issuer.token({ headerText: spacedHeader(on) }).split('.');
  const rest = encode(JSON.stringify(on.issuer.claims()));
  const signingInput = `${withSpareBits(head)}.${rest}`;
  return `${signingInput}.${encode(signWith(currentKey(on), signingInput))}`;
};
const twice = (on: Attesting, text: string): string => JSON.stringify(on.issuer.claims()).replace(/\}$/, `,${text}}`);

export const encodings: readonly Vector[] = [
  vector('base64 with bits to spare', 'evidence_invalid', respelled, (on) => on.issuer.token({ headerText: spacedHeader(on) })),
  ...[0, 1, 2].flatMap((index) =>
    (
      [
        ['padding', (part: string) => `${part}=`],
        ['a space', (part: string) => `${part} `],
        ['a line break', (part: string) => `${part.slice(0, 4)}\n${part.slice(4)}`],
        ['a "+"', (part: string) => `+${part}`],
        ['a NUL', (part: string) => `${part}\0`],
        ['nothing', () => ''],
      ] as const
    ).map(([what, change]) =>
      vector(`part ${index + 1} with ${what}`, 'evidence_invalid', (on) =>
        on.issuer
          .token()
          .split('.')
          .with(index, change(on.issuer.token().split('.')[index] as string))
          .join('.'),
      ),
    ),
  ),
  vector('two parts', 'evidence_invalid', (on) => on.issuer.token().split('.').slice(0, 2).join('.')),
  vector('four parts', 'evidence_invalid', (on) => `${on.issuer.token()}.AAAA`),
  vector('five parts', 'evidence_invalid', (on) => `${on.issuer.token()}.AAAA.AAAA`),
  vector('only dots', 'evidence_invalid', () => '..'),
  vector('a scheme before it', 'evidence_invalid', (on) => `Bearer ${on.issuer.token()}`),
  vector('a line break after it', 'evidence_invalid', (on) => `${on.issuer.token()}\n`),
  vector('no token at all', 'evidence_invalid', () => 'hello'),
  vector('the JSON serialization', 'evidence_invalid', (on) => JSON.stringify({ payload: on.issuer.token().split('.')[1] })),
  parts(
    'alg twice in the header',
    'evidence_invalid',
    (on) => ({ headerText: `{"alg":"none","alg":"RS256","kid":"${currentKey(on).kid}"}` }),
    (on) => ({ headerText: `{"alg":"RS256","kid":"${currentKey(on).kid}"}` }),
  ),
  parts(
    'a claim twice',
    'evidence_invalid',
    (on) => ({ claimsText: twice(on, '"sub":"system:serviceaccount:demo:demo-app"') }),
    (on) => ({ claimsText: twice(on, '"subject":"x"') }),
  ),
  parts(
    'a claim twice, once escaped',
    'evidence_invalid',
    (on) => ({ claimsText: twice(on, '"\\u0061ud":["outrider"]') }),
    (on) => ({ claimsText: twice(on, '"\\u0062ud":["outrider"]') }),
  ),
  parts(
    'a claim twice, deep inside',
    'evidence_invalid',
    (on) => ({ claimsText: twice(on, '"x":[{"a":{"b":1,"b":2}}]') }),
    (on) => ({ claimsText: twice(on, '"x":[{"a":{"b":1,"c":2}},{"a":{"b":1,"text":"\\"a\\":{\\"a\\":1,"}}]') }),
  ),
  parts('claims that are a list', 'evidence_invalid', () => ({ claimsText: '[]' })),
  parts('claims that are null', 'evidence_invalid', () => ({ claimsText: 'null' })),
  parts('claims with a byte order mark', 'evidence_invalid', (on) => ({ claimsText: `\ufeff${JSON.stringify(on.issuer.claims())}` })),
  parts('claims with a comma too many', 'evidence_invalid', (on) => ({
    claimsText: JSON.stringify(on.issuer.claims()).replace(/\}$/, ',}'),
  })),
  vector('claims that are not UTF-8', 'evidence_invalid', (on) => {
    const signingInput = `${encode(spacedHeader(on))}.${encode(Buffer.concat([Buffer.from(twice(on, '"x":"')).subarray(0, -1), Buffer.of(0xff), Buffer.from('"}')]))}`;
    return `${signingInput}.${encode(signWith(currentKey(on), signingInput))}`;
  }),
  parts('claims by way of a prototype', 'evidence_invalid', (on) => ({
    claimsText: `{"__proto__":${JSON.stringify(on.issuer.claims())},"iss":"${on.issuer.url}","aud":"outrider","exp":${seconds(on) + 600}}`,
  })),
  parts(
    'nested too deep',
    'evidence_invalid',
    (on) => ({ claimsText: twice(on, `"x":${'['.repeat(9)}${']'.repeat(9)}`) }),
    (on) => ({ claimsText: twice(on, `"x":${'['.repeat(7)}${']'.repeat(7)}`) }),
  ),
  claims(
    'too long',
    'evidence_invalid',
    () => ({ x: 'x'.repeat(13_000) }),
    () => ({ x: 'x'.repeat(8_000) }),
  ),
];

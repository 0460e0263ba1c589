/** Proof of possession (RFC 9449), judged by another implementation of JOSE. */
import { createHash, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { calculateJwkThumbprint, decodeJwt, decodeProtectedHeader, EmbeddedJWK, jwtVerify } from 'jose';
import t from 'tap';
import { boundTokenText } from '../../src/core/bound-token.ts';
import { type HeaderList, valuesOf } from '../../src/core/headers.ts';
import { asksForNonce, nonceOf } from '../../src/proxy/inject/dpop.ts';
import { type Asked, credential, injected, refusal } from '../support/injection.ts';

const pemOf = (curve: string): string =>
  generateKeyPairSync('ec', { namedCurve: curve }).privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();

// RFC 9449 section 7.1: the access token of figure 13.
const accessToken = 'Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU';
const privateKeyPem = pemOf('P-256');
const bound = credential({ kind: 'dpop' }, boundTokenText({ accessToken, privateKeyPem }));
const nowMs = 1_562_262_618_900;
const proofIn = (headers: HeaderList): string => valuesOf(headers, 'dpop')[0] as string;
const sent = (asked: Asked, nonce?: string) => injected(asked, [bound], { nowMs, nonce });

t.test('the proof verifies with the key in it, which is the one that the token is bound to', async (t) => {
  const { headers } = sent({ method: 'GET', path: '/protectedresource', destination: { host: 'resource.example.org' } });
  t.equal(headers[0]?.[1], `DPoP ${accessToken}`);
  const proof = proofIn(headers);
  const { payload, protectedHeader } = await jwtVerify(proof, EmbeddedJWK, {
    typ: 'dpop+jwt',
    algorithms: ['ES256'],
    currentDate: new Date(nowMs),
  });
  const jwk = createPublicKey(privateKeyPem).export({ format: 'jwk' });
  t.strictSame(
    protectedHeader,
    { typ: 'dpop+jwt', alg: 'ES256', jwk: { kty: 'EC', crv: 'P-256', x: jwk.x, y: jwk.y } },
    'no private member',
  );
  t.equal(await calculateJwkThumbprint(protectedHeader.jwk as object), await calculateJwkThumbprint(jwk as object));
  // Section 7.1, figure 12: the same token has the same hash; section 4.2: the claims.
  t.strictSame(payload, {
    jti: '6d0a1b1c-0000-4000-8000-000000000001',
    htm: 'GET',
    htu: 'https://resource.example.org/protectedresource',
    iat: 1_562_262_618,
    ath: 'fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo',
  });
  t.equal(createHash('sha256').update(accessToken).digest('base64url'), payload['ath']);
});

t.test('a proof is for one request: its method, its address as it is sent, without the query', async (t) => {
  const claims = (asked: Asked) => decodeJwt(proofIn(sent(asked).headers));
  t.match(claims({ method: 'POST', path: '/a%20b/', query: '?secret=1' }), { htm: 'POST', htu: 'https://api.outrider.test/a%20b/' });
  t.equal(claims({ destination: { scheme: 'http', port: 8080 } })['htu'], 'http://api.outrider.test:8080/v1/things');
  t.equal(claims({ destination: { host: '2001:db8::1', port: 8443 } })['htu'], 'https://[2001:db8::1]:8443/v1/things');
  const segment = credential({ kind: 'path_segment', segment: 1, template: '{credential}' }, 'placed');
  const { headers } = injected({ path: '/x/y' }, [bound, segment], { nowMs });
  t.equal(decodeJwt(proofIn(headers))['htu'], 'https://api.outrider.test/placed/y');
});

t.test('a proof or a token of the program is replaced', async (t) => {
  const { headers } = sent({
    headers: [
      ['DPoP', 'theirs'],
      ['dpop', 'theirs'],
      ['AUTHORIZATION', 'Bearer theirs'],
      ['X-A', '1'],
    ],
  });
  t.strictSame(
    headers.map(([name]) => name),
    ['X-A', 'authorization', 'dpop'],
  );
  t.notMatch(JSON.stringify(headers), 'theirs');
});

t.test('the nonce of the target is in the proof when it asked for one', async (t) => {
  t.equal(decodeJwt(proofIn(sent({}, 'n-1').headers))['nonce'], 'n-1');
  t.notOk('nonce' in decodeJwt(proofIn(sent({}).headers)));
});

t.test('a nonce is taken from an answer only when it is one', async (t) => {
  // RFC 9449 section 9, figure 16.
  const challenge: HeaderList = [
    ['WWW-Authenticate', 'DPoP error="use_dpop_nonce", error_description="Resource server requires nonce in DPoP proof"'],
    ['DPoP-Nonce', 'eyJ7S_zG.eyJH0-Z.HX4w-7v'],
  ];
  t.equal(nonceOf(challenge), 'eyJ7S_zG.eyJH0-Z.HX4w-7v');
  t.ok(asksForNonce(challenge));
  for (const values of [[], [''], ['a b'], ['a"b'], ['a\\b'], ['x'.repeat(513)], ['a', 'b']])
    t.equal(nonceOf(values.map((value) => ['dpop-nonce', value])), undefined, JSON.stringify(values).slice(0, 20));
  const challenged = (value: string): boolean =>
    asksForNonce([
      ['www-authenticate', value],
      ['dpop-nonce', 'n'],
    ]);
  t.ok(challenged('Bearer realm="x", DPoP algs="ES256", error=use_dpop_nonce'));
  t.notOk(challenged('DPoP error="invalid_token"'));
  t.notOk(challenged('Bearer error="use_dpop_nonce"'));
  t.notOk(asksForNonce(challenge.slice(0, 1)), 'without a nonce there is nothing to repeat it with');
});

t.test('an answer may not repeat the token', async (t) => {
  t.strictSame(
    sent({}).unspoken.map((secret) => secret.reveal()),
    [accessToken],
  );
});

t.test('what is no token with a P-256 key is refused, without saying what it is', async (t) => {
  const texts = [
    'token',
    '{}',
    boundTokenText({ accessToken: 'a b', privateKeyPem }),
    boundTokenText({ accessToken, privateKeyPem: 'canary' }),
    boundTokenText({ accessToken, privateKeyPem: pemOf('P-384') }),
    boundTokenText({
      accessToken,
      privateKeyPem: generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    }),
    boundTokenText({ accessToken, privateKeyPem: createPublicKey(privateKeyPem).export({ type: 'spki', format: 'pem' }).toString() }),
  ];
  for (const text of texts)
    t.equal(
      refusal(() => injected({}, [credential({ kind: 'dpop' }, text)])),
      'credential_invalid',
      text.slice(0, 12),
    );
  try {
    injected({}, [credential({ kind: 'dpop' }, texts[3] as string)]);
  } catch (error) {
    t.notMatch(`${String(error)} ${String((error as Error).cause)}`, 'canary');
  }
});

t.test('each proof of one grant is another one, by the same header', async (t) => {
  const [one, other] = ['/a', '/b'].map((path) => proofIn(sent({ path }).headers)) as [string, string];
  t.strictSame(decodeProtectedHeader(one), decodeProtectedHeader(other));
  t.not(one, other);
});

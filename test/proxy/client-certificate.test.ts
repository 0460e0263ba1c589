/** A client certificate belongs to the connection: what inject makes of a grant that has one. */
import t from 'tap';
import { createBudget } from '../../src/core/budget.ts';
import type { Scheme } from '../../src/core/destination.ts';
import type { PlacedCredential } from '../../src/core/grant.ts';
import { Secret } from '../../src/core/secret.ts';
import type { Authorized, Prepared } from '../../src/proxy/exchange.ts';
import { inject, pass } from '../../src/proxy/inject.ts';
import { bearer, grantOf, target } from '../support/path.ts';

const shown = (value: string, fingerprint: string): PlacedCredential => ({
  ...bearer(value),
  placement: { kind: 'client_certificate' },
  fingerprint,
});

const bank = target('bank', { protocol: 'h2', tlsVersionMin: 'TLSv1.3', trustBundlePem: 'AUTHORITY' });

const context = { nowMs: 0, uuid: () => 'uuid', buffers: createBudget(0) };

/** As much of an exchange as inject reads. */
const exchange = (credentials: readonly PlacedCredential[], scheme: Scheme = 'https'): Authorized =>
  ({
    method: 'GET',
    path: { path: '/accounts', query: '?a=1' },
    headers: [
      ['Accept', '*/*'],
      ['Authorization', 'Bearer typed-by-the-program'],
    ],
    body: undefined,
    destination: { scheme, host: 'bank.outrider.test', port: 443 },
    route: { kind: 'target', target: bank, configurationVersion: 'c1' },
    grant: grantOf(bank, { credentials }),
  }) as unknown as Authorized;

const sent = ({ method, path, headers }: Prepared): unknown => ({ method, path, headers });

t.test('a client certificate is a term of the connection and is written nowhere in the request', async (t) => {
  // With line ends, which no field could hold.
  const certificate = shown('canary\ncertificate\n', 'fingerprint-1');
  const prepared = inject(exchange([certificate]), context);
  t.strictSame(prepared.connection, {
    protocol: 'h2',
    trustBundlePem: 'AUTHORITY',
    tlsVersionMin: 'TLSv1.3',
    clientCertificate: { pem: certificate.value, fingerprint: 'fingerprint-1' },
  });
  t.strictSame(
    sent(prepared),
    {
      method: 'GET',
      path: '/accounts?a=1',
      headers: [
        ['Accept', '*/*'],
        ['Authorization', 'Bearer typed-by-the-program'],
      ],
    },
    'what the program wrote in a place that is not ours stays',
  );
  t.ok(prepared.isCredentialed);
});

t.test('beside it a token is written as always', async (t) => {
  const prepared = inject(exchange([shown('pem', 'f1'), bearer('the-token')]), context);
  t.match(prepared.headers, [
    ['Accept', '*/*'],
    ['authorization', 'Bearer the-token'],
  ]);
  t.equal(prepared.connection.clientCertificate?.fingerprint, 'f1');
});

t.test('without one, and for what passes, a connection shows none', async (t) => {
  t.equal(inject(exchange([bearer('the-token')]), context).connection.clientCertificate, undefined);
  t.strictSame(pass(exchange([shown('pem', 'f1')])).connection, {
    protocol: 'auto',
    trustBundlePem: '',
    tlsVersionMin: 'TLSv1.2',
    clientCertificate: undefined,
  });
});

t.test('a request in clear text, which would go without it, and a grant with two are refused', async (t) => {
  t.throws(() => inject(exchange([shown('pem', 'f1')], 'http'), context), { code: 'cleartext_refused' });
  t.throws(() => inject(exchange([shown('pem', 'f1'), shown('pem', 'f2')]), context), { code: 'credential_invalid' });
});

t.test('a token that could end its field is still refused', async (t) => {
  t.throws(() => inject(exchange([{ ...bearer(''), value: new Secret('a\r\nb: c') }]), context), { code: 'credential_invalid' });
});

import t from 'tap';
import { Fault } from '../../src/core/fault.ts';
import { Secret } from '../../src/core/secret.ts';
import { systemClock } from '../../src/ops/clock.ts';
import { createGrantCache } from '../../src/proxy/grant/cache.ts';
import { between, host, httpTarget, program } from '../support/between.ts';
import { bearer, grantOf, target } from '../support/path.ts';

/** THREATS I8, P-5: what has been revoked is not used, also by a request that began before. */
const body = '{"amount":1}';
const post = (length: number): string =>
  [`POST http://${host}/pay HTTP/1.1`, `Host: ${host}`, 'Content-Type: application/json', `Content-Length: ${length}`, '', ''].join('\r\n');

for (const [what, after] of [
  ['refused when nothing is granted any more', undefined],
  ['sent with what is granted now', 'credential-two'],
] as const)
  t.test(`a grant that is revoked while a body comes is not used: the request is ${what}`, async (t) => {
    let value: string | undefined = 'credential-one';
    const asked: string[] = [];
    const one = target('echo', { protocol: 'http1' });
    const grants = createGrantCache({
      clock: systemClock,
      random: () => 0,
      fetch: async () => {
        asked.push(value ?? 'nothing');
        if (value === undefined) throw new Fault('policy_denied');
        const { providerKind, provider, fingerprint, expiresAtMs } = bearer(value);
        const placement = { kind: 'body_field', format: 'json', field: '/token' } as const;
        return grantOf(one, { credentials: [{ placement, value: new Secret(value), providerKind, provider, fingerprint, expiresAtMs }] });
      },
    });
    const seen: string[] = [];
    const { path } = await between(
      t,
      httpTarget((request, response) => {
        let text = '';
        request.on('data', (chunk: Buffer) => (text += chunk));
        request.on('end', () => {
          seen.push(text);
          response.end('ok');
        });
      }),
      { grants },
    );
    const client = await program(path);
    client.say(post(body.length) + body.slice(0, 3));
    while (asked.length === 0 || grants.size() === 0) await new Promise(setImmediate);
    value = after;
    grants.revoke('echo', []);
    client.say(body.slice(3));
    if (after === undefined) {
      t.match(await client.until(/\r\n\r\n/), /^HTTP\/1\.1 403 /);
      t.same(seen, []);
      t.same(
        path.events.map(({ kind }) => kind),
        ['refusal'],
      );
    } else {
      t.match(await client.until(/ok$/), /^HTTP\/1\.1 200 /);
      t.same(
        seen.map((text) => (JSON.parse(text) as { token: string }).token),
        [after],
      );
    }
    t.equal(path.buffers.used(), 0, 'nothing of the body is kept');
    client.socket.destroy();
  });

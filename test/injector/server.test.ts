import { once } from 'node:events';
import type { ClientRequest, IncomingMessage } from 'node:http';
import { request } from 'node:https';
import t, { type Test } from 'tap';
import { limits } from '../../src/core/limits.ts';
import { Secret } from '../../src/core/secret.ts';
import { startWebhookServer, type WebhookAnswer, type WebhookServer } from '../../src/injector/server.ts';
import { createTestAuthority } from '../support/certificates.ts';

const authority = createTestAuthority();

/** A server whose answer says how long the body was. `taken` resolves when so many bodies were whole. */
const started = async (t: Test, { gate = async (): Promise<void> => undefined, residentBytes = (): number => 0 } = {}) => {
  let count = 0;
  let seen = (): void => undefined;
  const mutate = async (body: string): Promise<WebhookAnswer> => {
    count += 1;
    seen();
    await gate();
    return { status: 200, body: `${body.length}` };
  };
  const server = await startWebhookServer({ host: '127.0.0.1', port: 0 }, mutate, { residentBytes });
  const { cert, key } = authority.serverFor('localhost');
  server.setCertificate({ certificatePem: cert, privateKeyPem: new Secret(key), notAfterMs: 0 });
  t.teardown(() => server.close());
  const taken = async (wanted: number): Promise<void> => {
    while (count < wanted) await new Promise<void>((resolve) => (seen = resolve));
  };
  return { ...server, taken };
};

const asking = (t: Test, { address }: Pick<WebhookServer, 'address'>): ClientRequest => {
  const { address: host, port } = address;
  const headers = { 'content-type': 'application/json', 'transfer-encoding': 'chunked' };
  const asked = request({ host, port, servername: 'localhost', ca: authority.pem, method: 'POST', path: '/mutate', headers, agent: false });
  asked.on('error', () => undefined);
  t.teardown(() => asked.destroy());
  return asked;
};

const answerOf = async (asked: ClientRequest) => {
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += chunk as string;
  return { status: response.statusCode, text, retryAfter: response.headers['retry-after'] };
};

const mebibyte = 1024 * 1024;
const fitting = limits.webhookLongBodiesBytesMax / mebibyte;

/** Bodies of a mebibyte each that are begun and not ended; the answers in the order in which they come. */
const begun = (t: Test, server: Pick<WebhookServer, 'address'>, count: number) => {
  const answers: Awaited<ReturnType<typeof answerOf>>[] = [];
  let seen = (): void => undefined;
  for (let i = 0; i < count; i += 1) {
    const asked = asking(t, server);
    void answerOf(asked).then(
      (answer) => {
        answers.push(answer);
        seen();
      },
      () => undefined,
    );
    asked.write(Buffer.alloc(mebibyte, ' '));
  }
  const answered = async (wanted: number): Promise<void> => {
    while (answers.length < wanted) await new Promise<void>((resolve) => (seen = resolve));
  };
  return { answers, answered };
};

const whole = (t: Test, server: Pick<WebhookServer, 'address'>, bytes: number) => {
  const asked = asking(t, server);
  const answer = answerOf(asked);
  asked.end(Buffer.alloc(bytes, ' '));
  return answer;
};

t.test('long bodies that are under way have a bound together: what does not fit is refused, to be tried again', async (t) => {
  const server = await started(t);
  const { answers, answered } = begun(t, server, fitting * 3);
  await answered(fitting * 2);
  t.strictSame([...new Set(answers.map(({ status, retryAfter }) => `${status} ${retryAfter}`))], ['503 1']);
});

t.test('while others hold all of it, the API server is served: whoever holds most is refused for it', async (t) => {
  const server = await started(t);
  const { answers, answered } = begun(t, server, fitting + 1);
  await answered(1);
  for (let i = 0; i < 10; i += 1) t.match(await whole(t, server, 20_000), { status: 200, text: '20000\n' });
  t.ok(answers.every(({ status }) => status === 503));
});

t.test('a body counts until it is answered, and no longer; one that is cut off counts no longer either', async (t) => {
  const gate = Promise.withResolvers<void>();
  const server = await started(t, { gate: () => gate.promise });
  const waiting = Array.from({ length: limits.webhookLongBodiesBytesMax / limits.webhookBodyBytesMax }, () =>
    whole(t, server, limits.webhookBodyBytesMax),
  );
  await server.taken(waiting.length);
  t.match(await whole(t, server, limits.webhookShortBodyBytesMax + 1), { status: 503, retryAfter: '1' });
  gate.resolve();
  for (const answer of waiting) t.match(await answer, { status: 200 });
  const cut = asking(t, server);
  cut.write(Buffer.alloc(limits.webhookBodyBytesMax - 1, ' '), () => cut.destroy());
  const all = Array.from({ length: waiting.length }, () => whole(t, server, limits.webhookBodyBytesMax));
  for (const answer of all) t.match(await answer, { status: 200 });
});

t.test('while memory is short there is room for one of the longest, and none beside it', async (t) => {
  const gate = Promise.withResolvers<void>();
  const looked = Promise.withResolvers<void>();
  const residentBytes = (): number => {
    looked.resolve();
    return limits.webhookMemoryHighBytes + 1;
  };
  const server = await started(t, { gate: () => gate.promise, residentBytes });
  await looked.promise;
  const longest = whole(t, server, limits.webhookBodyBytesMax);
  await server.taken(1);
  t.match(await whole(t, server, limits.webhookShortBodyBytesMax + 1), { status: 503, retryAfter: '1' });
  gate.resolve();
  t.match(await longest, { status: 200 });
  t.match(await whole(t, server, 1), { status: 200 });
});

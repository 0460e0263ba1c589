import { readFileSync } from 'node:fs';
import type { RequestListener, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import t from 'tap';
import { parseSettings } from '../../src/settings/document.ts';
import { field } from '../fakes/recorder.ts';
import { dial, exchange, secure, tunnelTo, wholeResponse } from '../support/path.ts';
import { type BrokerYaml, brokerYaml, eventually, host, metric, startStack } from '../support/stack.ts';

/** What the configuration is changed to, and back: a target more, a rule more, a target less. */
const newHost = 'new.outrider.test';
const target = (name: string, of: string): string =>
  `  - { name: ${name}, hosts: [${of}], ports: [80, 443], cleartext: allowed, credentials: [{ provider: ${name}-token, placement: { kind: bearer } }] }`;
const provider = (name: string): string => `  - { kind: jwt, name: ${name}-token, audience: "https://${name}.outrider.test" }`;
const rules = (...more: readonly string[]): string =>
  ['  - name: demo\n    rules:', '{ name: all, effect: allow, workloads: [demo-app] }', ...more].join('\n      - ');

const before: BrokerYaml = { providers: provider('echo'), targets: target('echo', host), policies: rules() };
const added: BrokerYaml = {
  providers: [provider('echo'), provider('new')].join('\n'),
  targets: [target('echo', host), target('new', newHost)].join('\n'),
  policies: rules(),
};
const edited: BrokerYaml = { ...added, policies: rules('{ name: closed, effect: deny, paths: ["/closed/**"] }') };

const rounds = 4;
const longChunks = 40;
const longBody = Array.from({ length: longChunks }, (_, i) => `${i}:${'x'.repeat(1_000)};`).join('');

/** Answers at once, except below /long: those are written piece by piece, as the test says. */
const createOrigin = () => {
  const open: ServerResponse[] = [];
  const answer: RequestListener = (request, response) => {
    if (!request.url?.startsWith('/long')) return void response.end('ok');
    response.write(longBody.slice(0, 10));
    open.push(response);
  };
  let written = 10;
  return {
    answer,
    open: () => open.length,
    /** A share of the rest, to each. */
    write: (share: number): void => {
      const until = 10 + Math.floor((longBody.length - 10) * share);
      for (const response of open) response.write(longBody.slice(written, until));
      written = until;
    },
    end: (): void => {
      for (const response of open) response.end(longBody.slice(written));
    },
  };
};

const requestFor = (name: string, path: string, authority: string): string => `GET ${authority}${path} HTTP/1.1\r\nHost: ${name}\r\n\r\n`;

t.test(
  'configuration comes into force under load without a failed request, a cut connection or a broken answer',
  { timeout: 90_000 },
  async (t) => {
    const origin = createOrigin();
    const stack = await startStack(t, { ...before, answer: origin.answer, onUnmatched: 'refuse', hosts: [newHost] });
    const { proxy, broker, files, issuer } = stack;
    const { port } = proxy.listen;
    const apply = (changes: BrokerYaml): void =>
      broker.apply(parseSettings(brokerYaml(files, issuer.url, changes), 'broker.yaml') as never);

    const plain = async (): Promise<Socket> => dial(port);
    const tunnelled = async (): Promise<Socket> =>
      secure((await tunnelTo(port, `${host}:443`)).socket, readFileSync(files.bundle, 'utf8'), host);
    const ask = async (name: string, path: string): Promise<string> => {
      const socket = await plain();
      const answer = await exchange(socket, requestFor(name, path, `http://${name}`), wholeResponse);
      socket.destroy();
      return answer;
    };

    // Load: connections that are kept, in clear text and inside interception, and connections made anew for each request.
    const failures: string[] = [];
    let count = 0;
    let isDone = false;
    const judge = (answer: string): void => {
      count += 1;
      if (!answer.startsWith('HTTP/1.1 200')) failures.push(answer);
    };
    const keeping = async (open: () => Promise<Socket>, authority: string): Promise<void> => {
      const socket = await open();
      while (!isDone) judge(await exchange(socket, requestFor(host, `/kept/${count}`, authority), wholeResponse));
      socket.destroy();
    };
    const anew = async (open: () => Promise<Socket>, authority: string): Promise<void> => {
      while (!isDone) {
        const socket = await open();
        judge(await exchange(socket, requestFor(host, `/anew/${count}`, authority), wholeResponse));
        socket.destroy();
      }
    };
    const load = Promise.all([
      ...Array.from({ length: 4 }, () => keeping(plain, `http://${host}`)),
      ...Array.from({ length: 4 }, () => keeping(tunnelled, '')),
      ...Array.from({ length: 2 }, () => anew(plain, `http://${host}`)),
      ...Array.from({ length: 2 }, () => anew(tunnelled, '')),
    ]);
    const loaded = async (): Promise<void> => {
      const sofar = count;
      await eventually(() => count >= sofar + 60);
    };

    // Long answers, one of them from the target that is going to be removed. They end when everything has changed several times.
    const long = async (name: string): Promise<string> => {
      const socket = await plain();
      const text = await exchange(socket, requestFor(name, '/long', `http://${name}`).replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'));
      return text.slice(text.indexOf('\r\n\r\n') + 4);
    };
    apply(added);
    await eventually(async () => (await ask(newHost, '/')).startsWith('HTTP/1.1 200'));
    const answers = [long(host), long(newHost), long(host)];
    await eventually(() => origin.open() === answers.length);
    apply(before);

    for (let round = 0; round < rounds; round += 1) {
      await loaded();
      await eventually(async () => (await ask(newHost, '/')).includes('"code":"destination_unmatched"'));
      apply(added);
      await eventually(async () => (await ask(newHost, '/')).startsWith('HTTP/1.1 200'));
      origin.write((round + 0.5) / rounds);
      await loaded();
      t.match(await ask(host, '/closed/door'), /^HTTP\/1\.1 200/);
      apply(edited);
      await eventually(async () => (await ask(host, '/closed/door')).includes('"code":"policy_denied"'));
      await loaded();
      apply(before);
    }
    await eventually(async () => (await ask(newHost, '/')).includes('"code":"destination_unmatched"'));
    isDone = true;
    await load;
    origin.end();

    t.comment(`${count} requests during ${1 + 3 * rounds} changes`);
    t.same(failures, []);
    for (const body of await Promise.all(answers)) t.ok(unchunked(body) === longBody, 'a long answer arrived whole');
    const tokens = stack.origin.requests
      .filter(({ rawHeaders }) => rawHeaders.includes(newHost))
      .map((request) => field(request, 'authorization'));
    t.ok(tokens.length > rounds, 'the new target was asked');
    for (const [token = '', ...more] of tokens) {
      t.same(more, []);
      t.match(JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()), { aud: 'https://new.outrider.test' });
    }
    await eventually(async () => (await metric(proxy.admin, 'outrider_proxy_events_queued')) === 0);
    const kinds = stack.events().map(({ kind }) => kind);
    const intents = kinds.filter((kind) => kind === 'intent').length;
    t.ok(intents > count);
    t.equal(kinds.filter((kind) => kind === 'outcome').length, intents, 'every intent has its outcome');
    t.ok((await metric(broker.admin, 'outrider_broker_configuration_reloads_total', 'result="ok"')) >= 3 * rounds);
  },
);

/** A chunked body without its framing (RFC 9112 section 7.1); '' for one that is cut. */
const unchunked = (body: string): string => {
  let whole = '';
  for (let at = 0; ; ) {
    const end = body.indexOf('\r\n', at);
    const size = Number.parseInt(body.slice(at, end), 16);
    if (end < 0 || Number.isNaN(size)) return '';
    if (size === 0) return whole;
    whole += body.slice(end + 2, end + 2 + size);
    at = end + 2 + size + 2;
  }
};

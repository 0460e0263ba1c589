import { createServer as createHttp2Server, type ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import zlib from 'node:zlib';
import t, { type Test } from 'tap';
import { limits } from '../../src/core/limits.ts';
import type { EchoTreatment } from '../../src/core/target.ts';
import { between, type Conversation, h2Over, host, outcomeOf, program, rawTarget, tunnel } from '../support/between.ts';
import { bearer, grantOf, target } from '../support/path.ts';

t.setTimeout(120_000);

/** A target that says what it was told, against the program that wants to hear it (THREATS E-9, S-5). */
const credential = 'sk-live-0a1B2c3D+4e5F/6g7H8i9J';
const grants = { get: () => grantOf(target('echo'), { credentials: [bearer(credential)] }) };
const spellings: Readonly<Record<string, string>> = {
  exact: credential,
  percent: encodeURIComponent(credential),
  hex: Buffer.from(credential).toString('hex'),
  base64: Buffer.from(`Bearer ${credential}`).toString('base64'),
  JSON: credential.replaceAll('/', '\\/'),
};
const none = new RegExp([credential, ...Object.values(spellings)].map((text) => text.slice(4, -4).replace(/[^\w]/g, '\\$&')).join('|'));

type Writes = (conversation: Conversation & { readonly socket: Socket }) => void | Promise<void>;

/** A target that answers every request so, and a program that asks it once. */
const setUp = async (t: Test, echo: EchoTreatment, writes: Writes) => {
  const server = rawTarget(async (target) => {
    await target.until(/\r\n\r\n$/);
    await writes(target);
  });
  const { path } = await between(t, server, { target: { echo }, grants });
  return path;
};

const ask = async (path: Awaited<ReturnType<typeof setUp>>): Promise<Conversation> => {
  const client = await program(path);
  client.say(`GET http://${host}/ HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
  return client;
};

const answerOf = async (t: Test, echo: EchoTreatment, writes: Writes): Promise<{ text: string; echoes: number; fault: string }> => {
  const path = await setUp(t, echo, writes);
  const client = await ask(path);
  await client.end;
  const { outcome } = await outcomeOf(path);
  t.notMatch(JSON.stringify([path.events, path.logs, await path.metrics()]), none, 'nothing of it is recorded');
  return { text: client.text(), echoes: outcome?.echoes ?? -1, fault: outcome?.fault ?? '' };
};

const close = 'Connection: close\r\n';
const withLength = (body: string | Buffer, fields = ''): Buffer =>
  Buffer.concat([Buffer.from(`HTTP/1.1 200 OK\r\n${fields}${close}Content-Length: ${body.length}\r\n\r\n`), Buffer.from(body)]);

/** Where an answer can say it, each with the number of hits. */
const places: Readonly<Record<string, (text: string) => string>> = {
  'a field': (text) => `HTTP/1.1 200 OK\r\nX-Echo: got ${text}!\r\n${close}Content-Length: 2\r\n\r\nok`,
  'a redirect': (text) => `HTTP/1.1 302 Found\r\nLocation: https://elsewhere.test/?a=1&token=${text}\r\n${close}Content-Length: 0\r\n\r\n`,
  'a cookie': (text) => `HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: s=${text}; Path=/\r\n${close}Content-Length: 0\r\n\r\n`,
  'the reason phrase': (text) => `HTTP/1.1 400 Bad token ${text}\r\n${close}Content-Length: 0\r\n\r\n`,
  'an interim answer': (text) => `HTTP/1.1 103 Early Hints\r\nLink: <${text}>\r\n\r\nHTTP/1.1 200 OK\r\n${close}Content-Length: 0\r\n\r\n`,
  'a body': (text) => withLength(`{"headers":{"authorization":"Bearer ${text}"}}`).toString('latin1'),
  'a chunked body': (text) =>
    `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n${close}\r\n${`you sent ${text}.`.replace(/./g, '1\r\n$&\r\n')}0\r\n\r\n`,
  'a trailer': (text) =>
    `HTTP/1.1 200 OK\r\nTrailer: X-End\r\nTransfer-Encoding: chunked\r\n${close}\r\n2\r\nok\r\n0\r\nX-End: ${text}\r\n\r\n`,
  'the name of a field': (text) =>
    `HTTP/1.1 200 OK\r\n${text.replace(/=+$/, '').replaceAll('\\', '').replaceAll('/', '_')}: 1\r\n${close}Content-Length: 2\r\n\r\nok`,
};

for (const [place, write] of Object.entries(places)) {
  t.test(`a credential in ${place} of the answer is written over, in every spelling`, async (t) => {
    for (const [name, spelled] of Object.entries(spellings)) {
      const { text, echoes, fault } = await answerOf(t, 'redact', ({ say }) => say(write(spelled)));
      t.notMatch(text, none, name);
      t.match({ echoes, fault }, { echoes: 1, fault: '' }, name);
      if (place !== 'the name of a field' && place !== 'a chunked body') t.match(text, /\*{20,}/, name);
    }
  });

  t.test(`a credential in ${place} of the answer refuses it where that is wanted`, async (t) => {
    const { text, echoes, fault } = await answerOf(t, 'refuse', ({ say }) => say(write(credential)));
    t.notMatch(text, none);
    t.match({ echoes, fault }, { echoes: 1, fault: 'target_echoed' });
    // What goes out before it is known cannot be taken back: then the answer is broken off.
    if (place === 'a trailer' || place === 'a chunked body') t.notMatch(text, /\r\n0\r\n/, 'not whole');
    else t.match(text, /HTTP\/1\.1 502 Bad Gateway\r\n[^]*"code":"target_echoed"/);
  });

  t.test(`a credential in ${place} of the answer passes where that is configured`, async (t) => {
    const { text, echoes } = await answerOf(t, 'pass', ({ say }) => say(write(credential)));
    t.match(
      place === 'a chunked body' ? text.replaceAll(/\r\n1\r\n/g, '') : text,
      place === 'the name of a field' ? /sk-live/ : credential,
    );
    t.equal(echoes, 0);
  });
}

const codings: Readonly<Record<string, (body: Buffer) => Buffer>> = {
  gzip: (body) => zlib.gzipSync(body),
  deflate: (body) => zlib.deflateSync(body),
  'deflate without a header': (body) => zlib.deflateRawSync(body),
  br: (body) => zlib.brotliCompressSync(body),
  zstd: (body) => zlib.zstdCompressSync(body),
};
const codingField = (name: string): string => `Content-Encoding: ${name.split(' ')[0]}\r\n`;

for (const [coding, compress] of Object.entries(codings)) {
  t.test(`${coding}: a compressed answer is searched, and one with the credential is refused`, async (t) => {
    for (const echo of ['redact', 'refuse'] as const) {
      const innocent = compress(Buffer.from(JSON.stringify({ all: 'well', list: Array.from({ length: 500 }, (_, i) => i) })));
      const path = await setUp(t, echo, ({ say }) => say(withLength(innocent, codingField(coding))));
      const client = await ask(path);
      await client.end;
      t.ok(Buffer.from(client.text(), 'latin1').subarray(-innocent.length).equals(innocent), 'what is well goes as it came');
      t.match((await outcomeOf(path)).outcome, { status: 200, echoes: 0, fault: '' });
      const told = compress(Buffer.from(`{"authorization":"Bearer ${credential}"}`));
      const { text, echoes, fault } = await answerOf(t, echo, ({ say }) => say(withLength(told, codingField(coding))));
      t.match({ echoes, fault }, { echoes: 1, fault: 'target_echoed' });
      t.match(text, /^HTTP\/1\.1 502 [^]*"code":"target_echoed"/, 'before anything of it went');
    }
  });

  t.test(`${coding}: nothing goes on that has not been searched, wherever the stream is cut`, async (t) => {
    const body = Buffer.from(`${'x'.repeat(50)} ${credential} ${'y'.repeat(50)}`);
    const compressed = compress(body);
    const unpack = { gzip: zlib.gunzipSync, deflate: zlib.inflateSync, br: zlib.brotliDecompressSync, zstd: zlib.zstdDecompressSync }[
      coding.split(' ')[0] as string
    ] as (bytes: Buffer, options: object) => Buffer;
    let cut = 0;
    const path = await setUp(t, 'redact', async ({ say, socket }) => {
      say(`HTTP/1.1 200 OK\r\n${codingField(coding)}${close}\r\n`);
      say(compressed.subarray(0, cut));
      await new Promise((resolve) => setImmediate(resolve));
      say(compressed.subarray(cut));
      socket.end();
    });
    for (cut = 1; cut < compressed.length; cut += 1) {
      const client = await ask(path);
      await client.end;
      const text = client.text();
      t.equal((await outcomeOf(path, cut)).outcome?.fault, 'target_echoed');
      if (!text.startsWith('HTTP/1.1 200')) continue;
      const sent = Buffer.from(text.slice(text.indexOf('\r\n\r\n') + 4).replaceAll(/[\da-f]+\r\n/g, ''), 'latin1');
      let seen = '';
      try {
        seen = unpack(sent, { finishFlush: zlib.constants.Z_SYNC_FLUSH }).toString();
      } catch {
        // Nothing can be read from so little.
      }
      t.notMatch(seen, credential.slice(0, 12), `cut at ${cut}`);
    }
  });
}

t.test('what cannot be decoded within bounds passes, counted, or is refused', async (t) => {
  const bomb = zlib.gzipSync(Buffer.alloc(4 * 1024 * 1024));
  const cases: Record<string, [Buffer, string, string]> = {
    'a coding that nobody knows': [Buffer.from('?'.repeat(100)), 'Content-Encoding: lzma\r\n', 'encoding'],
    'two codings': [zlib.gzipSync(zlib.gzipSync(Buffer.from('a'))), 'Content-Encoding: gzip, gzip\r\n', 'encoding'],
    'no gzip at all': [Buffer.from('plainly not gzip'), 'Content-Encoding: gzip\r\n', 'encoding'],
    'half of it': [zlib.gzipSync(Buffer.from('whole'.repeat(100))).subarray(0, -8), 'Content-Encoding: gzip\r\n', 'encoding'],
    'something after it': [
      Buffer.concat([zlib.gzipSync(Buffer.from('a')), Buffer.from(credential)]),
      'Content-Encoding: gzip\r\n',
      'encoding',
    ],
    'a bomb': [bomb, 'Content-Encoding: gzip\r\n', 'expansion'],
  };
  for (const [name, [body, fields, reason]] of Object.entries(cases)) {
    const path = await setUp(t, 'redact', ({ say }) => say(withLength(body, fields)));
    const client = await ask(path);
    await client.end;
    t.ok(Buffer.from(client.text(), 'latin1').subarray(-body.length).equals(body), name);
    t.match(await path.metrics(), new RegExp(`outrider_proxy_answers_unsearched_total\\{target="echo",reason="${reason}"\\} 1`), name);
    const { text, fault } = await answerOf(t, 'refuse', ({ say }) => say(withLength(body, fields)));
    t.equal(fault, 'target_unsearchable', name);
    // That it ends too early is known when it ends.
    if (name !== 'half of it') t.match(text, /^HTTP\/1\.1 502 /, name);
  }
});

t.test('decoders take their share of the memory that is there for bodies, and give it back', async (t) => {
  const path = await setUp(t, 'redact', ({ say }) =>
    say(withLength(zlib.brotliCompressSync(Buffer.from('well'.repeat(100))), 'Content-Encoding: br\r\n')),
  );
  path.buffers.take(limits.heldBytesTotalMax - limits.echoDecoderBytes + 1);
  await (await ask(path)).end;
  t.match((await outcomeOf(path)).outcome, { status: 200, fault: '' });
  t.match(await path.metrics(), /answers_unsearched_total\{target="echo",reason="busy"\} 1/);
  path.buffers.give(1);
  await (await ask(path)).end;
  await outcomeOf(path, 2);
  t.notMatch(await path.metrics(), /answers_unsearched_total\{target="echo",reason="busy"\} 2/);
  t.equal(path.buffers.used(), limits.heldBytesTotalMax - limits.echoDecoderBytes);
});

t.test('a long answer is searched up to the bound and goes on after it', async (t) => {
  const before = Buffer.from(`${'a'.repeat(limits.echoScanBytesMax - 100)}${credential}`);
  const after = Buffer.from('b'.repeat(200_000));
  for (const echo of ['redact', 'refuse'] as const) {
    const path = await setUp(t, echo, ({ say }) => say(withLength(Buffer.concat([before, after]))));
    const client = await ask(path);
    await client.end;
    t.notMatch(client.text(), none);
    t.equal((await outcomeOf(path)).outcome?.fault, echo === 'refuse' ? 'target_echoed' : '');
    if (echo === 'redact') t.ok(client.text().endsWith(`${'*'.repeat(credential.length)}${after.toString()}`));
  }
  const long = zlib.gzipSync(Buffer.from(Array.from({ length: 300_000 }, (_, i) => `${(i * 7919) % 100_003}`).join()));
  const path = await setUp(t, 'refuse', ({ say }) => say(withLength(long, 'Content-Encoding: gzip\r\n')));
  const client = await ask(path);
  await client.end;
  t.ok(Buffer.from(client.text(), 'latin1').subarray(-long.length).equals(long), 'compressed, too');
  t.match(await path.metrics(), /answers_unsearched_total\{target="echo",reason="size"\} 1/);
});

t.test('events are delivered as they come, and only what may begin the credential waits for the next bytes', async (t) => {
  const steps: (() => void)[] = [];
  const step = (): void => steps.shift()?.();
  for (const [fields, write] of [
    ['', (text: string) => Buffer.from(text)],
    ['Content-Encoding: gzip\r\n', undefined],
    ['Content-Encoding: gzip\r\nContent-Type: application/x-ndjson\r\n', undefined],
  ] as const) {
    const path = await setUp(t, 'redact', async ({ say, socket }) => {
      const gzip = zlib.createGzip();
      gzip.on('data', say);
      const send = write
        ? (text: string) => say(write(text))
        : (text: string) => {
            gzip.write(text);
            gzip.flush();
          };
      say(`HTTP/1.1 200 OK\r\n${fields}${close}\r\n`);
      for (const text of ['data: one\n\n', 'data: two sk-li', 'nen\n\n']) {
        await new Promise<void>((resolve) => steps.push(resolve));
        send(text);
      }
      await new Promise<void>((resolve) => steps.push(resolve));
      socket.end();
    });
    const client = await ask(path);
    await client.until(/\r\n\r\n/);
    t.notMatch(client.text(), /\r\n\r\n./, 'the head does not wait for an event');
    step();
    if (fields === '') {
      await client.until(/data: one\n\n/);
      step();
      await client.until(/data: two \r\n/);
      t.notMatch(client.text(), /sk-li/);
      step();
      await client.until(/sk-linen\n\n/);
    } else {
      await client.until(/\r\n\r\n[^]+\r\n/);
      step();
      while (steps.length === 0) await new Promise(setImmediate);
      step();
      while (steps.length === 0) await new Promise(setImmediate);
    }
    while (steps.length === 0) await new Promise(setImmediate);
    step();
    await client.end;
    t.match((await outcomeOf(path)).outcome, { status: 200, fault: '', echoes: 0 });
  }
});

t.test('a prompt that ends like a credential begins is there after a moment, and the rest of a credential is not', async (t) => {
  let more = (): void => undefined;
  const path = await setUp(t, 'redact', async ({ say, socket }) => {
    say(`HTTP/1.1 200 OK\r\n${close}\r\nname: s`);
    await new Promise<void>((resolve) => (more = resolve));
    say(credential.slice(1));
    socket.end();
  });
  const client = await ask(path);
  await client.until(/name: s$|s\r\n$/);
  more();
  await client.until(/\*{20,}/);
  t.notMatch(client.text(), none);
  t.equal((await outcomeOf(path)).outcome?.echoes, 1);
});

t.test('answers without a body, and ranges, keep their heads as they are', async (t) => {
  for (const head of [
    'HTTP/1.1 204 No Content\r\nETag: "a"\r\n',
    'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Encoding: gzip\r\n',
    'HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2\r\n',
  ]) {
    const { text, fault } = await answerOf(t, 'refuse', ({ say }) => say(`${head}${close}\r\n${head.includes('206') ? 'ok' : ''}`));
    t.equal(fault, '');
    for (const line of head.split('\r\n').filter((one) => one !== '')) t.ok(text.includes(line), line);
  }
});

t.test('the head of an upgrade is searched, what follows is not and is counted', async (t) => {
  for (const echo of ['redact', 'refuse'] as const) {
    const path = await setUp(t, echo, ({ say }) =>
      say(`HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\nX-Echo: ${credential}\r\n\r\nhello`),
    );
    const client = await program(path);
    client.say(`GET http://${host}/ HTTP/1.1\r\nHost: ${host}\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n`);
    if (echo === 'redact') {
      await client.until(/^HTTP\/1\.1 101 [^]*\*{30}\r\n[^]*hello$/);
      t.match(await path.metrics(), /answers_unsearched_total\{target="echo",reason="upgrade"\} 1/);
      client.socket.destroy();
    } else await client.until(/^HTTP\/1\.1 502 [^]*target_echoed/);
    t.notMatch(client.text(), none);
    t.match((await outcomeOf(path)).outcome, { echoes: 1 });
  }
});

t.test('HTTP/2 to HTTP/2: head, body and trailers, in frames of every size', async (t) => {
  const answer = (stream: ServerHttp2Stream, size: number): void => {
    stream.respond({ ':status': 200, 'x-echo': credential }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-message': encodeURIComponent(credential) }));
    const body = Buffer.from(`you sent ${credential}!`);
    for (let at = 0; at < body.length; at += size) stream.write(body.subarray(at, at + size));
    stream.end();
  };
  let size = 1;
  for (const echo of ['redact', 'refuse'] as const) {
    const server = createHttp2Server();
    server.on('stream', (stream) => answer(stream, size));
    const { path } = await between(t, server, { target: { echo, protocol: 'h2' }, grants });
    const session = h2Over(t, await tunnel(path, `${host}:80`));
    for (size = 1; size < 50; size += 7) {
      const stream = session.request({ ':path': '/', ':authority': host, ':scheme': 'http' });
      let text = '';
      stream.on('response', (headers) => (text += JSON.stringify(headers)));
      stream.on('trailers', (headers) => (text += JSON.stringify(headers)));
      stream.setEncoding('latin1');
      for await (const chunk of stream) text += chunk as string;
      t.notMatch(text, none);
      t.match(text, echo === 'redact' ? /"x-echo":"\*{30}"[^]*you sent \*{30}!/ : /502[^]*target_echoed/);
      if (echo === 'redact') t.match(text, /"grpc-message":"\*{30,}"/);
    }
    const outcomes = path.events.filter(({ kind }) => kind === 'outcome');
    t.ok(outcomes.every(({ outcome }) => outcome?.echoes === (echo === 'redact' ? 3 : 1)));
  }
});

t.test('a target that keeps repeating it is told of in the log once, and counted each time', async (t) => {
  const path = await setUp(t, 'redact', ({ say }) => say(withLength(`<${credential}> <${credential}>`)));
  for (let i = 0; i < 5; i += 1) await (await ask(path)).end;
  await outcomeOf(path, 5);
  t.equal(path.logs.filter((line) => line.includes('answers with the credential')).length, 1);
  t.match(await path.metrics(), /outrider_proxy_echoes_total\{target="echo",action="redacted"\} 10/);
});

t.test('a bomb of 10 GiB costs neither its memory nor its time', async (t) => {
  // Members of 10 MiB each, the same one again and again: the target sends 10 MiB in all.
  for (const [coding, compress] of [
    ['gzip', zlib.gzipSync],
    ['zstd', zlib.zstdCompressSync],
  ] as const) {
    const member = compress(Buffer.alloc(10 * 1024 * 1024));
    let sent = 0;
    const path = await setUp(t, 'redact', async ({ say, socket }) => {
      say(`HTTP/1.1 200 OK\r\nContent-Encoding: ${coding}\r\n${close}\r\n`);
      for (let i = 0; i < 1_024; i += 1) {
        sent += member.length;
        if (!socket.write(member)) await new Promise((resolve) => socket.once('drain', resolve));
      }
      socket.end();
    });
    const client = await program(path);
    let received = 0;
    client.socket.removeAllListeners('data');
    client.socket.on('data', (chunk: Buffer) => (received += chunk.length));
    const before = process.memoryUsage.rss();
    let most = before;
    const watching = setInterval(() => (most = Math.max(most, process.memoryUsage.rss())), 2);
    client.say(`GET http://${host}/ HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
    await client.end;
    clearInterval(watching);
    const { outcome } = await outcomeOf(path);
    t.match(outcome, { status: 200, fault: '', responseBodyBytes: sent });
    t.ok(received >= sent, 'it passes as it is');
    t.match(await path.metrics(), /answers_unsearched_total\{target="echo",reason="expansion"\} 1/);
    t.comment(
      `${coding}: ${(sent / 1024 / 1024).toFixed(1)} MiB for 10 GiB, resident memory grew by ${((most - before) / 1024 / 1024).toFixed(1)} MiB`,
    );
    t.ok(most - before < 32 * 1024 * 1024);
  }
});

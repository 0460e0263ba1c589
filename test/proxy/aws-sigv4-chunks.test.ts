/**
 * Uploads that are signed chunk by chunk (aws-chunked): every signature in the body is replaced as it passes, whatever the program cut it into,
 * and what is not exactly that framing breaks the exchange off.
 */
import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import t from 'tap';
import { createBudget } from '../../src/core/budget.ts';
import { hostField } from '../../src/core/destination.ts';
import { Fault } from '../../src/core/fault.ts';
import type { AwsPlacement } from '../../src/core/grant.ts';
import type { HeaderList } from '../../src/core/headers.ts';
import { limits } from '../../src/core/limits.ts';
import type { Prepared } from '../../src/proxy/exchange.ts';
import { inject, needsWholeBody } from '../../src/proxy/inject.ts';
import { verifyAws } from '../support/aws-verifier.ts';
import { asking, bodyIn, context, credential } from '../support/injection.ts';

const keys = {
  accessKeyId: `TEST${randomBytes(8).toString('hex').toUpperCase()}`,
  secretAccessKey: randomBytes(30).toString('base64'),
  sessionToken: '',
};
const nowMs = Date.parse('2026-11-22T08:30:00Z');
const destination = { host: 'bucket.s3.eu-west-1.amazonaws.com' };

type Algorithm = AwsPlacement['algorithm'];
const spelled = { sigv4: 'AWS4-HMAC-SHA256', sigv4a: 'AWS4-ECDSA-P256-SHA256' };
const oldSignature = (algorithm: Algorithm): string => (algorithm === 'sigv4' ? 'a'.repeat(64) : `3045${'b'.repeat(136)}****`);

interface Upload {
  readonly algorithm?: Algorithm;
  readonly hasTrailer?: boolean;
  readonly headers?: HeaderList;
  readonly buffers?: ReturnType<typeof createBudget>;
  readonly held?: Uint8Array;
  /** What the target takes; as the program signed unless given. */
  readonly wanted?: Algorithm;
}

/** The request that goes out for a body which arrives in these pieces. */
const upload = (pieces: readonly Uint8Array[] | AsyncIterable<Uint8Array>, given: Upload = {}): Prepared => {
  const {
    algorithm = 'sigv4',
    hasTrailer = false,
    headers = [],
    buffers = createBudget(limits.heldBytesTotalMax),
    wanted = algorithm,
  } = given;
  const payload = `STREAMING-${spelled[algorithm]}-PAYLOAD${hasTrailer ? '-TRAILER' : ''}`;
  const credentials = credential(
    { kind: 'aws_sigv4', algorithm: wanted, service: '', region: '' },
    JSON.stringify({ AccessKeyId: keys.accessKeyId, SecretAccessKey: keys.secretAccessKey }),
  );
  const asked = {
    method: 'PUT',
    path: '/key',
    destination,
    headers: [['x-amz-content-sha256', payload], ['Content-Encoding', 'aws-chunked'], ...headers] as HeaderList,
  };
  const source = Symbol.asyncIterator in pieces ? { ...bodyIn([]), chunks: pieces } : bodyIn(pieces);
  const body = given.held === undefined ? source : { ...source, held: given.held };
  const request = { ...asking(asked, credentials), body };
  t.notOk(needsWholeBody(request));
  return inject(request, { ...context, nowMs, buffers });
};

const bytesOf = async (prepared: Prepared): Promise<Buffer> => {
  const parts: Uint8Array[] = [];
  for await (const part of prepared.body?.chunks ?? []) parts.push(part);
  return Buffer.concat(parts);
};

const framed = (chunks: readonly Buffer[], algorithm: Algorithm, trailer = ''): Buffer => {
  const signature = oldSignature(algorithm);
  return Buffer.concat([
    ...chunks.flatMap((data) => [Buffer.from(`${data.length.toString(16)};chunk-signature=${signature}\r\n`), data, Buffer.from('\r\n')]),
    Buffer.from(`0;chunk-signature=${signature}\r\n${trailer === '' ? '' : `${trailer}x-amz-trailer-signature:${signature}\r\n`}\r\n`),
  ]);
};

const cutAt = (whole: Buffer, cuts: readonly number[]): Buffer[] => {
  const places = [0, ...cuts.map((cut) => cut % (whole.length + 1)).toSorted((a, b) => a - b), whole.length];
  return places.slice(1).map((end, i) => whole.subarray(places[i], end));
};

const seed = Date.now();
t.comment(`seed ${seed}`);

t.test('every chunk and the trailer verify, however the body is cut, and its length stays', async (t) => {
  const cases = fc.record({
    chunks: fc.array(fc.uint8Array({ minLength: 1, maxLength: 300 }), { maxLength: 5 }),
    cuts: fc.array(fc.nat({ max: 3_000 }), { maxLength: 12 }),
    algorithm: fc.constantFrom('sigv4' as const, 'sigv4a' as const),
    trailer: fc.constantFrom('', 'x-amz-checksum-crc32c:sOO8/Q==\r\n', 'x-amz-checksum-sha256: a b \r\nX-Amz-Checksum-CRC32:AAAAAA==\r\n'),
  });
  await fc.assert(
    fc.asyncProperty(cases, async ({ chunks, cuts, algorithm, trailer }) => {
      const data = chunks.map((chunk) => Buffer.from(chunk));
      const content = Buffer.concat(data);
      const whole = framed(data, algorithm, trailer);
      const buffers = createBudget(limits.heldBytesTotalMax);
      const headers: HeaderList = [
        ['Content-Length', String(whole.length)],
        ['x-amz-decoded-content-length', String(content.length)],
      ];
      const prepared = upload(cutAt(whole, cuts), { algorithm, hasTrailer: trailer !== '', headers, buffers });
      const body = await bytesOf(prepared);
      if (body.length !== whole.length) throw new Error(`${whole.length} bytes became ${body.length}`);
      // As canonical fields: lower case, without blanks at the ends, in order.
      const canonical = trailer.startsWith('x-amz-checksum-sha256')
        ? 'x-amz-checksum-crc32:AAAAAA==\nx-amz-checksum-sha256:a b\n'
        : undefined;
      const request = {
        method: 'PUT',
        url: prepared.path,
        headers: [['host', hostField(prepared.destination)] as const, ...prepared.headers],
      };
      const verdict = await verifyAws({ ...request, body: canonical === undefined ? body : withTrailer(body, canonical) }, keys, {
        service: 's3',
        region: 'eu-west-1',
        nowMs,
      });
      if (verdict.problems.length > 0) throw new Error(verdict.problems.join('\n'));
      if (!verdict.content.equals(content)) throw new Error('another content');
      if (body.includes(oldSignature(algorithm))) throw new Error('an old signature is left');
      if (buffers.used() !== 0) throw new Error(`${buffers.used()} bytes are still held`);
    }),
    { seed, numRuns: 400 },
  );
  t.pass('all verified');
});

/** The verifier hashes a trailer as it stands: its canonical form is put there. */
const withTrailer = (body: Buffer, canonical: string): Buffer => {
  const text = body.toString('latin1');
  const start = text.lastIndexOf('\r\nx-amz-checksum-sha256') + 2;
  const end = text.indexOf('x-amz-trailer-signature');
  return Buffer.from(text.slice(0, start) + canonical.replaceAll('\n', '\r\n') + text.slice(end), 'latin1');
};

const failure = async (body: string | readonly Uint8Array[], given: Upload = {}): Promise<string> => {
  const buffers = given.buffers ?? createBudget(limits.heldBytesTotalMax);
  const before = buffers.used();
  try {
    await bytesOf(upload(typeof body === 'string' ? [Buffer.from(body, 'latin1')] : body, { ...given, buffers }));
    return 'none';
  } catch (thrown) {
    t.equal(buffers.used(), before, 'what was held is given back');
    if (thrown instanceof Fault) return thrown.code;
    throw thrown;
  }
};

t.test('what is not exactly this framing breaks the exchange off', async (t) => {
  const s = oldSignature('sigv4');
  const last = `0;chunk-signature=${s}\r\n\r\n`;
  const rows: Readonly<Record<string, string>> = {
    nothing: '',
    'no signature': '1\r\na\r\n0\r\n\r\n',
    'another extension': `1;chunk-signature=${s};x=1\r\na\r\n${last}`,
    'another extension first': `1;x=1;chunk-signature=${s}\r\na\r\n${last}`,
    'a short signature': `1;chunk-signature=${s.slice(1)}\r\na\r\n${last}`,
    'a long signature': `1;chunk-signature=${s}a\r\na\r\n${last}`,
    'a padded signature': `1;chunk-signature=${s.slice(1)}*\r\na\r\n${last}`,
    'a signature and padding': `1;chunk-signature=${s}*\r\na\r\n${last}`,
    'a signature in capitals': `1;chunk-signature=${s.toUpperCase()}\r\na\r\n${last}`,
    'a negative size': `-1;chunk-signature=${s}\r\na\r\n${last}`,
    'a size with a prefix': `0x1;chunk-signature=${s}\r\na\r\n${last}`,
    'a size that overflows': `fffffffff;chunk-signature=${s}\r\na\r\n${last}`,
    'a blank before the size': ` 1;chunk-signature=${s}\r\na\r\n${last}`,
    'a bare line feed': `1;chunk-signature=${s}\na\n${last}`,
    'data longer than the size': `1;chunk-signature=${s}\r\nab\r\n${last}`,
    'data shorter than the size': `3;chunk-signature=${s}\r\na\r\n${last}`,
    'no last chunk': `1;chunk-signature=${s}\r\na\r\n`,
    'no end': `0;chunk-signature=${s}\r\n`,
    'something after the end': `${last}x`,
    'a second end': `${last}${last}`,
    'a trailer that was not announced': `0;chunk-signature=${s}\r\nx-a:1\r\nx-amz-trailer-signature:${s}\r\n\r\n`,
    'a line without an end': '1'.repeat(10_000),
  };
  for (const [what, body] of Object.entries(rows)) t.equal(await failure(body), 'framing_invalid', what);
  t.equal(await failure(last), 'none');
  const bare = oldSignature('sigv4a').replace(/\*+$/, '');
  const unpadded = `0;chunk-signature=${bare}\r\n\r\n`;
  t.equal(await failure(unpadded, { algorithm: 'sigv4a' }), 'framing_invalid', 'a signature of version 4a without its padding');
  const trailers: Readonly<Record<string, string>> = {
    'no trailer': '',
    'no signature': 'x-a:1\r\n',
    'a short signature': `x-a:1\r\nx-amz-trailer-signature:${s.slice(1)}\r\n`,
    'something after the signature': `x-amz-trailer-signature:${s}\r\nx-a:1\r\n`,
    'no name': `:1\r\nx-amz-trailer-signature:${s}\r\n`,
    'a name with a blank': `x a:1\r\nx-amz-trailer-signature:${s}\r\n`,
    'a control character': `x-a:\u0001\r\nx-amz-trailer-signature:${s}\r\n`,
    'a trailer without an end': `x-a:${'1'.repeat(limits.awsTrailerBytesMax)}\r\nx-amz-trailer-signature:${s}\r\n`,
    'fields without an end': `${'x-a:1\r\n'.repeat(limits.awsTrailerBytesMax / 7 + 1)}x-amz-trailer-signature:${s}\r\n`,
  };
  for (const [what, trailer] of Object.entries(trailers)) {
    t.equal(await failure(`0;chunk-signature=${s}\r\n${trailer}\r\n`, { hasTrailer: true }), 'framing_invalid', `trailer: ${what}`);
  }
});

t.test('the content is as long as was announced', async (t) => {
  const body = framed([Buffer.from('hello')], 'sigv4').toString('latin1');
  const announcing = (length: string): Upload => ({ headers: [['x-amz-decoded-content-length', length]] });
  t.equal(await failure(body, announcing('5')), 'none');
  t.equal(await failure(body, announcing('4')), 'framing_invalid');
  t.equal(await failure(body, announcing('6')), 'framing_invalid');
  t.throws(() => upload([], announcing('5 ')), { code: 'framing_invalid' });
});

t.test('a chunk is held up to its bound and within the budget of all requests', async (t) => {
  const largest = framed([Buffer.alloc(limits.awsChunkBytesMax)], 'sigv4');
  t.equal(await failure(cutAt(largest, [65_536, 131_072])), 'none');
  const larger = framed([Buffer.alloc(limits.awsChunkBytesMax + 1)], 'sigv4');
  t.equal(await failure(cutAt(larger, [100])), 'body_too_large');
  const crowded = createBudget(1_000);
  crowded.take(900);
  t.equal(await failure([framed([Buffer.alloc(101)], 'sigv4')], { buffers: crowded }), 'overloaded');
  t.equal(await failure([framed([Buffer.alloc(100), Buffer.alloc(100)], 'sigv4')], { buffers: crowded }), 'none', 'one chunk at a time');
});

t.test('nothing of a chunk goes out before it is complete, and a target that wants no more lets go of the program', async (t) => {
  const s = oldSignature('sigv4');
  let isLetGo = false;
  const waiting = Promise.withResolvers<IteratorResult<Uint8Array>>();
  const pieces = [Buffer.from(`4;chunk-signature=${s}\r\nab`), Buffer.from(`cd\r\n4;chunk-signature=${s}\r\nab`)];
  const body: AsyncIterable<Uint8Array> = {
    [Symbol.asyncIterator]: () => ({
      next: () => {
        const value = pieces.shift();
        return value === undefined ? waiting.promise : Promise.resolve({ done: false, value });
      },
      return: async () => {
        isLetGo = true;
        waiting.resolve({ done: true, value: undefined });
        return { done: true, value: undefined };
      },
    }),
  };
  const buffers = createBudget(1_000);
  const reading = (upload(body, { buffers }).body as NonNullable<Prepared['body']>).chunks[Symbol.asyncIterator]();
  const first = await reading.next();
  t.match(Buffer.from(first.value as Uint8Array).toString(), /^4;chunk-signature=[0-9a-f]{64}\r\nabcd\r\n$/);
  const second = reading.next();
  await reading.return?.();
  t.ok(isLetGo);
  await t.rejects(second, { code: 'framing_invalid' }, 'what was not complete was not sent');
  t.equal(buffers.used(), 0);
});

t.test('a program that breaks off breaks the upload off', async (t) => {
  const body = (async function* () {
    yield Buffer.from(`4;chunk-signature=${oldSignature('sigv4')}\r\nab`);
    throw new Fault('client_closed');
  })();
  const buffers = createBudget(1_000);
  await t.rejects(bytesOf(upload(body, { buffers })), { code: 'client_closed' });
  t.equal(buffers.used(), 0);
});

t.test('a body that was read before, to be sent again, is signed anew each time and no longer counts as read', async (t) => {
  const whole = framed([Buffer.from('hello')], 'sigv4');
  const again: AsyncIterable<Uint8Array> = {
    async *[Symbol.asyncIterator]() {
      yield whole;
    },
  };
  const prepared = upload(again, { held: whole });
  t.notOk(prepared.body?.held, 'what is held is not what is sent');
  const first = await bytesOf(prepared);
  t.ok((await bytesOf(prepared)).equals(first));
});

t.test('chunks signed by another algorithm than the target takes are refused before anything is sent', async (t) => {
  t.throws(() => upload([framed([], 'sigv4')], { wanted: 'sigv4a' }), { code: 'signature_unsupported' });
  t.throws(() => upload([framed([], 'sigv4a')], { algorithm: 'sigv4a', wanted: 'sigv4' }), { code: 'signature_unsupported' });
});

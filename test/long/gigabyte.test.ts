import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import t from 'tap';
import { buildBundle } from '../../scripts/build.ts';
import { secure, tunnelTo } from '../support/path.ts';
import { fromBundle, residentMiB, startRole } from '../support/processes.ts';
import { brokerYaml, collectorYaml, host, prepareStack, proxyYaml } from '../support/stack.ts';

t.setTimeout(600_000);

/** A gibibyte down and one up through the proxy of the bundle, a process of its own, TLS on both hops: the hash is equal, memory is bounded. */
const gibibyte = 1024 ** 3;
/** The proxy's resident memory at its highest, MiB. */
const peakMiBMax = 256;

/** A gibibyte that is random but made of one block, so that making it costs little. */
const randomGibibyte = function* (): Generator<Buffer> {
  const block = randomBytes(1024 * 1024);
  for (let sent = 0; sent < gibibyte; sent += block.length) yield block;
};
const hashing = (hash: ReturnType<typeof createHash>, onBytes: (count: number) => void): Writable =>
  new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      hash.update(chunk);
      onBytes(chunk.length);
      done();
    },
  });

t.test('1 GiB each way with the hash equal and the memory of the proxy bounded', { timeout: 600_000 }, async (t) => {
  let sentHash = '';
  let receivedHash = '';
  const stack = await prepareStack(t, (request, response) => {
    if (request.method === 'GET') {
      const hash = createHash('sha256');
      const blocks = function* (): Generator<Buffer> {
        for (const block of randomGibibyte()) {
          hash.update(block);
          yield block;
        }
        sentHash = hash.digest('hex');
      };
      response.writeHead(200, { 'content-length': String(gibibyte) });
      void pipeline(Readable.from(blocks(), { objectMode: false }), response);
      return;
    }
    const hash = createHash('sha256');
    void pipeline(
      request,
      hashing(hash, () => undefined),
    ).then(() => {
      receivedHash = hash.digest('hex');
      response.end(receivedHash);
    });
  });
  const { files } = stack;
  const bundle = join(files.dir, 'dist');
  await buildBundle(bundle);
  const start = (role: 'broker' | 'collector' | 'proxy', yaml: string) => startRole(t, role, files.dir, yaml, fromBundle(bundle));
  const broker = await start('broker', brokerYaml(files, stack.issuer.url));
  const collector = await start('collector', collectorYaml(files, broker.ports['gRPC'] as number));
  const proxy = await start('proxy', proxyYaml(files, broker.ports['gRPC'] as number, collector.ports['gRPC'] as number, stack.origin));
  await Promise.all([collector.ready, proxy.ready]);
  const pid = proxy.child.pid as number;
  const idle = residentMiB(pid).now;

  const open = async () => {
    const { socket } = await tunnelTo(proxy.ports['proxy'] as number, `${host}:443`);
    return secure(socket, readFileSync(files.bundle, 'utf8'), host);
  };

  const download = httpRequest({
    createConnection: (await open().then((socket) => () => socket)) as never,
    path: '/down',
    headers: { host },
  }).end();
  const [answer] = (await once(download, 'response')) as [Readable];
  const downHash = createHash('sha256');
  let down = 0;
  await pipeline(
    answer,
    hashing(downHash, (count) => (down += count)),
  );
  t.equal(down, gibibyte);
  t.equal(downHash.digest('hex'), sentHash, 'the download is what was sent');
  const afterDownload = residentMiB(pid).peak;

  const upHash = createHash('sha256');
  const upload = httpRequest({
    createConnection: (await open().then((socket) => () => socket)) as never,
    method: 'PUT',
    path: '/up',
    headers: { host, 'content-length': String(gibibyte) },
  });
  const blocks = function* (): Generator<Buffer> {
    for (const block of randomGibibyte()) {
      upHash.update(block);
      yield block;
    }
  };
  const answered = once(upload, 'response') as Promise<[Readable]>;
  await pipeline(Readable.from(blocks(), { objectMode: false }), upload);
  const [receipt] = await answered;
  let text = '';
  for await (const chunk of receipt) text += chunk;
  t.equal(text, upHash.digest('hex'), 'the upload is what was sent');
  t.equal(receivedHash, text);

  const peak = residentMiB(pid).peak;
  t.comment(
    `resident memory of the proxy: ${idle.toFixed(0)} MiB idle, peak ${afterDownload.toFixed(0)} after the download, ${peak.toFixed(0)} after the upload`,
  );
  t.ok(peak <= peakMiBMax, `${peak.toFixed(0)} MiB ≤ ${peakMiBMax} MiB`);
  t.equal(await proxy.stop(), 0);
});

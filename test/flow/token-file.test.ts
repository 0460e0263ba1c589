import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { FaultCode } from '../../src/core/fault.ts';
import { limits } from '../../src/core/limits.ts';
import { createLog } from '../../src/ops/log.ts';
import { startSvidSource, type SvidSource } from '../../src/rpc/svid-source.ts';
import { createFakeClock, type FakeClock } from '../fakes/clock.ts';
import { broker, createDomain, handlersOf, peerOf } from '../rpc/trust-domain.ts';
import { directoryOf } from '../support/directory.ts';

/** The token file in every state that kubelets, disks and people leave it in (THREATS D-6). */
const domain = createDomain();

interface Reader {
  readonly dir: string;
  readonly file: string;
  readonly clock: FakeClock;
  readonly source: SvidSource;
  /** Tokens that the broker was shown, and when. */
  readonly shown: { readonly token: string; readonly atMs: number }[];
  /** The result of the next attempt. */
  readonly next: () => Promise<'ok' | FaultCode>;
}

const readerOf = async (t: Test, prepare: (file: string, dir: string) => void): Promise<Reader> => {
  const dir = directoryOf(t, { 'ca.pem': domain.authority.certificatePem });
  const file = join(dir, 'token');
  prepare(file, dir);
  const shown: Reader['shown'] = [];
  const sound = handlersOf(domain);
  const server = await broker(t, domain, {
    handlers: handlersOf(domain, {
      attest: async (evidence, request) => {
        shown.push({ token: evidence.token.reveal(), atMs: performance.now() });
        return sound.attest(evidence, request);
      },
    }),
  });
  const clock = createFakeClock();
  const results: ('ok' | FaultCode)[] = [];
  const waiting: ((result: 'ok' | FaultCode) => void)[] = [];
  const source = startSvidSource({
    settings: { broker: peerOf(server), brokerCaFile: join(dir, 'ca.pem'), tokenFile: file },
    clock,
    log: createLog({ role: 'test', level: 'silent' }),
    random: () => 0.5,
    onAttempt: (result) => {
      const waiter = waiting.shift();
      if (waiter) waiter(result);
      else results.push(result);
    },
  });
  t.teardown(() => source.close());
  return {
    dir,
    file,
    clock,
    source,
    shown,
    next: () => {
      const already = results.shift();
      return already === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(already);
    },
  };
};

const whole = (file: string, text: string): void => {
  writeFileSync(`${file}.new`, text);
  renameSync(`${file}.new`, file);
};
const asRoot = process.getuid?.() === 0;

const states: Record<string, (file: string, dir: string) => void> = {
  missing: () => undefined,
  empty: (file) => writeFileSync(file, ''),
  'of blanks and line ends': (file) => writeFileSync(file, ' \r\n\t\n'),
  'a directory': (file) => mkdirSync(file),
  'a link to nothing': (file, dir) => symlinkSync(join(dir, 'gone'), file),
  'a link to itself': (file) => symlinkSync(file, file),
  'a pipe that nobody writes to': (file) => void execFileSync('mkfifo', [file]),
  'a device without an end': (file) => symlinkSync('/dev/zero', file),
  'a gibibyte that is not there': (file) => {
    writeFileSync(file, '');
    execFileSync('truncate', ['--size', '1G', file]);
  },
  'one byte too long': (file) => writeFileSync(file, 'x'.repeat(limits.evidenceBytesMax + 1)),
  // Root reads everything.
  ...(asRoot
    ? {}
    : {
        unreadable: (file: string) => {
          writeFileSync(file, 'token');
          chmodSync(file, 0);
        },
      }),
};

for (const [what, prepare] of Object.entries(states)) {
  t.test(`a token file that is ${what} is evidence_missing at once, nothing is sent, and a sound one heals it`, async (t) => {
    const { file, clock, source, shown, next } = await readerOf(t, prepare);
    const startedAt = performance.now();
    t.equal(await next(), 'evidence_missing');
    t.ok(performance.now() - startedAt < 2_000, 'it was not waited for');
    t.equal(source.fault()?.code, 'evidence_missing');
    t.strictSame(shown, []);
    rmSync(file, { recursive: true, force: true });
    whole(file, 'token-sound');
    clock.advance(limits.reconnectPauseMaxMs);
    t.equal(await next(), 'ok');
    t.strictSame(
      shown.map(({ token }) => token),
      ['token-sound'],
    );
  });
}

t.test('blanks and line ends around a token are not of it', async (t) => {
  for (const text of ['token\n', 'token\r\n', '\ntoken\n\n', '  token  ']) {
    const { shown, next } = await readerOf(t, (file) => writeFileSync(file, text));
    t.equal(await next(), 'ok', JSON.stringify(text));
    t.equal(shown[0]?.token, 'token');
  }
});

t.test('a token that is written in place is read anew for each attempt, half or whole', async (t) => {
  const { file, clock, shown, next } = await readerOf(t, (path) => writeFileSync(path, 'token-whole-and-so'));
  t.equal(await next(), 'ok');
  // In place, as no kubelet does: what is there is what is read, never a mixture from memory.
  writeFileSync(file, 'token-ha');
  clock.advance(limits.reconnectPauseMaxMs + 2 * 3_600_000);
  await next();
  writeFileSync(file, 'token-half-no-more');
  clock.advance(limits.reconnectPauseMaxMs + 2 * 3_600_000);
  await next();
  t.strictSame(
    shown.map(({ token }) => token),
    ['token-whole-and-so', 'token-ha', 'token-half-no-more'],
  );
});

t.test(
  'a thousand swaps of the directory link, as kubelet makes them, under attempts that never stop: no failure, no old token',
  async (t) => {
    const { dir, clock, source, shown, next } = await readerOf(t, (file, dir) => {
      mkdirSync(join(dir, '..2026_0'));
      writeFileSync(join(dir, '..2026_0', 'token'), 'token-0');
      symlinkSync('..2026_0', join(dir, '..data'));
      symlinkSync('..data/token', file);
    });
    t.equal(await next(), 'ok');
    /** When each token stopped being the one in the file. */
    const replacedAt = new Map<string, number>();
    let swaps = 0;
    const swap = (): void => {
      swaps += 1;
      mkdirSync(join(dir, `..2026_${swaps}`));
      writeFileSync(join(dir, `..2026_${swaps}`, 'token'), `token-${swaps}`);
      symlinkSync(`..2026_${swaps}`, join(dir, '..data_tmp'));
      renameSync(join(dir, '..data_tmp'), join(dir, '..data'));
      replacedAt.set(`token-${swaps - 1}`, performance.now());
      const old = join(dir, `..2026_${swaps - 1}`);
      unlinkSync(join(old, 'token'));
      rmSync(old, { recursive: true });
    };
    const results: string[] = [];
    const swapping = (async () => {
      while (swaps < 1_000) {
        swap();
        // Some hundred a second; kubelet makes one in minutes.
        await new Promise((resolve) => setTimeout(resolve, 3));
      }
    })();
    let isDone = false;
    void swapping.then(() => (isDone = true));
    while (!isDone || results.length < 20) {
      source.renew();
      clock.advance(limits.reconnectPauseMaxMs);
      results.push(await next());
    }
    const failed = results.filter((result) => result !== 'ok');
    // Between the link's target and its file there is a moment in which the old directory is gone: kubelet has it too, and waits.
    t.ok(
      failed.every((result) => result === 'evidence_missing') && failed.length <= results.length / 10,
      `${failed.length} of ${results.length} attempts met a swap`,
    );
    const late = shown.filter(({ token, atMs }) => atMs - (replacedAt.get(token) ?? atMs) > 1_000);
    t.strictSame(late, [], 'no token was shown a second after it was replaced');
    t.ok(source.current(), 'there is an identity all the while');
    t.comment(`${swaps} swaps, ${results.length} attempts, ${new Set(shown.map(({ token }) => token)).size} tokens shown`);
  },
);

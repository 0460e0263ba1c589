import { generateKeyPairSync, type KeyObject, X509Certificate } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { limits } from '../../src/core/limits.ts';
import { type AuthorityOptions, createAuthority } from '../../src/pki/authority.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { issueLeaf } from '../../src/pki/leaf.ts';
import { needs, run } from '../pki/external-program.ts';
import { directoryOf } from '../support/directory.ts';
import { isSameKey, type Pod, podIn } from './interception/pod.ts';

const host = 'echo.outrider.test';
const dayMs = 24 * 3_600_000;
const pemOf = (key: KeyObject): string => key.export({ type: 'pkcs8', format: 'pem' }) as string;

/** What a process would have stored of such an authority. */
const stored = (changes: Partial<AuthorityOptions> = {}): string => {
  const { certificatePem, key } = createAuthority({
    commonName: 'Outrider interception 0',
    key: createKeyPair(),
    nowMs: Date.now(),
    lifetimeMs: limits.interceptionAuthorityLifetimeMs,
    permittedHosts: [host],
    ...changes,
  });
  return certificatePem + pemOf(key.privateKey);
};
const certificateIn = (text: string): string => text.slice(0, text.indexOf('-----END CERTIFICATE-----') + 26);
const keyIn = (text: string): string => text.slice(certificateIn(text).length);

const leaf = (): string => {
  const authority = createAuthority({ commonName: 'Outrider interception 0', key: createKeyPair(), nowMs: Date.now(), lifetimeMs: dayMs });
  const key = createKeyPair();
  return issueLeaf(authority, { host, publicKey: key.publicKey, nowMs: Date.now(), lifetimeMs: dayMs }).pem + pemOf(key.privateKey);
};

const isNot = /does not hold one authority and its key/;
const isNone = /is not one for interception/;

/** What stands in the file instead, and why it is refused. */
const contents: Readonly<Record<string, readonly [content: (whole: string) => string, reason: RegExp]>> = {
  'an empty file': [() => '', isNot],
  'bytes of something else': [() => '\0\u00ff'.repeat(1_000), isNot],
  'a key alone': [keyIn, isNot],
  'a certificate alone': [certificateIn, isNot],
  'a certificate with the key of another': [(whole) => certificateIn(whole) + pemOf(createKeyPair().privateKey), isNot],
  'a key on another curve': [(whole) => certificateIn(whole) + pemOf(generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey), isNot],
  'two certificates': [(whole) => certificateIn(stored()) + whole, isNot],
  'a leaf': [leaf, isNot],
  'an authority without constraints': [() => stored({ permittedHosts: undefined as never }), isNone],
  "a trust domain's authority": [() => stored({ spiffeTrustDomain: 'outrider.test' }), isNone],
  'an authority of another name': [() => stored({ commonName: 'A company' }), isNone],
  'an authority that expires soon': [() => stored({ lifetimeMs: limits.interceptionAuthorityRemainderMs - 60_000 }), /expires soon/],
  'an expired authority': [() => stored({ nowMs: Date.now() - 400 * dayMs }), /expires soon/],
  'an authority of the future': [() => stored({ nowMs: Date.now() + dayMs }), /not valid yet/],
  'more than an authority can be': [(whole) => whole + ' '.repeat(limits.interceptionStateBytesMax), /too large/],
};

/** The next process is up, serves, and has put something good in the place of what it refused. */
const startsAnew = (t: Test, pod: Pod, former: X509Certificate, reason: RegExp): void => {
  pod.logs.length = 0;
  const interception = pod.start();
  interception.permit([host]);
  t.ok(interception.contextFor(host));
  const warning = pod.logs.find(({ message }) => String(message).startsWith('the stored interception authority is not used'));
  t.match(warning, { level: 'warn', file: pod.stateFile, reason });
  t.notMatch(JSON.stringify(pod.logs), 'PRIVATE KEY');
  const anew = pod.published();
  t.notOk(isSameKey(anew, former));
  const file = lstatSync(pod.stateFile);
  t.ok(file.isFile());
  t.equal(file.mode & 0o777, 0o600);
  pod.start().permit([host]);
  t.ok(pod.published().raw.equals(anew.raw), 'and the process after that finds it');
};

/** A pod whose first process has ended. */
const podThatRan = (dir: string): { pod: Pod; former: X509Certificate } => {
  const pod = podIn(dir);
  pod.start().permit([host]);
  return { pod, former: pod.published() };
};

for (const [name, [content, reason]] of Object.entries(contents)) {
  t.test(`${name} is not taken for the authority, and the proxy starts`, async (t) => {
    const { pod, former } = podThatRan(directoryOf(t));
    writeFileSync(pod.stateFile, content(readFileSync(pod.stateFile, 'latin1')), 'latin1');
    startsAnew(t, pod, former, reason);
  });
}

t.test('an authority that is cut anywhere is refused, and never stops the start', async (t) => {
  const { pod } = podThatRan(directoryOf(t));
  const whole = readFileSync(pod.stateFile, 'latin1');
  for (let length = 0; length < whole.length - 1; length += 13) {
    writeFileSync(pod.stateFile, whole.slice(0, length), { mode: 0o600 });
    pod.logs.length = 0;
    pod.start({ trustStoreFile: undefined, roots: [] });
    t.match(pod.logs[0], { level: 'warn', reason: isNot }, `${length} bytes`);
  }
});

t.test('an authority that others may have read counts as known to them: it is made anew', async (t) => {
  for (const mode of [0o640, 0o604, 0o620, 0o602, 0o610, 0o666]) {
    const { pod, former } = podThatRan(join(directoryOf(t), mode.toString(8)));
    chmodSync(pod.stateFile, mode);
    startsAnew(t, pod, former, /others may read or write it/);
  }
});

t.test('what is not a file of its own is refused and replaced, and what it points to left alone', async (t) => {
  const dir = directoryOf(t);
  const { pod, former } = podThatRan(dir);
  const elsewhere = join(dir, 'elsewhere');
  const content = readFileSync(pod.stateFile, 'utf8');

  renameSync(pod.stateFile, elsewhere);
  symlinkSync(elsewhere, pod.stateFile);
  startsAnew(t, pod, former, /symbolic link/);
  t.equal(readFileSync(elsewhere, 'utf8'), content);

  rmSync(pod.stateFile);
  linkSync(elsewhere, pod.stateFile);
  startsAnew(t, pod, former, /second name/);
  t.equal(readFileSync(elsewhere, 'utf8'), content);
});

t.test('a pipe in its place is not waited for', needs('mkfifo'), async (t) => {
  const { pod, former } = podThatRan(directoryOf(t));
  rmSync(pod.stateFile);
  t.ok(run('mkfifo', ['-m', '600', pod.stateFile]).ok);
  startsAnew(t, pod, former, /not a regular file/);
});

t.test("another user's file is refused", async (t) => {
  if (process.geteuid?.() !== 0) return t.comment('only root can give a file away: left out');
  const { pod, former } = podThatRan(directoryOf(t));
  chownSync(pod.stateFile, 65_534, 65_534);
  startsAnew(t, pod, former, /belongs to another user/);
});

t.test('where it cannot be stored the proxy starts, serves and says so', async (t) => {
  const { pod } = podThatRan(directoryOf(t));
  rmSync(pod.stateFile);
  mkdirSync(join(pod.stateFile, 'in-the-way'), { recursive: true });
  pod.logs.length = 0;
  const interception = pod.start();
  interception.permit([host]);
  t.ok(interception.contextFor(host));
  t.match(
    pod.logs.map(({ level, reason, message }) => [level, reason ?? message]),
    [
      ['warn', 'it is not a regular file'],
      ['error', /could not be stored/],
    ],
  );
});

t.test('a place on a disk is named as one, a place in memory is not', needs('stat'), async (t) => {
  const kinds = new Set<boolean>();
  const memory = mkdtempSync('/dev/shm/outrider-test-');
  t.teardown(() => rmSync(memory, { recursive: true }));
  for (const dir of [memory, directoryOf(t)]) {
    const { pod } = podThatRan(dir);
    const isMemory = /^(?:tmpfs|ramfs)$/.test(run('stat', ['--file-system', '--format=%T', dir]).output.trim());
    kinds.add(isMemory);
    t.equal(
      pod.logs.some(({ message }) => String(message).includes('stored on a disk')),
      !isMemory,
    );
  }
  t.ok(kinds.has(true));
});

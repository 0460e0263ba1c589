import t from 'tap';
import { complete, missingOptionals, platformOf } from '../../scripts/complete-lockfile.ts';

t.test('the platform of a package is read from its name', async (t) => {
  t.strictSame(platformOf('@biomejs/cli-linux-x64-musl'), { os: ['linux'], cpu: ['x64'], libc: ['musl'] });
  t.strictSame(platformOf('@oxlint/binding-linux-arm-gnueabihf'), { os: ['linux'], cpu: ['arm'], libc: ['glibc'] });
  t.strictSame(platformOf('@oxlint/binding-win32-x64-msvc'), { os: ['win32'], cpu: ['x64'] });
  t.strictSame(platformOf('@oxlint/binding-android-arm-eabi'), { os: ['android'], cpu: ['arm'] });
  t.strictSame(platformOf('@bufbuild/buf-linux-aarch64'), { os: ['linux'], cpu: ['arm64'] });
  t.strictSame(platformOf('@bufbuild/buf-linux-armv7'), { os: ['linux'], cpu: ['arm'] });
  t.equal(platformOf('fsevents'), undefined);
});

const lock = {
  packages: {
    '': {},
    'node_modules/tool': {
      version: '1.0.0',
      dev: true,
      resolved: 'https://registry.example/tool.tgz',
      optionalDependencies: { '@tool/linux-x64': '1.0.0', '@tool/darwin-arm64': '1.0.0' },
    },
    'node_modules/@tool/linux-x64': { version: '1.0.0', dev: true, optional: true, os: ['linux'], cpu: ['x64'] },
  },
};

t.test('what the registry did not offer is added for its platform only, and no registry is named', async (t) => {
  t.strictSame([...missingOptionals(lock).keys()], ['node_modules/@tool/darwin-arm64']);
  const whole = complete(lock);
  t.equal(missingOptionals(whole).size, 0);
  t.strictSame(Object.keys(whole.packages), ['', 'node_modules/@tool/darwin-arm64', 'node_modules/@tool/linux-x64', 'node_modules/tool']);
  t.strictSame(whole.packages['node_modules/@tool/darwin-arm64'], {
    version: '1.0.0',
    os: ['darwin'],
    cpu: ['arm64'],
    dev: true,
    optional: true,
  });
  t.notMatch(JSON.stringify(whole), 'resolved');
  t.strictSame(complete(whole), whole);
});

t.test('a name that tells no platform, or a range, is refused rather than guessed', async (t) => {
  const asking = (name: string, version: string) => ({ packages: { 'node_modules/tool': { optionalDependencies: { [name]: version } } } });
  t.throws(() => complete(asking('fsevents', '2.3.3')), /cannot tell its platform/);
  t.throws(() => complete(asking('@tool/linux-x64', '^1.0.0')), /not an exact version/);
});

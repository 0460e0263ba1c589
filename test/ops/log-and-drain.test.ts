import t from 'tap';
import { Fault } from '../../src/core/fault.ts';
import { Secret } from '../../src/core/secret.ts';
import { closeAll, startParts } from '../../src/ops/drain.ts';
import { createLog } from '../../src/ops/log.ts';

const logTo = (level: 'debug' | 'warn' = 'debug') => {
  const lines: string[] = [];
  return { lines, log: createLog({ role: 'proxy', level, write: (line) => lines.push(line) }) };
};

t.test('a log line is one JSON object with time, level, role and message, whatever was logged', async (t) => {
  const { lines, log } = logTo();
  log.with({ target: 'echo' }).info({ path: 'a\r\n{"level":"error"}\u001b[31m\u2028' }, 'hello');
  t.equal(lines.length, 1);
  t.equal(lines[0]?.trimEnd().split('\n').length, 1);
  t.match(JSON.parse(lines[0] as string), {
    level: 'info',
    role: 'proxy',
    target: 'echo',
    message: 'hello',
    path: 'a\r\n{"level":"error"}\u001b[31m\u2028',
  });
  t.match((JSON.parse(lines[0] as string) as { time: string }).time, /^\d{4}-\d\d-\d\dT/);
});

t.test('an error tells its class, code and causes, a bug its stack, and a secret stays a secret', async (t) => {
  const { lines, log } = logTo();
  const canary = `canary-${Math.random()}`;
  const secret = new Secret(canary);
  log.error(
    {
      error: new Fault('broker_unavailable', { cause: Object.assign(new Error('no route'), { code: 'EHOSTUNREACH', secret }) }),
      secret,
      deep: { list: [secret] },
    },
    'failed',
  );
  log.error({ error: new TypeError('a bug') }, 'bug');
  const [failed, bug] = lines.map((line) => JSON.parse(line) as { error: Record<string, unknown> });
  t.match(failed, {
    secret: '[secret]',
    deep: { list: ['[secret]'] },
    error: { name: 'Fault', code: 'broker_unavailable', cause: { code: 'EHOSTUNREACH', message: 'no route' } },
  });
  t.notOk('stack' in (failed as { error: object }).error);
  t.match(bug?.error, { name: 'TypeError', stack: /log-and-drain/ });
  t.notMatch(lines.join(''), canary);
});

t.test('lines below the level are not written', async (t) => {
  const { lines, log } = logTo('warn');
  log.debug({}, 'no');
  log.info({}, 'no');
  log.warn({}, 'yes');
  t.equal(lines.length, 1);
});

t.test('parts close last first, and one that fails or hangs does not stop the others', async (t) => {
  const { lines, log } = logTo();
  const closed: string[] = [];
  const part = (name: string, close: () => Promise<void> | void = () => undefined) => ({
    name,
    close: () => {
      closed.push(name);
      return close();
    },
  });
  const hanging = part('hanging', () => new Promise<void>(() => undefined));
  const failing = part('failing', () => {
    throw new Error('will not');
  });
  await closeAll([part('first'), failing, hanging, part('last')], 30, log);
  t.same(closed, ['last', 'hanging', 'failing', 'first']);
  t.match(lines.join(''), /"part":"hanging"[^]*"part":"failing"/);
});

t.test('a role whose start fails closes what it had opened, and who closes twice waits for the same end', async (t) => {
  const { log } = logTo();
  const closed: string[] = [];
  const failing = startParts(log, async (closers) => {
    closers.push({ name: 'first', close: () => void closed.push('first') });
    throw new Error('no second');
  });
  await t.rejects(failing, { message: 'no second' });
  t.same(closed, ['first']);

  const end = Promise.withResolvers<void>();
  const role = await startParts(log, async (closers) => {
    closers.push({ name: 'slow', close: () => end.promise.then(() => void closed.push('slow')) });
    return { port: 1 };
  });
  t.equal(role.port, 1);
  const twice = [role.close(), role.close()].map((closing) => closing.then(() => closed.at(-1)));
  end.resolve();
  t.same(await Promise.all(twice), ['slow', 'slow']);
  t.same(closed, ['first', 'slow']);
});

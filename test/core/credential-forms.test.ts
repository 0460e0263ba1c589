/** Credentials that are more than text: AWS keys and tokens bound to a key, as they travel; and budgets. */
import t from 'tap';
import { awsKeysText, readAwsKeys } from '../../src/core/aws-keys.ts';
import { boundTokenText, readBoundToken } from '../../src/core/bound-token.ts';
import { createBudget } from '../../src/core/budget.ts';

const id = ['AKIA', 'TESTTESTTEST'].join('');

t.test('AWS keys are read in the words of process credentials, with a session or without', async (t) => {
  const long = readAwsKeys(JSON.stringify({ Version: 1, AccessKeyId: id, SecretAccessKey: 'k/+=' }));
  t.strictSame(long, { accessKeyId: id, secretAccessKey: 'k/+=', sessionToken: '', expiresAtMs: undefined });
  const short = { AccessKeyId: id, SecretAccessKey: 'k', SessionToken: 't', Expiration: '2026-01-01T00:00:00Z' };
  t.strictSame(readAwsKeys(JSON.stringify(short)), {
    accessKeyId: id,
    secretAccessKey: 'k',
    sessionToken: 't',
    expiresAtMs: Date.UTC(2026, 0, 1),
  });
});

t.test('AWS keys as text read back as they were, without what ends with the broker', async (t) => {
  for (const sessionToken of ['', 'session']) {
    const keys = { accessKeyId: id, secretAccessKey: 'k', sessionToken, expiresAtMs: undefined };
    t.strictSame(readAwsKeys(awsKeysText(keys)), keys);
  }
});

t.test('anything else is no AWS key', async (t) => {
  const bad = [
    {},
    { AccessKeyId: id },
    { AccessKeyId: 'short', SecretAccessKey: 'k' },
    { AccessKeyId: `${id}/x`, SecretAccessKey: 'k' },
    { AccessKeyId: id, SecretAccessKey: '' },
    { AccessKeyId: id, SecretAccessKey: 'a b' },
    { AccessKeyId: id, SecretAccessKey: 7 },
    { AccessKeyId: id, SecretAccessKey: 'k', SessionToken: 'a\r\nb' },
    { AccessKeyId: id, SecretAccessKey: 'k', SessionToken: null },
    { AccessKeyId: id, SecretAccessKey: 'k', Expiration: 'soon' },
    { AccessKeyId: id, SecretAccessKey: 'k', Expiration: 7 },
  ];
  for (const value of bad) t.equal(readAwsKeys(JSON.stringify(value)), undefined, JSON.stringify(value));
  for (const text of ['', 'null', '7', '[]', '{', `${id}:k`]) t.equal(readAwsKeys(text), undefined, text);
});

t.test('a bound token is a token and the key it is bound to', async (t) => {
  const token = { accessToken: 'abc.def-_~+/==', privateKeyPem: 'a key' };
  t.strictSame(readBoundToken(boundTokenText(token)), token);
  const bad = [
    {},
    { access_token: 't' },
    { private_key: 'k' },
    { access_token: 'a b', private_key: 'k' },
    { access_token: 't', private_key: '' },
  ];
  for (const value of [...bad, null, 7, 'text']) t.equal(readBoundToken(JSON.stringify(value)), undefined, JSON.stringify(value));
  t.equal(readBoundToken('not JSON'), undefined);
});

t.test('a budget gives what fits, and again what was given back', async (t) => {
  const budget = createBudget(10);
  t.ok(budget.take(7));
  t.notOk(budget.take(4), 'what does not fit is not taken in part');
  t.equal(budget.used(), 7);
  t.ok(budget.take(3));
  budget.give(7);
  t.ok(budget.take(7));
});

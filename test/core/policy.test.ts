import t from 'tap';
import { decide, decideGrant, type Rule } from '../../src/core/policy.ts';

const rule = (name: string, rest: Partial<Rule>): Rule => ({
  policy: 'p',
  policyVersion: 'v1',
  name,
  effect: 'allow',
  methods: [],
  paths: [],
  condition: '',
  ...rest,
});
const get = (path: string) => ({ method: 'GET', path });

t.test('nothing matched means deny, with a reason and no rule', async (t) => {
  t.match(decide([], get('/a')), { verdict: 'deny', policy: '', rule: '', reason: 'no rule allows GET /a' });
  t.match(decide([rule('read', { methods: ['GET'] })], { method: 'POST', path: '/a' }), { verdict: 'deny', rule: '' });
});

t.test('an allow that covers method and path allows, and names policy, version and rule', async (t) => {
  const decision = decide([rule('read', { methods: ['GET', 'HEAD'], paths: ['/a/**'] })], get('/a/b'));
  t.match(decision, { verdict: 'allow', policy: 'p', policyVersion: 'v1', rule: 'read', reason: 'rule read of policy p allows GET /a/b' });
});

t.test('deny beats allow, whatever the order', async (t) => {
  const rules = [rule('all', {}), rule('no-admin', { effect: 'deny', paths: ['/admin/**'] })];
  for (const order of [rules, rules.toReversed()]) {
    t.match(decide(order, get('/admin/x')), { verdict: 'deny', rule: 'no-admin' });
    t.match(decide(order, get('/other')), { verdict: 'allow', rule: 'all' });
  }
});

t.test('a condition nobody can evaluate fails closed', async (t) => {
  t.match(decide([rule('maybe', { condition: 'true' })], get('/')), { verdict: 'deny', rule: '' });
  t.match(decide([rule('all', {}), rule('no', { effect: 'deny', condition: 'false' })], get('/')), { verdict: 'deny', rule: 'no' });
});

t.test('a grant is made only where some request could be allowed', async (t) => {
  t.match(decideGrant([], 'w', 't'), { verdict: 'deny', reason: 'no rule allows w to use t' });
  t.match(decideGrant([rule('read', { methods: ['GET'] })], 'w', 't'), { verdict: 'allow', rule: 'read' });
  t.match(decideGrant([rule('all', {}), rule('closed', { effect: 'deny' })], 'w', 't'), { verdict: 'deny', rule: 'closed' });
  t.match(decideGrant([rule('all', {}), rule('some', { effect: 'deny', methods: ['PUT'] })], 'w', 't'), { verdict: 'allow', rule: 'all' });
});

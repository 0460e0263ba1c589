/** How an operator writes a workload. */
import { limits } from '../../core/limits.ts';
import type { WorkloadSettings } from '../broker.ts';
import { keys, Refusal, scalar } from '../grammar.ts';
import { instant, name, printable } from '../text.ts';

const wanted = scalar(
  {
    what: 'a value to match',
    write: 'it as the token has it, with "*" at most as its last character',
    unquoted: 'is not text, write it in quotes',
  },
  (text) => {
    if (text.slice(0, -1).includes('*'))
      return new Refusal('has a "*" that is not its last character, write the value whole, or cut it after a prefix: orders-*');
    return text !== '' && text.length <= limits.eventFieldBytesMax && /^[\x21-\x7e]+$/.test(text) ? text : undefined;
  },
).optional();

/** What our attestors find out (core/evidence.ts). A name that none of them gives would never match, so it is refused. */
const attributes = {
  'kubernetes.namespace': wanted,
  'kubernetes.service_account': wanted,
  'kubernetes.service_account_uid': wanted,
  'kubernetes.pod': wanted,
  'kubernetes.pod_uid': wanted,
  'kubernetes.node': wanted,
  'kubernetes.node_uid': wanted,
  'token.issuer': wanted,
  'token.subject': wanted,
};

const example = '{kubernetes.namespace: orders, kubernetes.service_account: api}';

const match = keys(attributes, example).transform((written, context): Record<string, string> => {
  const entries = Object.entries(written).filter((entry): entry is [string, string] => entry[1] !== undefined);
  // With an unknown attribute it is not empty, but mistaken, and that is said already.
  if (entries.length === 0 && context.issues.length === 0)
    context.addIssue({ code: 'custom', message: `is empty, which would match everything, write ${example}` });
  return Object.fromEntries(entries);
});

export const workload = keys(
  {
    name,
    attestor: name.optional(),
    match,
    owner: printable({ what: 'an owner', write: 'a team or an address, in one line of ASCII' }).optional(),
    expires: instant.optional(),
  },
  `{name: orders-api, match: ${example}}`,
).transform(({ name, attestor, match, owner, expires }): WorkloadSettings => ({ name, attestor, match, owner, expiresAtMs: expires }));

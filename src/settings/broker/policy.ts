/** How an operator writes a policy. */
import { tokenPattern } from '../../core/headers.ts';
import { pathTemplateProblem } from '../../core/request-target.ts';
import type { PolicySettings, RuleSettings } from '../broker.ts';
import { keys, list, oneOf, Refusal, scalar } from '../grammar.ts';
import { name } from '../text.ts';

const method = scalar({ what: 'an HTTP method', write: 'it in capitals, such as GET' }, (text) =>
  tokenPattern.test(text) && text === text.toUpperCase() && text.length <= 32 ? text : undefined,
);

/** The core's sentences quote the segment; these do not. */
const templateSentence = (problem: string): string => {
  if (problem.startsWith('write segment'))
    return 'has an escape that is not in its only spelling, write letters and digits plainly, and other escapes in capitals';
  if (problem.startsWith('segment '))
    return 'has a segment that is neither plain, "*", "{name}" nor a last "**", write for example "/orders/{id}/**"';
  return `is not a path template: ${problem}, write for example "/orders/{id}/**"`;
};

const pathTemplate = scalar({ what: 'a path template', write: 'a path in quotes, such as "/orders/{id}/**"' }, (text) => {
  const problem = text.length > 1_024 ? 'it is longer than 1024 characters' : pathTemplateProblem(text);
  return problem === undefined ? text : new Refusal(templateSentence(problem));
});

const rule = keys(
  {
    name,
    effect: oneOf(['allow', 'deny']),
    workloads: list(name, { write: '[orders-api], or remove the key where all are meant', min: 1 }).default([]),
    targets: list(name, { write: '[orders], or remove the key where all are meant', min: 1 }).default([]),
    methods: list(method, { write: '[GET, HEAD], or remove the key where all are meant', min: 1 }).default([]),
    paths: list(pathTemplate, { write: '["/orders/**"], or remove the key where all are meant', min: 1 }).default([]),
  },
  '{name: read, effect: allow, workloads: [orders-api], targets: [orders]}',
).transform((written): RuleSettings => written);

export const policy = keys(
  { name, rules: list(rule, { write: '[{name: read, effect: allow}]', min: 1 }) },
  '{name: orders, rules: […]}',
).transform((written): PolicySettings => written);

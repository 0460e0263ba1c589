/** How much a role says. */
import { keys, oneOf } from './grammar.ts';

const levels = ['debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof levels)[number];

export const log = keys({ level: oneOf(levels).default('info') }, '{level: info}')
  .transform((written): { readonly level: LogLevel } => written)
  .prefault({});

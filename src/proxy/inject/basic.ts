/** Authorization: Basic (RFC 7617), the credential as password, UTF-8. */
import type { Placer } from '../inject.ts';
import { readText } from './text.ts';

const pairOf = (username: string, password: string): string => Buffer.from(`${username}:${password}`, 'utf8').toString('base64');

export const basic: Placer<{ readonly kind: 'basic'; readonly username: string }> = {
  read: readText,
  shown: (value, { username }) => [value, pairOf(username, value)],
  fields: () => ['authorization'],
  place: (draft, { username }, value) => ({
    ...draft,
    headers: [...draft.headers, ['authorization', `Basic ${pairOf(username, value)}`]],
  }),
};

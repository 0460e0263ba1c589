/** Authorization: Basic (RFC 7617), the credential as password, UTF-8. */
import type { Placer } from '../inject.ts';

export const basic: Placer<{ readonly kind: 'basic'; readonly username: string }> = {
  fields: () => ['authorization'],
  place: (draft, { username }, value) => {
    const pair = Buffer.from(`${username}:${value}`, 'utf8').toString('base64');
    return { ...draft, headers: [...draft.headers, ['authorization', `Basic ${pair}`]] };
  },
};

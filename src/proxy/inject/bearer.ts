/** Authorization: Bearer (RFC 6750 section 2.1). */
import type { Placer } from '../inject.ts';
import { asText } from './text.ts';

export const bearer: Placer<{ readonly kind: 'bearer' }> = {
  ...asText,
  fields: () => ['authorization'],
  place: (draft, _placement, value) => ({ ...draft, headers: [...draft.headers, ['authorization', `Bearer ${value}`]] }),
};

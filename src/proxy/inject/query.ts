/** A query parameter. It ends up in targets' access logs: headers are better where a target takes them. */
import { withQueryParameter } from '../../core/request-target.ts';
import type { Placer } from '../inject.ts';
import { asText } from './text.ts';

export const query: Placer<{ readonly kind: 'query'; readonly name: string }> = {
  ...asText,
  fields: () => [],
  place: (draft, { name }, value) => ({ ...draft, query: withQueryParameter(draft.query, name, value) }),
};

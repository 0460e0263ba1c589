/** A query parameter. It ends up in targets' access logs: headers are better where a target takes them. */
import { withQueryParameter } from '../../core/request-target.ts';
import type { Placer } from '../inject.ts';

export const query: Placer<{ readonly kind: 'query'; readonly name: string }> = {
  fields: () => [],
  place: (draft, { name }, value) => ({ ...draft, query: withQueryParameter(draft.query, name, value) }),
};

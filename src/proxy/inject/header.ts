/** A named field with a template, e.g. `X-Api-Key: {credential}` or `PRIVATE-TOKEN: {credential}`. */
import { Fault } from '../../core/fault.ts';
import { tokenPattern, writableValue } from '../../core/headers.ts';
import type { Placer } from '../inject.ts';
import { asText } from './text.ts';

export const header: Placer<{ readonly kind: 'header'; readonly name: string; readonly template: string }> = {
  ...asText,
  fields: ({ name }) => [name],
  place: (draft, { name, template }, value) => {
    const [before, after, ...more] = template.split('{credential}');
    if (!tokenPattern.test(name) || before === undefined || after === undefined || more.length > 0) throw new Fault('credential_invalid');
    const field = before + value + after;
    if (!writableValue(field)) throw new Fault('credential_invalid');
    return { ...draft, headers: [...draft.headers, [name, field]] };
  },
};

/** Being written. */
import { Fault } from '../../core/fault.ts';
import type { Placer } from '../inject.ts';
import { asText } from './text.ts';

export const dpop: Placer = {
  ...asText,
  fields: () => [],
  place: () => {
    throw new Fault('credential_invalid');
  },
};

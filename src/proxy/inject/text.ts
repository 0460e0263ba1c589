/** Credentials that are text in a field or a parameter: what may be written, and what the target is shown of it. */
import { Fault } from '../../core/fault.ts';
import { writableValue } from '../../core/headers.ts';

/** Throws credential_invalid for what could end a field, or stand for nothing. */
export const readText = (text: string): string => {
  if (text === '' || !writableValue(text)) throw new Fault('credential_invalid');
  return text;
};

export const asText = { read: readText, shown: (value: string): readonly string[] => [value] } as const;

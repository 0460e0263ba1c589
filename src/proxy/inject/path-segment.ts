/**
 * A segment of the path, e.g. `/bot{credential}/sendMessage`. What was judged and is recorded keeps what the program wrote there; only what
 * is sent has the credential. It ends up in targets' access logs: headers are better where a target takes them.
 */
import { Fault } from '../../core/fault.ts';
import { segmentTemplate } from '../../core/placement.ts';
import { canonicalTarget } from '../../core/request-target.ts';
import type { Placer } from '../inject.ts';
import { readText } from './text.ts';

type PathSegment = { readonly kind: 'path_segment'; readonly segment: number; readonly template: string };

/** pchar (RFC 3986 section 3.3) as it is, except ";": not every server reads an encoded ":" as one. */
const encoded = (text: string): string => text.replace(/[^A-Za-z0-9\-._~!$&'()*+,=:@]/g, (char) => encodeURIComponent(char));

const misplaced = (detail: string): Fault => new Fault('credential_place_missing', { detail });

interface Place {
  readonly segments: readonly string[];
  readonly before: string;
  readonly after: string;
  /** What stands for the credential. */
  readonly there: string;
}

/** Throws credential_place_missing for a path without the segment, and for one that has a second reading (paths: verbatim). */
export const segmentPlace = (path: string, { segment, template }: PathSegment): Place => {
  const around = segmentTemplate(template);
  if (around === undefined) throw new Fault('credential_invalid');
  const canonical = canonicalTarget(path);
  if ('problem' in canonical || canonical.path !== path)
    throw misplaced('The path has another reading, in which the segment is another one.');
  const [before, after] = around;
  const segments = path.slice(1).split('/');
  const whole = segments[segment - 1] ?? '';
  const isThere = whole.length > before.length + after.length && whole.startsWith(before) && whole.endsWith(after);
  if (!isThere) throw misplaced(`Segment ${segment} of the path must be ${template.replace('{credential}', '(anything)')}.`);
  return { segments, before, after, there: whole.slice(before.length, whole.length - after.length) };
};

export const pathSegment: Placer<PathSegment> = {
  read: (text) => {
    if (canonicalIsOne(encoded(readText(text)))) return text;
    throw new Fault('credential_invalid', { detail: 'It cannot stand in one segment of a path.' });
  },
  shown: (value) => [...new Set([value, encoded(value)])],
  fields: () => [],
  place: (draft, placement, value) => {
    const { segments, before, after } = segmentPlace(draft.path, placement);
    const written = before + encoded(value) + after;
    if (!canonicalIsOne(written)) throw new Fault('credential_invalid', { detail: 'It cannot stand in one segment of a path.' });
    return { ...draft, path: `/${segments.map((one, index) => (index === placement.segment - 1 ? written : one)).join('/')}` };
  },
};

/** Whether it is one segment to every server: no separator, no dot segment, nothing that is decoded before paths are split. */
const canonicalIsOne = (segment: string): boolean => {
  const canonical = canonicalTarget(`/${segment}`);
  return !('problem' in canonical) && canonical.path === `/${segment}` && canonical.query === '';
};

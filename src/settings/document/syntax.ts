/**
 * What the YAML parser stumbled over, in our words. Its own messages quote the text, which may be a secret: only its codes are
 * used. What comes last in each sentence is what usually helps.
 */
import type { ErrorCode } from 'yaml';

const quoteIt = 'put a value that has any of : # { } [ ] , & * ! | > " \' % @ ` in quotes';

const sentences: Partial<Record<ErrorCode, string>> = {
  BAD_ALIAS: 'has a "*" or "&" that is not followed by a name, put a value that begins with one in quotes',
  ALIAS_PROPS: 'has an alias ("*…") with a tag or an anchor, write the value out',
  BAD_DIRECTIVE: 'has a directive (a line that begins with "%") that cannot be read, remove it',
  BAD_DQ_ESCAPE: 'has an escape that YAML does not know, write \\\\ for one backslash, or use single quotes',
  BAD_INDENT: 'is not indented as what it belongs to, or a bracket is not closed, write it below the first letter of its neighbours',
  BAD_SCALAR_START: 'begins with a character that YAML keeps for itself, put the value in quotes',
  BLOCK_AS_IMPLICIT_KEY: 'has two ":" in one line, put the value in quotes or on lines of its own',
  BLOCK_IN_FLOW: 'has an indented block inside brackets, close the brackets first',
  KEY_OVER_1024_CHARS: 'has a key that is too long',
  MISSING_CHAR: `misses a character (a quote, a comma, a ":" or a space), close what is open, or ${quoteIt}`,
  MULTILINE_IMPLICIT_KEY: 'has a key over several lines, or a line without its ":", write KEY: VALUE',
  MULTIPLE_ANCHORS: 'has two anchors ("&…") on one value, keep one',
  MULTIPLE_DOCS: 'begins a second document ("---"), write one configuration a file',
  MULTIPLE_TAGS: 'has tags ("!…"), remove them',
  NON_STRING_KEY: 'has a key that is not text, write KEY: VALUE',
  RESOURCE_EXHAUSTION: 'is nested too deep',
  TAB_AS_INDENT: 'is indented by a tab, use spaces',
  TAG_RESOLVE_FAILED: 'has a tag ("!…"), remove it',
};

export const syntaxSentence = (code: ErrorCode): string =>
  `not YAML: ${sentences[code] ?? `this does not belong here, check the lines above, or ${quoteIt}`}`;

export const openQuoteSentence = 'not YAML: has a quote here that is not closed, close it';

/**
 * The path and query of a request in the spelling that policy judges and that is sent: one and the same (invariant I4). A path that
 * servers read differently is not guessed (THREATS E-13, E-14): `canonicalTarget` refuses it, and `verbatimTarget` keeps its bytes and
 * says why nobody knows what it names, so that no rule about paths is taken to speak of it (core/policy.ts).
 */
export interface CanonicalTarget {
  /** Begins with "/"; percent-encoding in upper case, unreserved characters decoded. As received where `ambiguity` is set. */
  readonly path: string;
  /** With its "?" as received, or "". Never judged, logged or recorded. */
  readonly query: string;
  /** Why the path can be read in more than one way; absent where it cannot. */
  readonly ambiguity?: string;
}

export type TargetProblem = { readonly problem: string };

const refuse = (problem: string): TargetProblem => ({ problem });

/** The two parts as received. */
const splitTarget = (raw: string): { readonly path: string; readonly query: string } | TargetProblem => {
  if (/[^\x21-\x7e]/.test(raw)) return refuse('it has a control character, a space or a byte outside ASCII');
  if (raw.includes('#')) return refuse('it has a fragment');
  const mark = raw.indexOf('?');
  const path = mark < 0 ? raw : raw.slice(0, mark);
  if (!path.startsWith('/')) return refuse('it does not begin with "/"');
  return { path, query: mark < 0 ? '' : raw.slice(mark) };
};

const unreserved = /[A-Za-z0-9\-._~]/;
/** Encoded characters that some server decodes before it splits or resolves the path: NUL, "%", "/", "\", ";". */
const ambiguousOctets = new Set(['%00', '%25', '%2F', '%5C', '%3B']);

/** A path that is its own only spelling: nothing to decode, no dot segment, no empty one. Most are. */
const plainPath = /^(?:\/[A-Za-z0-9\-_~][A-Za-z0-9\-._~]*)+$/;

/**
 * Origin-form `raw` (path with optional query) in canonical form, or what makes it ambiguous.
 * RFC 3986 sections 3.3, 6.2.2.1 and 6.2.2.2.
 */
export const canonicalTarget = (raw: string): CanonicalTarget | TargetProblem => {
  if (plainPath.test(raw)) return { path: raw, query: '' };
  const split = splitTarget(raw);
  if ('problem' in split) return split;
  const { path: rawPath, query } = split;
  if (rawPath.includes('\\')) return refuse('the path has a backslash');
  if (rawPath.includes(';')) return refuse('the path has a ";" parameter');
  if (rawPath.includes('//')) return refuse('the path has an empty segment');
  if (/%(?![0-9A-Fa-f]{2})/.test(rawPath)) return refuse('the path has a "%" that is not followed by two hex digits');
  const problem: string[] = [];
  const path = rawPath.replace(/%[0-9A-Fa-f]{2}/g, (octet) => {
    const upper = octet.toUpperCase();
    if (ambiguousOctets.has(upper)) problem.push(`the path has ${upper}`);
    const char = String.fromCharCode(Number.parseInt(octet.slice(1), 16));
    return unreserved.test(char) ? char : upper;
  });
  if (problem[0] !== undefined) return refuse(problem[0]);
  if (path.split('/').some((segment) => segment === '.' || segment === '..')) return refuse('the path has a dot segment');
  try {
    decodeURIComponent(path);
  } catch {
    return refuse('the path has percent-encoding that is not UTF-8');
  }
  return { path, query };
};

/**
 * Origin-form `raw` for a target whose paths name things byte by byte, as S3's do. A path with one reading is in its canonical spelling, which
 * names the same thing there; any other is as it came, with its ambiguity.
 */
export const verbatimTarget = (raw: string): CanonicalTarget | TargetProblem => {
  const split = splitTarget(raw);
  if ('problem' in split) return split;
  const canonical = canonicalTarget(raw);
  return 'problem' in canonical ? { ...split, ambiguity: canonical.problem } : canonical;
};

/** Decoded, so that every spelling compares equal; malformed escapes stay as they are. */
const decoded = (text: string): string =>
  text.replaceAll('+', ' ').replace(/(?:%[0-9A-Fa-f]{2})+/g, (run) => {
    try {
      return decodeURIComponent(run);
    } catch {
      return run;
    }
  });

/** Without "?" at its start, which some readers take for the beginning of the query. */
const parameterName = (parameter: string): string => decoded((parameter.split('=', 1)[0] as string).replace(/^\?+/, ''));

/**
 * The query with one parameter set: every parameter of that name (in any spelling, after `&` or `;`, in any case) goes, then
 * it is appended. What stays keeps its bytes.
 */
export const withQueryParameter = (query: string, name: string, value: string): string => {
  const wanted = name.toLowerCase();
  const kept = query
    .slice(1)
    .split('&')
    .filter((p) => p !== '' && !p.split(';').some((part) => parameterName(part).toLowerCase() === wanted));
  return `?${[...kept, `${encodeURIComponent(name)}=${encodeURIComponent(value)}`].join('&')}`;
};

/** The decoded values of the parameters that some server would read by this name; see withQueryParameter. */
export const parametersNamed = (query: string, name: string): string[] =>
  query
    .slice(1)
    .split(/[&;]/)
    .filter((parameter) => parameter !== '' && parameterName(parameter).toLowerCase() === name.toLowerCase())
    .map((parameter) => decoded(parameter.includes('=') ? parameter.slice(parameter.indexOf('=') + 1) : ''));

// Path templates ----------------------------------------------------------------------------------------------------

/** Why a path template is not one, or undefined. */
export const pathTemplateProblem = (template: string): string | undefined => {
  if (!template.startsWith('/')) return 'it must begin with "/"';
  const segments = template.slice(1).split('/');
  for (const [i, segment] of segments.entries()) {
    if (segment === '**' && i !== segments.length - 1) return '"**" may only be the last segment';
    if (segment === '*' || segment === '**' || /^\{[A-Za-z_][A-Za-z0-9_]*\}$/.test(segment)) continue;
    if (/[*{}?]/.test(segment)) return `segment ${JSON.stringify(segment)} must be a literal, "*", "{name}" or a last "**"`;
    if (segment === '' && i !== segments.length - 1) return 'it has an empty segment';
    const canonical = canonicalTarget(`/${segment}`);
    if ('problem' in canonical) return canonical.problem;
    if (canonical.path !== `/${segment}`) return `write segment ${JSON.stringify(segment)} as ${JSON.stringify(canonical.path.slice(1))}`;
  }
  return undefined;
};

/** What every path that matches begins with: its literal segments before the first other one, without the "/" after them. */
const literalStart = (template: string): string => {
  const open = template.search(/[*{]/);
  return open < 0 ? template : template.slice(0, template.lastIndexOf('/', open));
};

/**
 * Whether a canonical path matches a template: literal segments, `*` or `{name}` for exactly one non-empty segment, a last
 * `**` for any number of them, none included ("/admin/**" matches "/admin", "/admin/" and all below).
 */
export const pathMatches = (template: string, path: string): boolean => {
  if (!path.startsWith(literalStart(template))) return false;
  const wanted = template.slice(1).split('/');
  const actual = path.slice(1).split('/');
  for (const [i, segment] of wanted.entries()) {
    if (segment === '**') return true;
    const there = actual[i];
    if (there === undefined) return false;
    if (segment === '*' || segment.startsWith('{')) {
      if (there === '') return false;
    } else if (segment !== there) return false;
    if (i === actual.length - 1 && wanted[i + 1] === '**') return true;
  }
  return wanted.length === actual.length;
};

/**
 * How the placements of one target must fit: no two write the same place, one signature at most, each of a form that its provider gives,
 * and a placeholder that a request can show. Reads the document as it was written (settings/reference.ts).
 */
import { type CredentialForm, type Placement, providerForms, type ProviderKind } from '../../core/grant.ts';
import { sameNameKey } from '../../core/headers.ts';
import { type Entry, itemsAt, type Problem, repeated, valueAt } from '../reference.ts';

export const placementReferences = (document: unknown): Problem[] => {
  const targets = itemsAt(document, 'targets').map((target) => ({ target, placements: placementsOf(document, target) }));
  // Of several problems with one placement the first is shown.
  return [
    ...targets.flatMap(({ placements }) => [...sharedPlaces(placements), ...secondSignatures(placements)]),
    ...wrongForms(document),
    ...targets.flatMap(({ target, placements }) => [...clientCertificates(target, placements), ...placeholders(target, placements)]),
  ];
};

const placementsOf = (document: unknown, { path }: Entry): readonly Entry[] =>
  itemsAt(document, ...path, 'credentials').map((credential) => ({
    path: [...credential.path, 'placement'],
    value: valueAt(credential.value, 'placement'),
  }));

const at = ({ path }: Entry): string =>
  path
    .map((segment) => (typeof segment === 'number' ? `[${segment}]` : `.${String(segment)}`))
    .join('')
    .slice(1);

const kindOf = (placement: unknown): unknown => valueAt(placement, 'kind');

// Places ------------------------------------------------------------------------------------------------------------

const awsFields = ['authorization', 'x-amz-date', 'x-amz-content-sha256', 'x-amz-security-token', 'x-amz-region-set'];
const awsParameters = ['algorithm', 'credential', 'date', 'expires', 'region-set', 'security-token', 'signature', 'signedheaders'];

/** Where a placement writes, each place in the one spelling in which two that meet are equal; none where it cannot be told. */
const placesOf = (placement: unknown): readonly string[] => {
  const textAt = (key: string): readonly string[] => {
    const text = valueAt(placement, key);
    return typeof text === 'string' ? [text] : [];
  };
  switch (kindOf(placement)) {
    case 'bearer':
    case 'basic':
      return ['header authorization'];
    case 'dpop':
      return ['header authorization', 'header dpop'];
    case 'header':
      return textAt('name').map((name) => `header ${sameNameKey(name)}`);
    case 'query':
      return textAt('name').map((name) => `query ${name.toLowerCase()}`);
    case 'cookie':
      return textAt('name').map((name) => `cookie ${name.toLowerCase()}`);
    case 'path_segment': {
      const segment = valueAt(placement, 'segment');
      return typeof segment === 'number' ? [`segment ${segment}`] : [];
    }
    case 'body_field':
      return textAt('format').flatMap((format) => textAt('field').map((field) => `${format} ${field}`));
    case 'hmac':
      return ['name', 'timestampName', 'nonceName'].flatMap(textAt).map((name) => `header ${sameNameKey(name)}`);
    case 'aws_sigv4':
      return [...awsFields.map((name) => `header ${name}`), ...awsParameters.map((name) => `query x-amz-${name}`)];
    default:
      return [];
  }
};

const isWithin = (inner: string, outer: string): boolean => inner === outer || inner.startsWith(`${outer}/`);

/** Whether writing one would replace the other. */
const meet = (one: string, other: string): boolean => {
  if (one === other) return true;
  // A whole field of cookies, and one of them.
  const isCookieOf = (field: string, cookie: string): boolean => field === 'header cookie' && cookie.startsWith('cookie ');
  if (isCookieOf(one, other) || isCookieOf(other, one)) return true;
  return one.startsWith('json ') && other.startsWith('json ') && (isWithin(one, other) || isWithin(other, one));
};

const bodyFormatOf = (places: readonly string[]): string | undefined => /^(json|form) /.exec(places[0] ?? '')?.[1];

const sharedPlaces = (placements: readonly Entry[]): Problem[] =>
  placements.flatMap((entry, index): Problem[] => {
    const places = placesOf(entry.value);
    const format = bodyFormatOf(places);
    for (const earlier of placements.slice(0, index)) {
      const taken = placesOf(earlier.value);
      const refuse = (message: string): Problem[] => [{ path: entry.path, at: 'value', message }];
      if (places.some((place) => taken.some((other) => meet(place, other))))
        return refuse(`writes where ${at(earlier)} writes, and one would replace the other, remove one or choose another place`);
      const other = bodyFormatOf(taken);
      if (format !== undefined && other !== undefined && format !== other)
        return refuse(
          `is in a body of format ${format}, ${at(earlier)} in one of format ${other}, and a request has one, remove one of the two`,
        );
    }
    return [];
  });

/** Each would sign a request that the other changes afterwards. */
const secondSignatures = (placements: readonly Entry[]): Problem[] =>
  repeated(
    placements.filter(({ value }) => ['hmac', 'aws_sigv4', 'dpop'].includes(kindOf(value) as string)),
    () => 'signature',
    (first) => `is a second signature beside ${at(first)}, and each would have to cover the other, remove one of the two`,
  );

// Forms -------------------------------------------------------------------------------------------------------------

const formByKind: { readonly [K in Placement['kind']]: CredentialForm } = {
  bearer: 'text',
  basic: 'text',
  header: 'text',
  query: 'text',
  cookie: 'text',
  path_segment: 'text',
  body_field: 'text',
  hmac: 'text',
  aws_sigv4: 'aws_keys',
  dpop: 'bound_token',
  client_certificate: 'certificate',
};

/** What a placement takes; undefined when it cannot be told. */
const formAt = (placement: unknown): CredentialForm | undefined => {
  const kind = kindOf(placement);
  return typeof kind === 'string' && Object.hasOwn(formByKind, kind) ? formByKind[kind as Placement['kind']] : undefined;
};

const formMessages: Readonly<Record<CredentialForm, string>> = {
  text: 'is written into the request, and its provider gives a certificate, write {kind: client_certificate}, or name another provider',
  certificate: 'takes a certificate, and its provider gives none, write the name of a provider of kind x509 or static_file',
  aws_keys: 'takes AWS access keys, and its provider gives none, write the name of a provider of kind static_file',
  bound_token:
    'takes a token that is bound to a key, and its provider gives none, write the name of a provider of kind jwt or oauth2_client_credentials',
};

const wrongForms = (document: unknown): Problem[] => {
  const kinds = new Map(itemsAt(document, 'providers').map(({ value }) => [valueAt(value, 'name'), valueAt(value, 'kind')]));
  const formsOf = (provider: unknown): readonly CredentialForm[] | undefined => {
    const kind = kinds.get(provider);
    return typeof kind === 'string' && Object.hasOwn(providerForms, kind) ? providerForms[kind as ProviderKind] : undefined;
  };
  return itemsAt(document, 'targets')
    .flatMap(({ path }) => itemsAt(document, ...path, 'credentials'))
    .flatMap(({ path, value }) => {
      const form = formAt(valueAt(value, 'placement'));
      const given = formsOf(valueAt(value, 'provider'));
      if (form === undefined || given === undefined || given.includes(form)) return [];
      return [{ path: [...path, 'placement'], at: 'value' as const, message: formMessages[form] }];
    });
};

/** A handshake shows one certificate, and a request in clear text has no handshake. */
const clientCertificates = ({ path, value }: Entry, placements: readonly Entry[]): Problem[] => {
  const shown = placements.filter((placement) => formAt(placement.value) === 'certificate');
  const again = repeated(
    shown,
    () => 'client_certificate',
    (first) => `is a second client certificate beside ${at(first)}, and a handshake shows one, remove one of the two`,
  );
  if (shown.length === 0 || valueAt(value, 'cleartext') !== 'allowed') return again;
  const message =
    'cannot stand beside a client certificate, which a request in clear text would go without, write refused, or remove the key';
  return [...again, { path: [...path, 'cleartext'], at: 'value', message }];
};

/** A certificate is no part of a request: where nothing else is placed, no program could show a placeholder. */
const placeholders = ({ path, value }: Entry, placements: readonly Entry[]): Problem[] => {
  const isShowable = placements.length === 0 || placements.some((placement) => formAt(placement.value) !== 'certificate');
  const placeholder = valueAt(value, 'placeholder');
  if (isShowable || typeof placeholder !== 'string' || placeholder === '') return [];
  const message = 'could stand nowhere, as nothing is written into the request, remove it';
  return [{ path: [...path, 'placeholder'], at: 'value', message }];
};

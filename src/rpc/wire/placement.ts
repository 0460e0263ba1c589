/** Placements as messages. What this version does not know, or could not write without guessing, reads as undefined: grant.ts refuses it. */
import type { AwsPlacement, HmacPlacement, Placement } from '../../core/grant.ts';
import { tokenPattern, writableValue } from '../../core/headers.ts';
import { limits } from '../../core/limits.ts';
import {
  aroundMark,
  credentialMark,
  isAwsRegion,
  isAwsService,
  isFormFieldName,
  isHmacPlacement,
  jsonPointer,
  pathSegmentMax,
  segmentTemplate,
} from '../../core/placement.ts';
import {
  AwsAlgorithm,
  type AwsSigV4Placement,
  BodyFormat,
  HmacAlgorithm,
  HmacEncoding,
  type HmacPlacement as HmacMessage,
  type Placement as PlacementMessage,
} from '../../proto/gen/outrider/v1/broker_pb.js';

const hmacAlgorithms = { sha256: HmacAlgorithm.SHA256, sha512: HmacAlgorithm.SHA512 } as const;
const hmacEncodings = { hex: HmacEncoding.HEX, base64: HmacEncoding.BASE64 } as const;
const awsAlgorithms = { sigv4: AwsAlgorithm.SIGV4, sigv4a: AwsAlgorithm.SIGV4A } as const;
const bodyFormats = { json: BodyFormat.JSON, form: BodyFormat.FORM } as const;

/** The key of a number in one of these tables; undefined for a later version's. */
const keyOf = <K extends string>(table: Readonly<Record<K, number>>, value: number): K | undefined =>
  (Object.keys(table) as K[]).find((key) => table[key] === value);

export const placementMessage = (placement: Placement): PlacementMessage => ({
  $typeName: 'outrider.v1.Placement',
  kind: kindMessage(placement),
});

const kindMessage = (placement: Placement): PlacementMessage['kind'] => {
  switch (placement.kind) {
    case 'bearer':
      return { case: 'bearer', value: { $typeName: 'outrider.v1.BearerPlacement' } };
    case 'basic':
      return { case: 'basic', value: { $typeName: 'outrider.v1.BasicPlacement', username: placement.username } };
    case 'header':
      return { case: 'header', value: { $typeName: 'outrider.v1.HeaderPlacement', name: placement.name, template: placement.template } };
    case 'query':
      return { case: 'query', value: { $typeName: 'outrider.v1.QueryPlacement', name: placement.name } };
    case 'cookie':
      return { case: 'cookie', value: { $typeName: 'outrider.v1.CookiePlacement', name: placement.name } };
    case 'path_segment': {
      const { segment, template } = placement;
      return { case: 'pathSegment', value: { $typeName: 'outrider.v1.PathSegmentPlacement', segment, template } };
    }
    case 'body_field': {
      const { format, field } = placement;
      return { case: 'bodyField', value: { $typeName: 'outrider.v1.BodyFieldPlacement', format: bodyFormats[format], field } };
    }
    case 'hmac': {
      const { kind: _, algorithm, encoding, ...texts } = placement;
      const named = { algorithm: hmacAlgorithms[algorithm], encoding: hmacEncodings[encoding] };
      return { case: 'hmac', value: { $typeName: 'outrider.v1.HmacPlacement', ...texts, ...named } };
    }
    case 'aws_sigv4': {
      const { algorithm, service, region } = placement;
      const value = { $typeName: 'outrider.v1.AwsSigV4Placement' as const, algorithm: awsAlgorithms[algorithm], service, region };
      return { case: 'awsSigv4', value };
    }
    case 'dpop':
      return { case: 'dpop', value: { $typeName: 'outrider.v1.DpopPlacement' } };
    case 'client_certificate':
      return { case: 'clientCertificate', value: { $typeName: 'outrider.v1.ClientCertificatePlacement' } };
  }
};

export const placementOf = ({ kind }: PlacementMessage): Placement | undefined => {
  switch (kind.case) {
    case 'bearer':
      return { kind: 'bearer' };
    case 'basic': {
      const { username } = kind.value;
      // RFC 7617 section 2: a colon would end the user name early.
      return !username.includes(':') && isField(username) ? { kind: 'basic', username } : undefined;
    }
    case 'header': {
      const { name, template } = kind.value;
      const isTemplate = isField(template) && aroundMark(template, credentialMark) !== undefined;
      return isName(name) && isTemplate ? { kind: 'header', name, template } : undefined;
    }
    case 'query': {
      const { name } = kind.value;
      return name !== '' && name.length <= limits.requestTargetBytesMax ? { kind: 'query', name } : undefined;
    }
    case 'cookie': {
      const { name } = kind.value;
      return isName(name) ? { kind: 'cookie', name } : undefined;
    }
    case 'pathSegment': {
      const { segment, template } = kind.value;
      const isPlace = segment >= 1 && segment <= pathSegmentMax && segmentTemplate(template) !== undefined;
      return isPlace ? { kind: 'path_segment', segment, template } : undefined;
    }
    case 'bodyField': {
      const { field } = kind.value;
      const format = keyOf(bodyFormats, kind.value.format);
      if (format === 'json' && jsonPointer(field) === undefined) return undefined;
      if (format === 'form' && !isFormFieldName(field)) return undefined;
      return format && { kind: 'body_field', format, field };
    }
    case 'hmac':
      return hmacOf(kind.value);
    case 'awsSigv4':
      return awsOf(kind.value);
    case 'dpop':
      return { kind: 'dpop' };
    case 'clientCertificate':
      return { kind: 'client_certificate' };
    case undefined:
      return undefined;
  }
};

const hmacOf = ({ message, name, template, timestampName, nonceName, ...numbers }: HmacMessage): HmacPlacement | undefined => {
  const algorithm = keyOf(hmacAlgorithms, numbers.algorithm);
  const encoding = keyOf(hmacEncodings, numbers.encoding);
  if (algorithm === undefined || encoding === undefined) return undefined;
  const placement: HmacPlacement = { kind: 'hmac', algorithm, message, encoding, name, template, timestampName, nonceName };
  return isHmacPlacement(placement) ? placement : undefined;
};

const awsOf = ({ service, region, ...numbers }: AwsSigV4Placement): AwsPlacement | undefined => {
  const algorithm = keyOf(awsAlgorithms, numbers.algorithm);
  if (algorithm === undefined || !isAwsService(service) || !isAwsRegion(region, algorithm)) return undefined;
  return { kind: 'aws_sigv4', algorithm, service, region };
};

const isField = (value: string): boolean => value.length <= limits.headerBytesMax && writableValue(value);

const isName = (name: string): boolean => tokenPattern.test(name) && name.length <= limits.headerBytesMax;

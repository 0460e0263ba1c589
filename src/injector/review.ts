/**
 * AdmissionReview v1 in and out: bytes of the API server → the pod to decide about; a decision → the answer. Pure. What is no review that we
 * know is a sentence, never a guess. https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
 */
import { isJsonObject, type JsonObject } from '../core/json.ts';
import { isDnsLabel, isDnsSubdomain } from '../core/object-name.ts';
import type { Decision } from './decide.ts';
import { patchOf } from './patch.ts';
import { type Pod, readPod } from './pod.ts';

export interface Review {
  readonly uid: string;
  readonly namespace: string;
  /** Nothing may be changed beside the pod. */
  readonly isDryRun: boolean;
  readonly pod: Pod;
}

const version = 'admission.k8s.io/v1';

export const readReview = (text: string): Review | { readonly problem: string } => {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    return { problem: 'the body is not JSON' };
  }
  if (!isJsonObject(document) || document['kind'] !== 'AdmissionReview' || document['apiVersion'] !== version)
    return { problem: `the body is not an AdmissionReview of ${version}` };
  const { request } = document;
  if (!isJsonObject(request)) return { problem: 'the review has no request' };
  const { uid, namespace, operation, resource, subResource = '', dryRun, object } = request;
  if (typeof uid !== 'string' || uid === '' || uid.length > 256) return { problem: 'the request has no uid' };
  const { group, version: resourceVersion, resource: kind } = isJsonObject(resource) ? resource : {};
  if (group !== '' || resourceVersion !== 'v1' || kind !== 'pods' || subResource !== '')
    return { problem: 'the request is not about a pod' };
  if (operation !== 'CREATE') return { problem: 'the request does not create a pod' };
  if (typeof namespace !== 'string' || namespace === '') return { problem: 'the request has no namespace' };
  // The API server has checked its own; this may be somebody else, and the name becomes part of a path.
  if (!isDnsLabel(namespace)) return { problem: 'the namespace of the request is no DNS label' };
  const pod = readPod(object);
  return pod === undefined ? { problem: 'the object is not a pod' } : { uid, namespace, isDryRun: dryRun === true, pod };
};

/** A warning is shown by kubectl; the API server cuts longer ones. */
const warningCharsMax = 256;
const warningsMax = 8;

export const answerOf = ({ uid, pod }: Review, decision: Decision): JsonObject => {
  const response = { uid, allowed: decision.kind !== 'denied', ...detailOf(pod, decision) };
  return { apiVersion: version, kind: 'AdmissionReview', response };
};

const detailOf = (pod: Pod, decision: Decision): JsonObject => {
  if (decision.kind === 'unchanged') return {};
  if (decision.kind === 'denied')
    return { status: { code: 403, reason: 'Forbidden', message: `outrider cannot be put into this pod: ${decision.reasons.join('; ')}` } };
  const patch = patchOf(pod, decision.pod);
  const warnings = decision.notes.slice(0, warningsMax).map((note) => `outrider: ${note}`.slice(0, warningCharsMax));
  return {
    ...(patch.length === 0 ? {} : { patchType: 'JSONPatch', patch: Buffer.from(JSON.stringify(patch)).toString('base64') }),
    ...(warnings.length === 0 ? {} : { warnings }),
  };
};

interface About {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
}

/** Whom a remark is about: what makes the pod, or the pod when it has a name. No text that is no name goes into a remark. */
export const aboutOf = ({ metadata }: Pod): About | undefined => {
  const { apiVersion, kind, name, uid } = metadata.ownerReferences?.find(({ controller }) => controller === true) ?? {};
  if (typeof apiVersion === 'string' && typeof kind === 'string' && typeof name === 'string' && typeof uid === 'string') {
    const isNamed = isDnsSubdomain(name) && /^[A-Za-z][A-Za-z0-9]{0,62}$/.test(kind) && /^[-A-Za-z0-9]{1,64}$/.test(uid);
    return isNamed && apiVersion.split('/').every(isDnsSubdomain) ? { apiVersion, kind, name, uid } : undefined;
  }
  return metadata.name === undefined || !isDnsSubdomain(metadata.name)
    ? undefined
    : { apiVersion: 'v1', kind: 'Pod', name: metadata.name, uid: '' };
};

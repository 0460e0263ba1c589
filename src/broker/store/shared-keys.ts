/**
 * Keys in a Kubernetes Secret, which all replicas of a broker read and write. There is no lock and no leader: a replica reads, decides
 * what is to be there, and replaces the object with the resourceVersion that it read; where another one was first, that is a conflict,
 * and it reads and decides again. So two that start on an empty Secret end with the keys of one. The Secret exists already:
 * the broker may get and update it by its name, and neither list nor create.
 */
import { isJsonObject, type JsonObject } from '../../core/json.ts';
import { limits } from '../../core/limits.ts';
import { ApiError, type ApiServer } from '../../net/api-server.ts';
import type { Decide, KeyStore } from '../store.ts';
import { type KeyDocument, keyDocumentText, readKeyDocument } from './key-document.ts';
import { StoreError } from './store-error.ts';

/** In the Secret's `data`; other entries are left as they are. */
const entry = 'keys.json';

export interface SharedKeysPlace {
  readonly namespace: string;
  readonly secret: string;
}

/** Every method throws ApiError when the Secret could not be read or written, and StoreError when it cannot be used. */
export const createSharedKeys = (api: Pick<ApiServer, 'get' | 'replace'>, { namespace, secret }: SharedKeysPlace): KeyStore => {
  const path = `/api/v1/namespaces/${namespace}/secrets/${secret}`;
  const name = `Secret ${namespace}/${secret}`;

  const read = async (): Promise<{ readonly object: JsonObject; readonly document: KeyDocument }> => {
    const object = await api.get(path);
    if (object === undefined) throw new ApiError('GET', path, { status: 404, reason: 'NotFound' });
    const text = dataOf(object)[entry];
    if (text === undefined) return { object, document: { authorities: [], signingKeys: [] } };
    // No other type can come from an API server; one that did would not parse.
    return {
      object,
      document: readKeyDocument(Buffer.from(typeof text === 'string' ? text : '', 'base64').toString(), `${name}, ${entry}`),
    };
  };

  const change = async (decide: (document: KeyDocument) => Promise<KeyDocument | undefined>): Promise<KeyDocument> => {
    for (let attempt = 1; attempt <= limits.sharedKeysAttemptsMax; attempt += 1) {
      const { object, document } = await read();
      const next = await decide(document);
      if (next === undefined) return document;
      const text = keyDocumentText(next, `${name}, ${entry}`);
      try {
        // Its metadata has the resourceVersion that was read.
        await api.replace(path, { ...object, data: { ...dataOf(object), [entry]: Buffer.from(text).toString('base64') } });
        return readKeyDocument(text, name);
      } catch (error) {
        if (!(error instanceof ApiError && error.isConflict)) throw error;
      }
    }
    throw new StoreError(`${name} was changed by others ${limits.sharedKeysAttemptsMax} times in a row: look what writes to it.`);
  };

  const changePart = async <P extends keyof KeyDocument>(part: P, decide: Decide<KeyDocument[P][number]>): Promise<KeyDocument[P]> => {
    const changed = await change(async (document) => {
      const next = await decide(document[part]);
      return next && { ...document, [part]: next };
    });
    return changed[part];
  };

  return {
    name,
    authorities: async () => (await read()).document.authorities,
    signingKeys: async () => (await read()).document.signingKeys,
    changeAuthorities: (decide) => changePart('authorities', decide),
    changeSigningKeys: (decide) => changePart('signingKeys', decide),
  };
};

const dataOf = ({ data }: JsonObject): JsonObject => (isJsonObject(data) ? data : {});

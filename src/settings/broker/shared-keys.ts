/** How an operator writes where several brokers keep the keys that they share. */
import { url } from '../address.ts';
import type { SharedKeysSettings } from '../broker.ts';
import { keys } from '../grammar.ts';
import { filePath, objectName } from '../text.ts';

const serviceAccount = '/var/run/secrets/kubernetes.io/serviceaccount';

export const sharedKeys = keys(
  {
    apiServer: url({ write: 'https://kubernetes.default.svc', strict: true }),
    caFile: filePath(`${serviceAccount}/ca.crt`).optional(),
    tokenFile: filePath(`${serviceAccount}/token`),
    namespace: objectName({ what: 'the name of a namespace', write: 'the one that the Secret is in, such as outrider' }),
    secret: objectName({ what: 'the name of a Secret', write: 'one that exists, such as outrider-keys' }),
    configMap: objectName({ what: 'the name of a ConfigMap', write: 'one that exists, such as outrider-trust' }),
  },
  '{apiServer: https://kubernetes.default.svc, tokenFile: PATH, namespace: outrider, secret: outrider-keys, configMap: outrider-trust}',
).transform(({ caFile, ...written }): SharedKeysSettings => ({ ...written, caFile }));

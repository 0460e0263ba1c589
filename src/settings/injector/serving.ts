/** How an operator writes where the webhook's certificate comes from: made here, or by somebody else into files. */
import * as z from 'zod';
import { host } from '../address.ts';
import { keys, list } from '../grammar.ts';
import { filePath, objectName } from '../text.ts';

export type ServingSettings =
  | {
      readonly kind: 'selfSigned';
      /** Exists, empty at first; every replica serves what is in it. */
      readonly secret: string;
      readonly dnsNames: readonly string[];
      /** Whose webhooks get the authority as caBundle. */
      readonly webhookConfiguration: string;
    }
  | { readonly kind: 'files'; readonly certFile: string; readonly keyFile: string };

const selfSigned = keys(
  {
    secret: objectName({ what: 'the name of a Secret', write: 'one that exists, such as outrider-injector-tls' }),
    dnsNames: list(host, { write: '[outrider-injector.outrider.svc]', min: 1 }),
    webhookConfiguration: objectName({
      what: 'the name of a MutatingWebhookConfiguration',
      write: 'the one that leads here, such as outrider-injector',
    }),
  },
  '{secret: outrider-injector-tls, dnsNames: [outrider-injector.outrider.svc], webhookConfiguration: outrider-injector}',
);

const files = keys(
  { certFile: filePath('/etc/outrider/tls/tls.crt'), keyFile: filePath('/etc/outrider/tls/tls.key') },
  '{certFile: /etc/outrider/tls/tls.crt, keyFile: /etc/outrider/tls/tls.key}',
);

export const serving = keys({ selfSigned: selfSigned.optional(), files: files.optional() }, 'a mapping with selfSigned or files').transform(
  (written, context): ServingSettings => {
    if (written.selfSigned && !written.files) return { kind: 'selfSigned', ...written.selfSigned };
    if (written.files && !written.selfSigned) return { kind: 'files', ...written.files };
    context.addIssue({ code: 'custom', message: 'must have exactly one of selfSigned and files, write one of them' });
    return z.NEVER;
  },
);

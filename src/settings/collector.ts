/** What an operator writes for the collector. */
import * as z from 'zod';
import { type ListenAddress, listenAddress } from './address.ts';
import { keys } from './grammar.ts';
import { type IdentitySettings, identity } from './identity.ts';
import { type LogLevel, log } from './logging.ts';
import { identityFiles, missingFiles } from './missing-files.ts';
import { type Problem, sharedListeners } from './reference.ts';
import { filePath } from './text.ts';

export interface CollectorSettings {
  readonly kind: 'collector';
  readonly listen: ListenAddress;
  readonly admin: ListenAddress;
  /** The collector gets its serving certificate as every workload does: by attestation at the broker. */
  readonly identity: IdentitySettings;
  readonly store: {
    /** JSON lines, appended and synced before an acknowledgement. */
    readonly file: string;
  };
  readonly log: { readonly level: LogLevel };
}

export const collectorSchema = keys(
  {
    kind: z.literal('collector'),
    listen: listenAddress,
    admin: listenAddress,
    identity,
    store: keys({ file: filePath('/var/lib/outrider/events.jsonl') }, '{file: /var/lib/outrider/events.jsonl}'),
    log,
  },
  'a mapping',
).transform((written): CollectorSettings => written);

export const collectorReferences = (document: unknown): Problem[] => sharedListeners(document, [['listen'], ['admin']]);

export const collectorWarnings = ({ identity }: CollectorSettings): readonly string[] => missingFiles(identityFiles(identity));

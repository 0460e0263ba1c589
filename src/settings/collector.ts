/** What an operator writes for the collector. */
import type { IdentitySettings, ListenAddress, LogLevel } from './proxy.ts';

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

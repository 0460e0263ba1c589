/**
 * A long-lived value from a mounted file: a migration step for targets that know nothing better, counted as debt. Read for
 * every grant; the grant lives no longer than `recheckMs`, so a rotated file counts from then on.
 */
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import { Secret } from '../../core/secret.ts';
import type { StaticFileProviderSettings } from '../../settings/broker.ts';
import type { Obtain, ProviderDeps } from '../provider.ts';
import { readSecretFile } from './secret-source.ts';

/** A trailing newline is not part of the value. */
const newlineBytesMax = 2;

export const staticFile =
  ({ name, file, recheckMs }: StaticFileProviderSettings, { clock }: ProviderDeps): Obtain =>
  async () => {
    try {
      const value = new Secret(await readSecretFile(file, limits.credentialBytesMax + newlineBytesMax));
      return { value, expiresAtMs: clock.now() + recheckMs };
    } catch (error) {
      throw new Fault('credential_unavailable', {
        detail: `The file of provider ${name} cannot be read.`,
        cause: new Error(`file ${file} is missing or unreadable`, { cause: error }),
      });
    }
  };

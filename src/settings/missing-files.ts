/**
 * Files that a configuration names and that are not there. Their paths are not shown: a secret that was written in the place
 * of its file must not be.
 */
import { existsSync } from 'node:fs';
import type { IdentitySettings } from './identity.ts';

export type NamedFile = readonly [where: string, file: string | undefined];

export const missingFiles = (named: readonly NamedFile[]): string[] =>
  named.flatMap(([where, file]) =>
    file === undefined || existsSync(file) ? [] : [`${where}: there is no such file here (it may be mounted later)`],
  );

export const identityFiles = ({ brokerCaFile, tokenFile }: IdentitySettings): readonly NamedFile[] => [
  ['identity.brokerCaFile', brokerCaFile],
  ['identity.tokenFile', tokenFile],
];

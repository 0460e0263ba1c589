/**
 * The interception authority between two processes of one pod: private key and certificate in one file, in a memory-backed volume
 * that the proxy's container alone mounts. A file that anybody else could have read or written is not used, and never stops the start.
 */
import { X509Certificate } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, readFileSync, type Stats, statfsSync } from 'node:fs';
import { dirname } from 'node:path';
import { limits } from '../../../core/limits.ts';
import { type Authority, loadAuthority } from '../../../pki/authority.ts';
import { readCertificate } from '../../../pki/certificate.ts';
import { elementsOf, expectTag, onlyElement, tags } from '../../../pki/der.ts';
import { basicConstraints, extendedKeyUsage, keyUsage } from '../../../pki/extension.ts';
import { replaceFile } from './replace-file.ts';
import { authorityNamePrefix } from './roots.ts';

export type Stored =
  | { readonly kind: 'found'; readonly authority: Authority; readonly commonName: string }
  | { readonly kind: 'absent' }
  | { readonly kind: 'refused'; readonly reason: string; readonly cause?: unknown };

const refused = (reason: string, cause?: unknown): Stored => ({ kind: 'refused', reason, cause });

export const readState = (file: string, nowMs: number): Stored => {
  let descriptor: number;
  try {
    // Judged and read through one descriptor, so that nothing is exchanged in between; a pipe is not waited for.
    descriptor = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return { kind: 'absent' };
    return refused(code === 'ELOOP' ? 'it is a symbolic link' : 'it cannot be opened', error);
  }
  try {
    const exposed = exposure(fstatSync(descriptor));
    return exposed === undefined ? parse(readFileSync(descriptor, 'latin1'), nowMs) : refused(exposed);
  } catch (error) {
    return refused('it cannot be read', error);
  } finally {
    closeSync(descriptor);
  }
};

/** Why somebody else may know or have made what is in it. */
const exposure = (found: Stats): string | undefined => {
  if (!found.isFile()) return 'it is not a regular file';
  if (found.uid !== process.geteuid?.()) return 'it belongs to another user';
  if ((found.mode & 0o077) !== 0) return 'others may read or write it, so its key counts as known';
  if (found.nlink !== 1) return 'it has a second name';
  if (found.size > limits.interceptionStateBytesMax) return 'it is too large';
  return undefined;
};

const parse = (text: string, nowMs: number): Stored => {
  let authority: Authority;
  try {
    authority = loadAuthority(text, text);
  } catch (error) {
    return refused('it does not hold one authority and its key', error);
  }
  const certificate = new X509Certificate(authority.certificateDer);
  const commonName = new RegExp(`^CN=(${authorityNamePrefix}[^\\n]*)$`).exec(certificate.subject)?.[1];
  if (commonName === undefined || !certificate.verify(certificate.publicKey) || !isConstrained(authority))
    return refused('its authority is not one for interception');
  if (certificate.validFromDate.getTime() > nowMs) return refused('its authority is not valid yet');
  if (authority.notAfterMs - nowMs < limits.interceptionAuthorityRemainderMs) return refused('its authority expires soon');
  return { kind: 'found', authority, commonName };
};

/** Leaves below it only, for servers only, for certain hosts only. */
const isConstrained = ({ certificateDer }: Authority): boolean => {
  const { extension } = readCertificate(certificateDer);
  return (
    extension('nameConstraints') !== undefined &&
    extension('basicConstraints')?.equals(valueOf(basicConstraints('authority'))) === true &&
    extension('keyUsage')?.equals(valueOf(keyUsage('keyCertSign'))) === true &&
    extension('extendedKeyUsage')?.equals(valueOf(extendedKeyUsage('serverAuth'))) === true
  );
};

/** What stands in an extension: its last part, after the id and whether it is critical. */
export const valueOf = (extension: Buffer): Buffer =>
  expectTag(elementsOf(onlyElement(extension, tags.sequence, 'the extension').content).at(-1), tags.octetString, 'its value').content;

export const writeState = (file: string, { certificatePem, key }: Authority): void =>
  replaceFile(file, certificatePem + (key.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string), 0o600);

/** tmpfs and ramfs, by their numbers in statfs(2). */
const memoryBacked = new Set([0x0102_1994, 0x8584_58f6]);

/** Whether what is written beside the file ends with the pod's memory; false when that cannot be told. */
export const isMemoryBacked = (file: string): boolean => {
  try {
    return memoryBacked.has(statfsSync(dirname(file)).type);
  } catch {
    return false;
  }
};

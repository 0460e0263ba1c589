/**
 * What a role calls an API server or an issuer with: the authorities it trusts and its own token. Read anew for every use, because the
 * kubelet replaces both under a running role.
 */
import { open } from 'node:fs/promises';
import { limits } from '../core/limits.ts';
import { Secret } from '../core/secret.ts';

/** PEM, or undefined (the system's roots) when no file is configured. Throws when the file holds no certificate. */
export const readCaFile = async (file: string | undefined): Promise<string | undefined> => {
  if (file === undefined) return undefined;
  const pem = await readBounded(file, limits.configurationBytesMax);
  if (!pem.includes('-----BEGIN CERTIFICATE-----')) throw new Error(`${file} holds no certificate`);
  return pem;
};

/** RFC 6750 section 2.1. Throws when the file does not hold one bearer token. */
export const readBearerFile = async (file: string): Promise<Secret> => {
  const text = (await readBounded(file, limits.evidenceBytesMax)).trim();
  if (!/^[A-Za-z0-9._~+/-]+=*$/.test(text)) throw new Error(`${file} does not hold one bearer token`);
  return new Secret(text);
};

const readBounded = async (file: string, bytesMax: number): Promise<string> => {
  await using handle = await open(file, 'r');
  // One byte more than permitted tells a file that is too long from one that just fits.
  const buffer = Buffer.alloc(bytesMax + 1);
  let length = 0;
  for (;;) {
    const { bytesRead } = await handle.read(buffer, length, buffer.length - length, null);
    length += bytesRead;
    if (length > bytesMax) throw new Error(`${file} is longer than ${bytesMax} bytes`);
    if (bytesRead === 0) return buffer.toString('utf8', 0, length);
  }
};

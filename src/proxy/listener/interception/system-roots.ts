/**
 * The roots of the system as Node finds them on Linux (SSL_CERT_FILE and SSL_CERT_DIR, else OpenSSL's places), read as text. Node's own
 * function parses each of them, once for every name it has in the directory, and keeps the result: a third of the time from the start of
 * a proxy to its listening. What they are is judged in roots.ts.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { getCACertificates } from 'node:tls';
import { limits } from '../../../core/limits.ts';

export interface SystemPlaces {
  readonly file: string;
  readonly directory: string;
}

/** `X509_get_default_cert_file` and `_dir` of the OpenSSL in Node's releases, and what overrules them. */
const placesOf = (env: NodeJS.ProcessEnv): SystemPlaces => ({
  file: env['SSL_CERT_FILE'] ?? '/etc/ssl/cert.pem',
  directory: env['SSL_CERT_DIR'] ?? '/etc/ssl/certs',
});

/** PEM texts. Throws where the system cannot tell. */
export const readSystemRoots = (): readonly string[] => {
  const texts = process.platform === 'linux' ? textsIn(placesOf(process.env)) : [];
  return texts.length > 0 ? texts : getCACertificates('system');
};

/** The text of each file that has a certificate in it, once however many names it has. What cannot be read is passed over. */
export const textsIn = ({ file, directory }: SystemPlaces): readonly string[] => {
  const seen = new Set<string>();
  const texts: string[] = [];
  for (const path of [file, ...namesIn(directory).map((name) => join(directory, name))]) {
    try {
      const { dev, ino, size, isFile } = asFile(path);
      const id = `${dev}:${ino}`;
      if (!isFile || size > limits.trustFileBytesMax || seen.has(id)) continue;
      seen.add(id);
      const text = readFileSync(path, 'latin1');
      if (text.includes('-----BEGIN CERTIFICATE-----')) texts.push(text);
    } catch {
      // Gone, or not for us: a store with some files less is still one.
    }
  }
  return texts;
};

const namesIn = (directory: string): readonly string[] => {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
};

const asFile = (path: string) => {
  const stat = statSync(path);
  return { dev: stat.dev, ino: stat.ino, size: stat.size, isFile: stat.isFile() };
};

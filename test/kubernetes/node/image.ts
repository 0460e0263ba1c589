/**
 * What stands in for images: there is no registry and no container runtime here, so a container's file system is this machine's, with the
 * image's own files laid over it. Outrider's images are read from the Dockerfile: the bundle of this checkout with its entrypoint, environment and user.
 * `node` has Node. Any other image has nothing of its own and runs the `command` of its container, as root unless the pod says otherwise.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Image {
  readonly entrypoint: readonly string[];
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly uid: number;
  readonly gid: number;
  /** Path in the container → path on this machine. */
  readonly files: Readonly<Record<string, string>>;
}

const dockerfile = join(import.meta.dirname, '../../../Dockerfile');

const plain: Image = { entrypoint: [], command: [], environment: {}, uid: 0, gid: 0, files: {} };

/** The last stage, or the one with this name. */
const fromDockerfile = (bundle: string, stage?: string): Image => {
  const stages = readFileSync(dockerfile, 'utf8').split(/^(?=FROM )/m);
  const text = stage === undefined ? stages.at(-1) : stages.find((one) => new RegExp(`^FROM .* AS ${stage}$`, 'm').test(one));
  if (text === undefined) throw new Error(`the Dockerfile has no stage ${stage}`);
  const list = (word: string): string[] => JSON.parse(new RegExp(`^${word} (\\[.*\\])$`, 'm').exec(text)?.[1] ?? '[]') as string[];
  const [, uid = '0', gid = '0'] = /^USER (\d+):(\d+)$/m.exec(text) ?? [];
  const entrypoint = list('ENTRYPOINT');
  return {
    entrypoint,
    command: list('CMD'),
    environment: Object.fromEntries([...text.matchAll(/^ENV (\w+)=(.*)$/gm)].map(([, name, value]) => [name as string, value as string])),
    uid: Number(uid),
    gid: Number(gid),
    files: { '/outrider': bundle, [entrypoint[0] as string]: process.execPath },
  };
};

/** `registry.example/any/outrider:1.2@sha256:…` → outrider */
const nameOf = (reference: string): string => (reference.split('/').at(-1) as string).split(/[:@]/, 1)[0] as string;

/** `bundle`: what `npm run build` made. */
export const imageOf = (reference: string, bundle: string): Image => {
  const name = nameOf(reference);
  if (name === 'outrider') return fromDockerfile(bundle);
  if (name === 'outrider-steer') return fromDockerfile(bundle, 'steer');
  // For programs on Node, which need not be installed on this machine.
  if (name === 'node') return { ...plain, files: { '/usr/local/bin/node': process.execPath } };
  return plain;
};

/** Where a cell of the matrix runs: a way in to the proxy, the origin behind it, and what a client is told. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { AwsTestKeys } from '../support/aws-verifier.ts';
import { writeWhole } from '../support/stack.ts';
import type { Origin } from './origin.ts';
import type { Mode } from './table.ts';

/** Targets of the proxy; `db` is none. */
export const hosts = {
  api: 'api.outrider.test',
  /** A target whose protocol is h2. */
  h2: 'h2.outrider.test',
  grpc: 'grpc.outrider.test',
  /** A target whose requests are signed for AWS. */
  s3: 's3.outrider.test',
  db: 'db.outrider.test',
} as const;

/** `caFile`: who vouches for the origin, which no system knows. */
export const targetsYaml = (caFile: string): string => `  - name: api
    hosts: [${hosts.api}]
    ports: [443, 80]
    cleartext: allowed
    caFile: ${caFile}
    credentials: [{ provider: own, placement: { kind: bearer } }]
  - name: h2
    hosts: [${hosts.h2}]
    protocol: h2
    caFile: ${caFile}
    credentials: [{ provider: own, placement: { kind: bearer } }]
  - name: grpc
    hosts: [${hosts.grpc}]
    ports: [443, 80]
    cleartext: allowed
    caFile: ${caFile}
    credentials: [{ provider: own, placement: { kind: bearer } }]
  - name: s3
    hosts: [${hosts.s3}]
    ports: [443, 80]
    cleartext: allowed
    caFile: ${caFile}
    paths: verbatim
    credentials: [{ provider: aws, placement: { kind: aws_sigv4, service: s3, region: ${awsRegion} } }]`;

export const awsRegion = 'eu-west-1';

/** What the broker has and no client sees. */
export const awsKeys: AwsTestKeys = {
  accessKeyId: `TEST${randomBytes(8).toString('hex').toUpperCase()}`,
  secretAccessKey: randomBytes(30).toString('base64'),
  sessionToken: randomBytes(60).toString('base64'),
};

/** Writes the keys into a directory, as the file that a provider reads. */
export const providersYaml = (directory: string): string => {
  const file = join(directory, 'aws-keys.json');
  const { accessKeyId, secretAccessKey, sessionToken } = awsKeys;
  writeWhole(file, JSON.stringify({ AccessKeyId: accessKeyId, SecretAccessKey: secretAccessKey, SessionToken: sessionToken }));
  return `  - { kind: jwt, name: own, audience: "https://api.outrider.test", lifetime: 5m }
  - { kind: static_file, name: aws, file: ${file} }`;
};

export const policiesYaml = `  - name: clients
    rules:
      - { name: use, effect: allow, workloads: [demo-app], targets: [api, h2, grpc, s3] }
      - { name: no-admin, effect: deny, targets: [api, grpc], paths: ["/admin/**", "/outrider.test.Echo/Forbidden"] }`;

export interface Place {
  readonly mode: Mode;
  readonly origin: Origin;
  /** A directory of its own for what a client writes. */
  readonly directory: string;
  readonly originCaFile: string;
  readonly bundleFile: string;
  /** The environment of a client that needs these variables; those of the proxy are there when it is to be told of it. */
  readonly environment: (variables: readonly string[]) => NodeJS.ProcessEnv;
  /** Where a program runs: `[program, …args]` as it must be started from here. */
  readonly within: (command: readonly string[]) => readonly string[];
}

export interface Output {
  readonly stdout: string;
  readonly stderr: string;
}

const start = promisify(execFile);

/** Runs a client to its end; its whole output stands in the error when it fails. */
export const runIn = async (
  place: Place,
  variables: readonly string[],
  command: readonly string[],
  cwd = place.directory,
): Promise<Output> => {
  const [program, ...args] = place.within(command) as [string, ...string[]];
  try {
    return await start(program, args, { cwd, env: place.environment(variables), timeout: 60_000, maxBuffer: 64 * 1_048_576 });
  } catch (error) {
    const { stdout = '', stderr = '', code, signal } = error as Partial<Output> & { code?: number; signal?: string };
    throw new Error(`${command.join(' ')} ended with ${code ?? signal}\n${stderr}\n${stdout}`, { cause: error });
  }
};

/** What its output says, a JSON line each. */
export const linesOf = (stdout: string): Record<string, unknown>[] =>
  stdout
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);

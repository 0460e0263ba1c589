/**
 * How the cost grows: with targets, connections, sizes of bodies, streams of HTTP/2 and gRPC. Each part has proxies of its own, measures
 * in rounds that alternate, and fails on a wrong answer only.
 */
import type { Test } from 'tap';
import type { TestAuthority } from '../support/certificates.ts';
import { bodiesPart } from './growth/bodies.ts';
import { connectionsPart } from './growth/connections.ts';
import { grpcPart } from './growth/grpc.ts';
import { streamsPart } from './growth/streams.ts';
import { targetsPart } from './growth/targets.ts';
import type { Effort } from './compare.ts';
import type { Ask } from './load.ts';
import type { Origin } from './origin.ts';
import type { Growth } from './report.ts';

export interface Ground {
  readonly t: Test;
  readonly dir: string;
  readonly bundle: string;
  /** The load program. */
  readonly program: string;
  readonly ask: Ask;
  readonly origin: Origin;
  readonly authority: TestAuthority;
  readonly effort: Effort;
  readonly say: (text: string) => void;
}

export type Part = (ground: Ground) => Promise<Growth>;

export const growthParts: Readonly<Record<string, Part>> = {
  targets: targetsPart,
  connections: connectionsPart,
  bodies: bodiesPart,
  streams: streamsPart,
  grpc: grpcPart,
};

/** Requests as inject gets them, and what it makes of them: for tests of placements, without sockets. */
import { createBudget } from '../../src/core/budget.ts';
import type { Destination } from '../../src/core/destination.ts';
import { Fault } from '../../src/core/fault.ts';
import type { PlacedCredential, Placement } from '../../src/core/grant.ts';
import type { HeaderList } from '../../src/core/headers.ts';
import { limits } from '../../src/core/limits.ts';
import { Secret } from '../../src/core/secret.ts';
import type { Target } from '../../src/core/target.ts';
import type { Authorized, BodySource, Prepared } from '../../src/proxy/exchange.ts';
import { heldBody } from '../../src/proxy/hold.ts';
import { inject, needsWholeBody, type PlaceContext } from '../../src/proxy/inject.ts';
import { grantOf, target } from './path.ts';

export interface Asked {
  readonly method?: string;
  readonly path?: string;
  readonly query?: string;
  readonly headers?: HeaderList;
  readonly body?: string | Uint8Array;
  readonly trailers?: HeaderList;
  readonly destination?: Partial<Destination>;
  readonly target?: Partial<Target>;
}

export const credential = (placement: Placement, value: string): PlacedCredential => ({
  placement,
  value: new Secret(value),
  providerKind: 'static_file',
  provider: 'test',
  fingerprint: 'f00',
  expiresAtMs: Date.now() + 600_000,
});

/** A body that arrives in these pieces. */
export const bodyIn = (chunks: readonly Uint8Array[], trailers: HeaderList = []): BodySource => ({
  chunks: {
    async *[Symbol.asyncIterator]() {
      yield* chunks;
    },
  },
  bytes: () => chunks.reduce((sum, { length }) => sum + length, 0),
  trailers: () => trailers,
});

export const asking = (asked: Asked, ...credentials: readonly PlacedCredential[]): Authorized => {
  const { method = 'GET', path = '/v1/things', query = '', headers = [], body, trailers = [] } = asked;
  const of = target('api', asked.target);
  return {
    method,
    path: { path, query },
    headers,
    body: body === undefined ? undefined : bodyIn([Buffer.from(body)], trailers),
    destination: { scheme: 'https', host: 'api.outrider.test', port: 443, ...asked.destination },
    route: { kind: 'target', target: of, configurationVersion: 'c1' },
    grant: grantOf(of, { credentials }),
  } as unknown as Authorized;
};

export const context: Omit<PlaceContext, 'original'> = {
  nowMs: 1_700_000_000_999,
  uuid: () => '6d0a1b1c-0000-4000-8000-000000000001',
  buffers: createBudget(limits.heldBytesTotalMax),
};

/** As the pipeline does: the body is held where a placement asks for it. */
export const injected = (asked: Asked, credentials: readonly PlacedCredential[], o: Partial<PlaceContext> = {}): Prepared => {
  const request = asking(asked, ...credentials);
  if (!needsWholeBody(request)) return inject(request, { ...context, ...o });
  const trailers = (): HeaderList => asked.trailers ?? [];
  const bytes = Buffer.from(asked.body ?? '');
  const held = heldBody(bytes, { trailers, bytes: () => bytes.length, release: () => undefined });
  return inject({ ...request, body: held }, { ...context, ...o });
};

export const textOf = async (body: BodySource | undefined): Promise<string> => {
  const parts: Uint8Array[] = [];
  for await (const chunk of body?.chunks ?? []) parts.push(chunk);
  return Buffer.concat(parts).toString();
};

/** The code of the Fault that this ends in. */
export const refusal = (run: () => unknown): string => {
  try {
    run();
  } catch (thrown) {
    if (thrown instanceof Fault) return thrown.code;
    throw thrown;
  }
  return 'none';
};

import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import t, { type Test } from 'tap';
import { HealthCheckRequestSchema, HealthCheckResponseSchema } from '../../src/proto/gen/grpc/health/v1/health_pb.js';
import type { Fault } from '../../src/core/fault.ts';
import { type Connection, openConnection } from '../../src/rpc/client/connection.ts';
import type { RpcServer } from '../../src/rpc/server.ts';
import { healthService } from '../../src/rpc/service.ts';
import { broker, collector, collectorId, createDomain, peerOf } from './trust-domain.ts';

const domain = createDomain();
const names = ['UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN'];
const request = (service: string): Buffer => Buffer.from(toBinary(HealthCheckRequestSchema, create(HealthCheckRequestSchema, { service })));
const answer = (bytes: Buffer): string => names[fromBinary(HealthCheckResponseSchema, bytes).status] ?? '?';

const servers: Record<string, (t: Test) => Promise<{ server: RpcServer; connection: Connection }>> = {
  'outrider.v1.CredentialBroker': async (t) => {
    const server = await broker(t, domain);
    return {
      server,
      connection: openConnection({ ...peerOf(server), trustBundlePem: domain.authority.certificatePem, identity: undefined }),
    };
  },
  'outrider.v1.AccessEvents': async (t) => {
    const server = await collector(t, domain, async () => 0);
    return {
      server,
      connection: openConnection({ ...peerOf(server, collectorId), trustBundlePem: domain.authority.certificatePem, identity: undefined }),
    };
  },
};

for (const [service, start] of Object.entries(servers)) {
  t.test(`${service} says whether it serves, asked once or watched`, async (t) => {
    const { server, connection } = await start(t);
    t.teardown(() => connection.close());
    const check = (name: string): Promise<string> =>
      connection.unary(healthService.methods.check, request(name), 3_000).then(answer, (fault: Fault) => fault.code);
    t.equal(await check(''), 'SERVING');
    t.equal(await check(service), 'SERVING');
    t.equal(await check('no.such.Service'), 'broker_error', 'NOT_FOUND, as the protocol says');
    t.match(await connection.unary(healthService.methods.check, Buffer.of(0xff), 3_000).catch((fault: Fault) => fault), {
      code: 'request_malformed',
    });

    const seen: string[] = [];
    let next: () => void = () => undefined;
    const change = (): Promise<void> => new Promise((resolve) => (next = resolve));
    const watch = connection.serverStream(healthService.methods.watch, request(service));
    watch.on('data', (bytes: Buffer) => {
      seen.push(answer(bytes));
      next();
    });
    const ended = new Promise<void>((resolve) => watch.on('end', resolve).on('error', () => undefined));
    await change();
    server.setServing(false);
    await change();
    t.equal(await check(''), 'NOT_SERVING');
    server.setServing(false);
    server.setServing(true);
    await change();
    t.equal(await check(service), 'SERVING');
    const unknown = connection.serverStream(healthService.methods.watch, request('no.such.Service'));
    const first = await new Promise<string>((resolve) =>
      unknown.on('data', (bytes: Buffer) => resolve(answer(bytes))).on('error', () => undefined),
    );
    t.equal(first, 'SERVICE_UNKNOWN');
    unknown.cancel();
    await server.close();
    await ended;
    t.strictSame(seen, ['SERVING', 'NOT_SERVING', 'SERVING', 'NOT_SERVING'], 'and that it stops serving, last');
  });
}

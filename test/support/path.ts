/**
 * The proxy's whole request path over real sockets, with the broker's answers given by the test: listener, interception,
 * pipeline and outbound are the real ones, joined as proxy/run.ts joins them.
 */
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import type { AccessEventDraft } from '../../src/core/access-event.ts';
import { type Budget, createBudget } from '../../src/core/budget.ts';
import { Fault } from '../../src/core/fault.ts';
import { limits } from '../../src/core/limits.ts';
import type { Grant, PlacedCredential } from '../../src/core/grant.ts';
import type { Rule } from '../../src/core/policy.ts';
import { Secret } from '../../src/core/secret.ts';
import type { Target } from '../../src/core/target.ts';
import {
  createDialer,
  createResolver,
  createSystemLookup,
  type DialAddress,
  type DialPatience,
  type Lookup,
  type PeerAddress,
  type PinnedAddress,
} from '../../src/net/dial.ts';
import type { OriginalDestination } from '../../src/net/original-destination.ts';
import { createOutbound, type OutboundOptions } from '../../src/net/outbound.ts';
import { systemClock } from '../../src/ops/clock.ts';
import { createLog } from '../../src/ops/log.ts';
import { createMetrics } from '../../src/ops/metrics.ts';
import type { Accepted } from '../../src/proxy/exchange.ts';
import type { GrantSource } from '../../src/proxy/grant.ts';
import { type ListenerOptions, type RouteOptions, startListener } from '../../src/proxy/listener.ts';
import { createInterception } from '../../src/proxy/listener/interception.ts';
import { startTransparentListener } from '../../src/proxy/listener/transparent.ts';
import { createPipeline, reportFault } from '../../src/proxy/pipeline.ts';
import { routingTable } from '../../src/proxy/route.ts';
import { createSteeredHandler } from '../../src/proxy/transparent.ts';
import { createTunnelHandler } from '../../src/proxy/tunnel.ts';

export const bearer = (value: string): PlacedCredential => ({
  placement: { kind: 'bearer' },
  value: new Secret(value),
  providerKind: 'jwt',
  provider: 'test',
  fingerprint: 'f00',
  expiresAtMs: Date.now() + 600_000,
});

export const allowAll: Rule = { policy: 'p', policyVersion: 'v1', name: 'all', effect: 'allow', methods: [], paths: [], condition: '' };

export const target = (name: string, rest: Partial<Target> = {}): Target => ({
  name,
  hosts: [`${name}.outrider.test`],
  ports: [80, 443],
  cleartextAllowed: true,
  trustBundlePem: '',
  protocol: 'auto',
  tlsVersionMin: 'TLSv1.2',
  echo: 'redact',
  paths: 'canonical',
  placeholder: '',
  ...rest,
});

export const grantOf = (of: Target, rest: Partial<Grant> = {}): Grant => ({
  id: `grant-${of.name}`,
  target: of.name,
  binding: { hosts: of.hosts, ports: of.ports, cleartextAllowed: of.cleartextAllowed },
  configurationVersion: 'c1',
  expiresAtMs: Date.now() + 600_000,
  lifetimeMs: 600_000,
  credentials: [bearer(`credential-for-${of.name}`)],
  rules: [allowAll],
  ...rest,
});

export interface PathOptions {
  readonly dir: string;
  readonly targets: readonly Target[];
  readonly pins: readonly PinnedAddress[];
  readonly trustPem: string;
  readonly onUnmatched?: 'tunnel' | 'refuse';
  readonly grants?: GrantSource;
  /** Throws to refuse an intent. */
  readonly onIntent?: (draft: AccessEventDraft) => void;
  /** Of the explicit listener. */
  readonly host?: string;
  readonly routes?: readonly RouteOptions[];
  /** How long targets, and programs, are waited for; limits.ts unless given. */
  readonly patience?: OutboundOptions['patience'];
  readonly clientPatience?: ListenerOptions['patience'];
  /** What else a test has to say to the listener. */
  readonly listener?: Pick<ListenerOptions, 'noticeMs' | 'connectionsMax' | 'isMemoryShort' | 'onOverload'>;
  readonly onConnections?: (kind: 'client' | 'tunnel', delta: 1 | -1) => void;
  /** How names become addresses, where no pin says so; the system's resolver unless given. */
  readonly lookup?: Lookup;
  readonly dialPatience?: Partial<DialPatience>;
  /** Broker and collector, which programs have no business with; and what else is never dialled. */
  readonly peers?: readonly PeerAddress[];
  readonly isOwn?: (address: DialAddress) => boolean;
  readonly unmatchedPrivateAllowed?: boolean;
  /** Opens the way in for steered connections, which were going where this says. */
  readonly originalOf?: OriginalDestination;
  /** Sees every request that was admitted, in order; what it returns goes on. */
  readonly onAccepted?: (accepted: Accepted) => Accepted;
  /** Sees what was refused before it became a request. */
  readonly onRefused?: (fault: Fault) => void;
}

export interface Path {
  readonly port: number;
  /** Where steered connections come in; undefined without `originalOf`. */
  readonly transparentPort: number | undefined;
  /** Ports of the reverse routes, in their order. */
  readonly routes: readonly number[];
  /** What programs trust: the public bundle. */
  readonly bundle: string;
  readonly events: AccessEventDraft[];
  readonly logs: string[];
  readonly metrics: () => Promise<string>;
  /** What is held of bodies and answers. */
  readonly buffers: Budget;
  /** As at a shutdown. */
  readonly drain: (timeoutMs: number) => Promise<void>;
  readonly close: () => Promise<void>;
}

export const startPath = async (options: PathOptions): Promise<Path> => {
  const { dir, targets, pins, trustPem, onUnmatched = 'tunnel', grants, onIntent } = options;
  const metrics = createMetrics('proxy');
  const logs: string[] = [];
  const log = createLog({ role: 'proxy', level: 'debug', write: (line) => logs.push(line) });
  const clock = systemClock;
  const events: AccessEventDraft[] = [];
  const eventLog = {
    intent: (draft: AccessEventDraft) => {
      onIntent?.(draft);
      events.push(draft);
    },
    record: (draft: AccessEventDraft) => void events.push(draft),
    waiting: () => 0,
    flush: async () => 0,
    close: () => undefined,
  };
  const bundleFile = join(dir, 'ca-bundle.pem');
  const interception = createInterception({ bundleFile, id: 'test', clock, log });
  const table = routingTable({ configurationVersion: 'c1', targets });
  interception.permit([...new Set(targets.flatMap(({ hosts }) => hosts))]);
  const byName = new Map(targets.map((one) => [one.name, one]));
  const resolver = createResolver(pins, options.isOwn, options.lookup ?? createSystemLookup(), options.peers);
  const dialer = createDialer({ resolver, chain: undefined, ...(options.dialPatience ? { patience: options.dialPatience } : {}) });
  const outbound = createOutbound({ dialer, trustPems: [trustPem], ...(options.patience ? { patience: options.patience } : {}) });
  const shared = {
    table: () => table,
    routePolicy: { onUnmatched },
    unmatchedPrivateAllowed: options.unmatchedPrivateAllowed ?? false,
    events: eventLog,
    metrics,
    clock,
    log,
  };
  const buffers = createBudget(limits.heldBytesTotalMax);
  const pipeline = createPipeline({
    ...shared,
    identity: () => ({ identity: { spiffeId: 'spiffe://outrider.test/ns/demo/sa/app', attestationId: 'a1' }, fault: undefined }),
    grants: grants ?? {
      get: ({ target: name }) => {
        const found = byName.get(name);
        if (!found) throw new Fault('target_unknown');
        return grantOf(found);
      },
    },
    outbound,
    buffers,
  });
  const listener = await startListener({
    host: options.host ?? '127.0.0.1',
    port: 0,
    routes: options.routes ?? [],
    ...(options.clientPatience ? { patience: options.clientPatience } : {}),
    noticeMs: 0,
    ...options.listener,
    ...(options.onConnections ? { onConnections: options.onConnections } : {}),
    clock,
    handlers: {
      request: (accepted) => pipeline(options.onAccepted?.(accepted) ?? accepted),
      tunnel: createTunnelHandler({ ...shared, interception, dialer }),
      refused: (fault) => {
        options.onRefused?.(fault);
        reportFault(metrics, fault, { log });
      },
    },
  });
  const transparent =
    options.originalOf &&
    (await startTransparentListener({
      port: 0,
      clock,
      listener,
      handler: createSteeredHandler({ ...shared, interception, dialer }),
      refused: (fault) => reportFault(metrics, fault, { log }),
      originalOf: options.originalOf,
    }));
  return {
    port: listener.address.port,
    transparentPort: transparent?.addresses[0]?.port,
    routes: listener.routes.map(({ port }) => port),
    drain: listener.drain,
    bundle: readFileSync(bundleFile, 'utf8'),
    events,
    logs,
    metrics: () => metrics.expose(),
    buffers,
    close: async () => {
      transparent?.close();
      await listener.drain(1_000);
      await outbound.close();
    },
  };
};

// Raw clients -------------------------------------------------------------------------------------------------------

/** Sends bytes and reads until the other end closes or `enough` says so. */
export const exchange = (socket: Socket, bytes: string | Buffer, enough: (text: string) => boolean = () => false): Promise<string> =>
  new Promise((resolve, reject) => {
    let text = '';
    const done = (): void => {
      socket.off('data', read);
      resolve(text);
    };
    const read = (chunk: Buffer): void => {
      text += chunk.toString('latin1');
      if (enough(text)) done();
    };
    socket.setMaxListeners(0);
    socket.on('data', read);
    socket.once('close', done);
    socket.once('end', done);
    socket.once('error', (error: NodeJS.ErrnoException) =>
      error.code === 'ECONNRESET' || error.code === 'EPIPE' ? done() : reject(error),
    );
    socket.write(bytes);
  });

export const dial = (port: number): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, noDelay: true });
    socket.once('connect', () => resolve(socket));
    socket.once('error', reject);
  });

/** One whole response with a Content-Length or without a body. */
export const wholeResponse = (text: string): boolean => {
  const end = text.indexOf('\r\n\r\n');
  if (end < 0) return false;
  const length = /\r\ncontent-length: (\d+)/i.exec(text.slice(0, end));
  return (
    text.length >= end + 4 + Number(length?.[1] ?? 0) &&
    (length !== null || text.endsWith('\r\n0\r\n\r\n') || /^HTTP\/1.1 (204|304|1..)/.test(text))
  );
};

/** CONNECT through the proxy; resolves with the socket when it was answered 200, else with the answer. */
export const tunnelTo = async (port: number, authority: string, headers = ''): Promise<{ socket: Socket; refusal: string | undefined }> => {
  const socket = await dial(port);
  const answer = await exchange(socket, `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n${headers}\r\n`, (text) =>
    text.includes('\r\n\r\n'),
  );
  if (answer.startsWith('HTTP/1.1 200')) return { socket, refusal: undefined };
  return { socket, refusal: answer };
};

/** TLS inside a tunnel; `name` is what the certificate is checked for, `servername` what SNI says. */
export const secure = (socket: Socket, ca: string, name: string, servername: string | undefined = name): Promise<TLSSocket> =>
  new Promise((resolve, reject) => {
    const secured = connectTls({
      socket,
      ca,
      ...(servername === undefined || servername === '' ? {} : { servername }),
      ALPNProtocols: ['http/1.1'],
      checkServerIdentity: (_host, certificate) =>
        certificate.subjectaltname?.split(', ').includes(`DNS:${name}`) ? undefined : new Error(`not for ${name}`),
    });
    secured.once('secureConnect', () => resolve(secured));
    secured.once('error', reject);
  });

/** What the event log stands on, as fakes a test can look into: drafts, a collector's end of a stream, an SVID source. */
import { createPrivateKey, generateKeyPairSync } from 'node:crypto';
import type { AccessEvent, AccessEventDraft } from '../../../src/core/access-event.ts';
import { Fault, type FaultCode } from '../../../src/core/fault.ts';
import { createLog } from '../../../src/ops/log.ts';
import { createMetrics, type Metrics } from '../../../src/ops/metrics.ts';
import type { EventListener, openEvents } from '../../../src/rpc/client.ts';
import type { Svid } from '../../../src/rpc/svid.ts';
import type { SvidSource } from '../../../src/rpc/svid-source.ts';

export const workload = 'spiffe://outrider.test/ns/demo/sa/demo-app';

let requests = 0;

/** A usual draft, of a request of its own unless told. */
export const draft = (fields: Partial<AccessEventDraft> = {}): AccessEventDraft => ({
  kind: 'intent',
  timeMs: 1_763_000_000_000,
  requestId: `request-${(requests += 1)}`,
  workload,
  attestationId: 'attestation-1',
  target: 'echo',
  destination: 'echo.outrider.test:443',
  scheme: 'https',
  method: 'GET',
  path: '/hello',
  decision: { verdict: 'allow', policy: 'demo', policyVersion: 'v1', rule: 'read', reason: 'rule read of policy demo allows GET /hello' },
  grantId: 'grant-1',
  credentials: [{ providerKind: 'jwt', provider: 'minted', placement: 'bearer', fingerprint: '0123456789abcdef' }],
  outcome: undefined,
  traceId: '',
  lostCount: 0,
  attempt: 1,
  ...fields,
});

export const outcomeOf = (intent: AccessEventDraft, status = 200): AccessEventDraft => ({
  ...intent,
  kind: 'outcome',
  outcome: { status, fault: '', requestBodyBytes: 0, responseBodyBytes: 5, durationMs: 3.25, timeToFirstByteMs: 2.5, echoes: 0 },
});

/** One stream as the collector sees it. Stores nothing and answers nothing unless the test says so. */
export interface FakeStream {
  readonly svid: Svid;
  /** Every event written, repeats included. */
  readonly written: AccessEvent[];
  readonly batches: number[];
  readonly on: EventListener;
  hasRoom: boolean;
  isClosed: boolean;
  /** Acknowledges everything written. */
  readonly acknowledge: () => void;
  readonly end: (code?: FaultCode) => void;
}

export const fakeStreams = (bootId: string) => {
  const streams: FakeStream[] = [];
  const open: typeof openEvents = ({ svid, on }) => {
    const stream: FakeStream = {
      svid,
      written: [],
      batches: [],
      on,
      hasRoom: true,
      isClosed: false,
      acknowledge: () => on.stored(bootId, stream.written.at(-1)?.sequence ?? 0),
      end: (code = 'broker_unavailable') => on.ended(new Fault(code)),
    };
    streams.push(stream);
    return {
      write: (boot, events) => {
        if (boot !== bootId) throw new Error(`boot id ${boot}`);
        stream.batches.push(events.length);
        stream.written.push(...events);
        return stream.hasRoom;
      },
      close: () => {
        stream.isClosed = true;
      },
    };
  };
  const last = (): FakeStream => {
    const stream = streams.at(-1);
    if (!stream) throw new Error('no stream was opened');
    return stream;
  };
  return { streams, open, last };
};

export const fakeSvid = (spiffeId = workload): Svid => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return {
    spiffeId,
    attestationId: 'attestation-1',
    certificateChainPem: '',
    privateKey: createPrivateKey(privateKey.export({ type: 'pkcs8', format: 'pem' })),
    trustBundlePem: '',
    expiresAtMs: Date.now() + 3_600_000,
    issuedAtMs: Date.now(),
  };
};

export interface SvidsInHand extends Pick<SvidSource, 'current' | 'onChange' | 'renew'> {
  readonly change: (svid: Svid | undefined) => void;
  readonly renewals: () => number;
}

/** An SVID source whose SVIDs the test hands out. */
export const svidsInHand = (first?: Svid): SvidsInHand => {
  let current = first;
  let renewals = 0;
  const listeners = new Set<(svid: Svid) => void>();
  return {
    current: () => current,
    onChange: (listener) => {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    renew: () => {
      renewals += 1;
    },
    change: (svid) => {
      current = svid;
      if (svid) for (const listener of listeners) listener(svid);
    },
    renewals: () => renewals,
  };
};

/** Log lines as objects. */
export const logLines = () => {
  const lines: Record<string, unknown>[] = [];
  const log = createLog({ role: 'proxy', level: 'debug', write: (line) => void lines.push(JSON.parse(line) as Record<string, unknown>) });
  return { lines, log };
};

export const proxyMetrics = (): Metrics => createMetrics('proxy');

/** The value of one sample, by its name and labels as exposed; 0 when it is not there. */
export const sample = async (metrics: Metrics, name: string): Promise<number> => {
  const line = (await metrics.expose()).split('\n').find((l) => l.startsWith(`${name} `));
  return line === undefined ? 0 : Number(line.slice(name.length + 1));
};

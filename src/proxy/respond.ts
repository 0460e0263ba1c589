/**
 * The one file that writes errors to programs: an RFC 9457 problem with a stable code, the rule that refused, what to ask for, and
 * Proxy-Status (RFC 9209). Shows titles, safe details and decisions; never a cause.
 */
import { STATUS_CODES } from 'node:http';
import type { Fault, FaultCode } from '../core/fault.ts';
import { grpcContentType, grpcMessage, grpcStatusCodes } from '../core/grpc.ts';
import type { HeaderField, HeaderList } from '../core/headers.ts';
import type { ResponseSink } from './exchange.ts';

export interface ProblemResponse {
  readonly status: number;
  readonly reason: string;
  readonly headers: HeaderList;
  readonly body: string;
}

/** After these the two ends may disagree about where the next request begins. */
const closing: ReadonlySet<FaultCode> = new Set([
  'request_malformed',
  'framing_invalid',
  'headers_too_large',
  'request_timeout',
  'authority_mismatch',
  'authority_invalid',
]);

const closesConnection = (fault: Fault): boolean => closing.has(fault.code);

export const problemOf = (fault: Fault, requestId: string): ProblemResponse => {
  const { status, title, ask, retry, blame, proxyStatus } = fault.row;
  const { decision } = fault;
  const body = `${JSON.stringify({
    type: `urn:outrider:fault:${fault.code}`,
    title,
    status,
    ...(fault.detail === '' ? {} : { detail: fault.detail }),
    instance: `urn:uuid:${requestId}`,
    code: fault.code,
    blame,
    retry,
    ask,
    ...(decision
      ? { decision: { policy: decision.policy, policyVersion: decision.policyVersion, rule: decision.rule, reason: decision.reason } }
      : {}),
  })}\n`;
  const headers: HeaderField[] = [
    ['content-type', 'application/problem+json'],
    ['content-length', String(Buffer.byteLength(body))],
    ['cache-control', 'no-store'],
    ['proxy-status', `outrider; error=${proxyStatus}; details="${fault.code}"`],
  ];
  if (retry) headers.push(['retry-after', '1']);
  if (status === 405) headers.push(['allow', 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS']);
  if (closesConnection(fault)) headers.push(['connection', 'close']);
  return { status, reason: STATUS_CODES[status] ?? 'Client Closed Request', headers, body };
};

/**
 * The same for a gRPC call: a response of trailers only, whose status a stub understands, with the fault's code in the message
 * (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#responses).
 */
const grpcProblemOf = (fault: Fault, requestId: string, contentType: string): ProblemResponse => {
  const { grpc, title, proxyStatus, ask } = fault.row;
  const { decision } = fault;
  const rule = decision && decision.rule !== '' ? ` (policy ${decision.policy}, rule ${decision.rule})` : '';
  const message = `${fault.code}: ${[title, fault.detail, ask].filter((part) => part !== '').join(' ')}${rule} [${requestId}]`;
  const headers: HeaderField[] = [
    ['content-type', contentType],
    ['grpc-status', String(grpcStatusCodes[grpc])],
    ['grpc-message', grpcMessage(message)],
    ['proxy-status', `outrider; error=${proxyStatus}; details="${fault.code}"`],
    ['content-length', '0'],
  ];
  if (closesConnection(fault)) headers.push(['connection', 'close']);
  return { status: 200, reason: 'OK', headers, body: '' };
};

/** The request that went wrong: its id, and what says how its sender reads errors. */
export interface Refused {
  readonly id: string;
  readonly headers: HeaderList;
}

/** Answers with the problem, or, when an answer has begun, breaks it off so that it cannot pass for a whole one. */
export const respond = (sink: ResponseSink, fault: Fault, request: Refused): void => {
  if (sink.hasStarted() || fault.code === 'client_closed') return sink.abort();
  const contentType = grpcContentType(request.headers);
  const { status, reason, headers, body } =
    contentType === undefined ? problemOf(fault, request.id) : grpcProblemOf(fault, request.id, contentType);
  sink.head(status, reason, headers);
  if (body !== '') sink.write(Buffer.from(body));
  return sink.end();
};

/** The problem as HTTP/1.1 bytes, for connections that have no exchange: unparsable requests and refused tunnels. */
export const problemBytes = (fault: Fault, requestId: string): Buffer => {
  const { status, reason, headers, body } = problemOf(fault, requestId);
  const fields = [...headers.filter(([name]) => name !== 'connection'), ['connection', 'close']];
  return Buffer.from(`HTTP/1.1 ${status} ${reason}\r\n${fields.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n${body}`);
};

/** gRPC as HTTP/2 has it, for what no gRPC client would do: connections that ask nothing, calls that do not end. */
import http2, { type ClientHttp2Session, type ClientHttp2Stream } from 'node:http2';
import type { Test } from 'tap';
import type { RpcServer } from '../../src/rpc/server.ts';
import type { createDomain } from './trust-domain.ts';

type Domain = ReturnType<typeof createDomain>;

/** Closed with the test. `svid`: what it shows of who it is. */
export const rawSession = (t: Test, { address }: RpcServer, domain: Domain, svid?: ReturnType<Domain['svid']>): ClientHttp2Session => {
  const session = http2.connect(`https://127.0.0.1:${address.port}`, {
    ca: domain.authority.certificatePem,
    checkServerIdentity: () => undefined,
    ...(svid && { cert: svid.certificateChainPem, key: svid.privateKey.export({ type: 'pkcs8', format: 'pem' }) }),
  });
  session.on('error', () => undefined);
  t.teardown(() => session.destroy());
  return session;
};

/** A call that has been begun, and nothing of its messages. */
export const rawCall = (session: ClientHttp2Session, path: string): ClientHttp2Stream => {
  const stream = session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers' });
  stream.on('error', () => undefined).resume();
  return stream;
};

/** The gRPC status that a call was answered with and its fault, or that it was cut off. */
export const endOf = (stream: ClientHttp2Stream): Promise<string> =>
  new Promise((resolve) => {
    const look = (headers: http2.IncomingHttpHeaders): void => {
      const { 'grpc-status': status, 'outrider-fault': fault = '' } = headers;
      if (status !== undefined) resolve(`${String(status)} ${String(fault)}`);
    };
    stream
      .on('response', look)
      .on('trailers', look)
      .once('close', () => resolve('cut'));
  });

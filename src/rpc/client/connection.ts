/**
 * One connection to one peer under one identity: options, bounds and the kinds of call that clients make. Calls fail at once while
 * the peer cannot be reached; when to try again is the caller's business.
 */
import {
  type ChannelOptions,
  Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  connectivityState,
  Metadata,
} from '@grpc/grpc-js';
import { X509Certificate } from 'node:crypto';
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import { dersOf } from '../../pki/pem.ts';
import type { Method } from '../service.ts';
import { type CallEnd, faultOf } from '../status.ts';
import { PeerCredentials, type PeerTrust } from './peer-credentials.ts';

const channelOptions: ChannelOptions = {
  // Nothing here is steered by the environment (proxies) or by DNS TXT records (service configuration).
  'grpc.enable_http_proxy': 0,
  'grpc.service_config_disable_resolution': 1,
  'grpc.enable_channelz': 0,
  // An identity's connection is its own and goes with it.
  'grpc.use_local_subchannel_pool': 1,
  'grpc.max_receive_message_length': limits.messageBytesMax,
  'grpc.max_send_message_length': limits.messageBytesMax,
  'grpc.keepalive_time_ms': limits.grpcKeepAliveIntervalMs,
  'grpc.keepalive_timeout_ms': limits.grpcKeepAliveTimeoutMs,
  'grpc.keepalive_permit_without_calls': 0,
  'grpc.initial_reconnect_backoff_ms': limits.reconnectPauseMinMs,
  'grpc.max_reconnect_backoff_ms': limits.reconnectPauseMaxMs,
  // A peer that moved is found again as soon as it may be tried again.
  'grpc.dns_min_time_between_resolutions_ms': limits.reconnectPauseMaxMs,
  'grpc.client_idle_timeout_ms': limits.grpcIdleTimeoutMs,
  'grpc-node.max_session_memory': limits.grpcSessionMemoryMaxMb,
};

export interface Connection {
  /** Rejects with the fault; never takes longer than `timeoutMs`. */
  readonly unary: (method: Method, request: Buffer, timeoutMs: number, signal?: AbortSignal) => Promise<Buffer>;
  readonly serverStream: (method: Method, request: Buffer) => ClientReadableStream<Buffer>;
  readonly bidiStream: (method: Method) => ClientDuplexStream<Buffer, Buffer>;
  readonly isConnected: () => boolean;
  readonly faultOf: (end: CallEnd) => Fault;
  /** Streams that are open go on; what waits for a connection fails. */
  readonly close: () => void;
}

/** Fault broker_untrusted when there is nothing to know the peer by. */
export const openConnection = (peer: PeerTrust): Connection => {
  const credentials = credentialsOf(peer);
  const open = (): Client => new Client(`dns:${peer.address}`, credentials, channelOptions);
  let client = open();
  const fault = (end: CallEnd): Fault => faultOf(end, credentials.untrusted);

  /** A connection attempt that outlived a call may never end by itself: the address may have gone. Begin a new one. */
  const abandonAttempt = (attempted: Client): void => {
    if (attempted !== client || attempted.getChannel().getConnectivityState(false) !== connectivityState.CONNECTING) return;
    client = open();
    attempted.close();
  };

  return {
    unary: ({ path, requestSerialize, responseDeserialize }, request, timeoutMs, signal) =>
      new Promise((resolve, reject) => {
        const used = client;
        const options = { deadline: Date.now() + timeoutMs };
        const call = used.makeUnaryRequest(
          path,
          requestSerialize,
          responseDeserialize,
          request,
          new Metadata(),
          options,
          (error, response) => {
            signal?.removeEventListener('abort', cancel);
            if (response !== undefined) return resolve(response);
            const failed = error === null ? new Fault('broker_error') : fault(error);
            if (failed.code === 'broker_timeout') abandonAttempt(used);
            return reject(failed);
          },
        );
        const cancel = (): void => call.cancel();
        if (signal?.aborted === true) cancel();
        signal?.addEventListener('abort', cancel, { once: true });
      }),
    serverStream: ({ path, requestSerialize, responseDeserialize }, request) =>
      client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, request),
    bidiStream: ({ path, requestSerialize, responseDeserialize }) =>
      client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize),
    isConnected: () => client.getChannel().getConnectivityState(false) === connectivityState.READY,
    faultOf: fault,
    close: () => client.close(),
  };
};

const credentialsOf = (peer: PeerTrust): PeerCredentials => {
  try {
    const authorities = dersOf(peer.trustBundlePem).map((der) => new X509Certificate(der));
    if (authorities.length === 0) throw new Error('there is no certificate in the trust bundle');
    return new PeerCredentials(peer);
  } catch (error) {
    throw new Fault('broker_untrusted', { cause: error });
  }
};

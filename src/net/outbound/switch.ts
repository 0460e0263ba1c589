/**
 * Whether a 101 is an answer to what was asked (RFC 9110 section 7.8, RFC 6455 section 4.2.2). Before that is certain nothing of the
 * program may reach the target but the request (THREATS E-17). Pure.
 */
import { createHash } from 'node:crypto';
import { type HeaderList, valuesOf } from '../../core/headers.ts';

const webSocketGuid = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

const protocolsIn = (values: readonly string[]): string[] =>
  values
    .flatMap((value) => value.split(','))
    .map((protocol) => protocol.trim().toLowerCase())
    .filter((protocol) => protocol !== '');

/** What is wrong with the answer, or undefined. `asked` is the value of the request's Upgrade field. */
export const switchProblem = (asked: string, request: HeaderList, answer: HeaderList): string | undefined => {
  const given = protocolsIn(valuesOf(answer, 'upgrade'));
  const wanted = protocolsIn([asked]);
  if (given.length === 0 || !given.every((protocol) => wanted.includes(protocol)))
    return 'It changed to a protocol that was not asked for.';
  if (!given.includes('websocket')) return undefined;
  const keys = valuesOf(request, 'sec-websocket-key');
  const accepts = valuesOf(answer, 'sec-websocket-accept');
  if (keys.length !== 1 || accepts.length !== 1 || accepts[0] !== acceptOf(keys[0] as string)) {
    return 'Its Sec-WebSocket-Accept does not answer the key that was sent.';
  }
  return undefined;
};

const acceptOf = (key: string): string =>
  createHash('sha1')
    .update(key.trim() + webSocketGuid)
    .digest('base64');

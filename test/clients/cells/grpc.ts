/** A gRPC client: each kind of call, trailers, a failure of the service, a deadline, a cancellation, and a refusal by policy. */
import type { Cell } from '../cells.ts';
import { linesOf, runIn } from '../place.ts';
import { eventually } from '../../support/stack.ts';
import { credentialsOf } from './credential.ts';

const status = { OK: 0, CANCELLED: 1, DEADLINE_EXCEEDED: 4, PERMISSION_DENIED: 7, RESOURCE_EXHAUSTED: 8 } as const;
const trailer = 'from the origin';

const expected = [
  { call: 'Unary', code: status.OK, messages: ['echo hello'], trailer },
  { call: 'ServerStream', code: status.OK, messages: ['1', '2', '3'], trailer },
  { call: 'ClientStream', code: status.OK, messages: ['a+b+c'], trailer },
  { call: 'Bidi', code: status.OK, messages: ['echo 1', 'echo 2', 'echo 3'], trailer },
  { call: 'Fails', code: status.RESOURCE_EXHAUSTED, details: 'none left: 100 %', messages: [], trailer },
  { call: 'Silent', code: status.DEADLINE_EXCEEDED, messages: [] },
  { call: 'Cancel', code: status.CANCELLED, messages: ['1'] },
  { call: 'Forbidden', code: status.PERMISSION_DENIED, details: /policy_denied/, messages: [] },
];

export const grpcCell =
  (command: readonly string[]): Cell =>
  async (t, place, client) => {
    place.origin.grpc.cancelled();
    const { stdout } = await runIn(place, client.variables, command);
    const lines = linesOf(stdout);
    t.equal(lines.length, expected.length);
    for (const [i, line] of expected.entries()) t.match(lines[i], line, `${line.call} ends as it should`);
    if (!t.passing()) return;
    const cancelled: string[] = [];
    await eventually(() => cancelled.push(...place.origin.grpc.cancelled()) >= 2);
    t.same(cancelled, ['Silent', 'ServerStream'], 'the service hears of the deadline and of the cancellation');
    const arrivals = credentialsOf(t, place.origin);
    t.notOk(
      arrivals.some(({ path }) => path.endsWith('/Forbidden')),
      'what policy denies never reaches it',
    );
    t.equal(arrivals.length, expected.length - 1);
  };

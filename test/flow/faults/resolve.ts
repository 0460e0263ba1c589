/**
 * Asks the system's resolver as the proxy does, from inside a pod: a line of JSON in, `{id, host, timeoutMs}`, a line out, with the addresses
 * that would be dialled or the code of the fault, and how long it took.
 */
import { createInterface } from 'node:readline';
import { createResolver, createSystemLookup } from '../../../src/net/dial.ts';

interface Question {
  readonly id: number;
  readonly host: string;
  readonly timeoutMs: number;
}

const lookups = new Map<number, ReturnType<typeof createSystemLookup>>();
const lookupFor = (timeoutMs: number) => {
  const known = lookups.get(timeoutMs) ?? createSystemLookup({ timeoutMs });
  lookups.set(timeoutMs, known);
  return known;
};

createInterface({ input: process.stdin }).on('line', (line) => {
  const { id, host, timeoutMs } = JSON.parse(line) as Question;
  const startedAt = performance.now();
  const say = (result: string): void =>
    void process.stdout.write(`${JSON.stringify({ id, result, tookMs: performance.now() - startedAt })}\n`);
  const policy = { isForTarget: true, privateAllowed: false, named: [] };
  createResolver([], undefined, lookupFor(timeoutMs))
    .resolve({ scheme: 'https', host, port: 443 }, policy)
    .then(
      (addresses) => say(addresses.map(({ address }) => address).join()),
      (fault: { code: string }) => say(fault.code),
    );
});
process.stdout.write('ready\n');

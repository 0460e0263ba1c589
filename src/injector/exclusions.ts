/** Whether what a pod wants left out of the steering would leave anything in it. Pure; items are checked already (annotations.ts). */
import { isIPv4 } from 'node:net';

interface Span {
  readonly first: bigint;
  readonly last: bigint;
}

/** "25", "3000-3010", … */
export const areAllPorts = (items: readonly string[]): boolean => {
  const spans = items.map((item): Span => {
    const [first = '', last = first] = item.split('-');
    return { first: BigInt(first), last: BigInt(last) };
  });
  return isFilled({ first: 1n, last: 65_535n }, spans);
};

/** "10.0.0.0/8", "fd00::/8", …: all addresses of one version are enough, since a pod may have no others. */
export const areAllAddresses = (items: readonly string[]): boolean =>
  [32, 128].some((bits) =>
    isFilled(
      { first: 0n, last: (1n << BigInt(bits)) - 1n },
      items.map(readSpan).filter((span) => span.bits === bits),
    ),
  );

const readSpan = (item: string): Span & { readonly bits: number } => {
  const [address = '', prefix] = item.split('/');
  const bits = isIPv4(address) ? 32 : 128;
  const hosts = BigInt(bits - Number(prefix ?? bits));
  const first = (numberOf(address) >> hosts) << hosts;
  return { bits, first, last: first + (1n << hosts) - 1n };
};

/** Of an address of either version. */
const numberOf = (address: string): bigint => {
  if (isIPv4(address)) return joined(address.split('.').map(Number), 8n);
  // A URL's host has the last two groups in hexadecimal, however they were written.
  const [head = '', tail] = new URL(`http://[${address}]`).hostname.slice(1, -1).split('::');
  const groups = (text = ''): number[] => (text === '' ? [] : text.split(':').map((group) => Number.parseInt(group, 16)));
  const [before, after] = [groups(head), groups(tail)];
  return joined([...before, ...Array.from({ length: 8 - before.length - after.length }, () => 0), ...after], 16n);
};

const joined = (parts: readonly number[], bits: bigint): bigint => parts.reduce((sum, part) => (sum << bits) | BigInt(part), 0n);

const isFilled = ({ first, last }: Span, spans: readonly Span[]): boolean => {
  let next = first;
  for (const span of spans.toSorted((a, b) => (a.first < b.first ? -1 : 1))) {
    if (span.first > next) return false;
    if (span.last >= next) next = span.last + 1n;
  }
  return next > last;
};

/** What an operator may have meant: the known name nearest to a written one. Pure; never shows the written one. */

/** Longer names than any we know are not compared: the cost grows with the square. */
const comparedLengthMax = 64;
const candidatesMax = 1_000;

/** Case, "_" and "-" aside: `ca_file` is caFile. */
const plain = (name: string): string => name.toLowerCase().replaceAll(/[_-]/g, '');

/** Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours, each costing one. */
export const editDistance = (a: string, b: string): number => {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      let cost = Math.min((last[j] as number) + 1, (row[j - 1] as number) + 1, (last[j - 1] as number) + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) cost = Math.min(cost, (beforeLast[j - 2] as number) + 1);
      row.push(cost);
    }
    [beforeLast, last] = [last, row];
  }
  return last[b.length] as number;
};

/**
 * The known name that is nearest: at most a third of the written one's letters away, or else the beginning of it or begun by
 * it (`loglevel` for log, `kube` for kubernetes). Undefined when none is.
 */
export const nearest = (written: string, known: readonly string[]): string | undefined => {
  if (written.length > comparedLengthMax) return undefined;
  const wanted = plain(written);
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(wanted.length / 3)) + 1;
  for (const candidate of known.slice(0, candidatesMax)) {
    const name = plain(candidate);
    if (Math.abs(name.length - wanted.length) >= bestDistance) continue;
    const distance = editDistance(wanted, name);
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best ?? known.slice(0, candidatesMax).find((candidate) => begins(plain(candidate), wanted));
};

const begins = (a: string, b: string): boolean => a.length >= 3 && b.length >= 3 && (a.startsWith(b) || b.startsWith(a));

/** "a", "a or b", "a, b or c". */
export const either = (names: readonly string[]): string =>
  names.length < 2 ? names.join('') : `${names.slice(0, -1).join(', ')} or ${names.at(-1)}`;

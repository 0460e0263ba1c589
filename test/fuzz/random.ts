/** Random choices that a seed repeats, for the generators and mutations beside this file. */
export interface Random {
  /** An integer from 0 below `n`. */
  readonly below: (n: number) => number;
  /** Once in `n` times. */
  readonly oneIn: (n: number) => boolean;
  readonly pick: <T>(from: readonly T[]) => T;
}

export const randomFrom = (seed: number): Random => {
  let state = seed >>> 0;
  /** A Weyl sequence whose steps are mixed until each bit depends on all (after Steele, Lea and Flood's SplitMix). */
  const next = (): number => {
    state = (state + 0x9e37_79b9) >>> 0;
    let mixed = state;
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0_aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a_2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
  const below = (n: number): number => Math.floor(next() * n);
  return { below, oneIn: (n) => below(n) === 0, pick: (from) => from[below(from.length)] as never };
};

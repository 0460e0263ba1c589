/** A bound on something that is held, shared by all who hold it. */
export interface Budget {
  /** False, and nothing taken, when it would not fit. */
  readonly take: (amount: number) => boolean;
  readonly give: (amount: number) => void;
  readonly used: () => number;
}

export const createBudget = (max: number): Budget => {
  let used = 0;
  return {
    take: (amount) => {
      if (used + amount > max) return false;
      used += amount;
      return true;
    },
    give: (amount) => {
      used -= amount;
    },
    used: () => used,
  };
};

/** What every property test shares: one seed, printed, and repeated by OUTRIDER_SEED; and how a property fails. */
import fc from 'fast-check';
import t, { type Test } from 'tap';

export const seed = Number(process.env['OUTRIDER_SEED'] ?? Date.now() % 2 ** 31);
t.comment(`OUTRIDER_SEED=${seed}`);

/** fast-check's report, shrunk input included, is what the failure says. */
export const holds = async (t: Test, what: string, property: fc.IRawProperty<unknown>, numRuns: number): Promise<void> => {
  try {
    await fc.assert(property as fc.IAsyncProperty<unknown>, { seed, numRuns });
    t.pass(`${what} (${numRuns} runs)`);
  } catch (error) {
    t.fail(`${what}: ${(error as Error).message}`);
  }
};

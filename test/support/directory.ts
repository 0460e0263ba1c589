/** A directory for one test, removed after what the test started has been stopped. */
import type { Test } from 'tap';

/**
 * tap removes a fixture directory before it calls the teardowns, unless one was registered first: a role that is still running would
 * write into it meanwhile, and the removal would fail now and then.
 */
export const directoryOf = (t: Test, content: Parameters<Test['testdir']>[0] = {}): string => {
  t.teardown(() => undefined);
  return t.testdir(content);
};

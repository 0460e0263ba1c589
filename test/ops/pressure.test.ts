import t from 'tap';
import { watchPressure } from '../../src/ops/pressure.ts';

/** How close to its ceiling this process is said to be, by memory and a clock of the test's own, and by the real ones. */
const unpressed = {
  collectBytes: 200,
  soonBytes: 245,
  growthBytes: 20,
  highBytes: 250,
  lowBytes: 230,
  // The timer is not what is looked at here.
  sampleMs: 1_000_000,
  collectEveryMs: 3_000_000,
  onHigh: () => undefined,
  onSample: () => undefined,
  residentBytes: () => 100,
  collect: () => undefined,
};

t.test('memory is short only when garbage was collected and too much is left, until it is well below', (t) => {
  let resident = 100;
  let garbage = 0;
  let at = 0;
  const collected: boolean[] = [];
  const seen: boolean[] = [];
  let relieved = 0;
  const pressure = watchPressure({
    ...unpressed,
    onHigh: () => (relieved += 1),
    onSample: (isHigh) => seen.push(isHigh),
    residentBytes: () => resident,
    collect: (all) => {
      collected.push(all);
      resident -= garbage;
    },
    now: () => at,
  });
  const look = (bytes: number, ofThatGarbage = 0): boolean => {
    resident = bytes;
    garbage = ofThatGarbage;
    at += 1_000_000;
    pressure.look();
    return pressure.isHigh();
  };
  t.equal(look(199), false);
  t.same(collected, [], 'nothing is collected below the mark');
  t.equal(look(240), false);
  t.same(collected, [false], 'above it what costs little');
  t.equal(look(240), false);
  t.equal(collected.length, 1, 'and not again so soon');
  t.equal(look(300, 100), false, 'it was garbage');
  t.same(collected, [false, true], 'above the second mark at once, and all of it');
  t.equal(look(300), true);
  t.equal(look(240), true, 'not yet below the third mark');
  t.equal(look(229), false);
  t.equal(look(251), true);
  t.equal(relieved, 3, 'each time somebody is asked to let go');
  t.same(seen, [false, false, false, false, true, true, false, true]);
  pressure.close();
  t.end();
});

t.test('above a mark before that, what has grown since the last collection is collected at the next look', (t) => {
  let resident = 100;
  let at = 0;
  const collected: boolean[] = [];
  const pressure = watchPressure({
    ...unpressed,
    soonBytes: 220,
    residentBytes: () => resident,
    collect: (all) => {
      collected.push(all);
      resident -= 5;
    },
    now: () => at,
  });
  const look = (bytes: number): readonly boolean[] => {
    resident = bytes;
    at += unpressed.sampleMs;
    pressure.look();
    t.equal(pressure.isHigh(), false);
    return collected.splice(0);
  };
  at = 10 * unpressed.collectEveryMs;
  t.same(look(215), [false], 'an ordinary one, which leaves 210');
  t.same(look(225), [], 'not grown by enough');
  t.same(look(230), [true], 'which leaves 225');
  t.same(look(244), []);
  t.same(look(245), [true]);
  t.same(look(219), [], 'below the mark there is time');
  pressure.close();
  t.end();
});

t.test('who asks whether memory is short makes it look when no timer ran for long', (t) => {
  let resident = 100;
  let at = 0;
  const pressure = watchPressure({ ...unpressed, residentBytes: () => resident, now: () => at });
  resident = 300;
  at = 2_000_000;
  t.equal(pressure.isHigh(), false, 'the last look is recent enough');
  at = 2_000_001;
  t.equal(pressure.isHigh(), true);
  pressure.close();
  t.end();
});

t.test('the collection that is used without a test gives memory back to the system', (t) => {
  const mebibyte = 1024 ** 2;
  const pressure = watchPressure({
    collectBytes: 1,
    soonBytes: 1,
    growthBytes: 1,
    highBytes: 1,
    lowBytes: 1,
    sampleMs: 0,
    collectEveryMs: 0,
    onHigh: () => undefined,
    onSample: (_isHigh, utilization) => t.ok(utilization >= 0 && utilization <= 1),
  });
  pressure.look();
  let garbage: object[] | undefined = Array.from({ length: 1_000_000 }, (_, i) => ({ i, more: [i] }));
  const before = process.memoryUsage.rss();
  t.equal(garbage.length, 1_000_000);
  garbage = undefined;
  pressure.look();
  const given = (before - process.memoryUsage.rss()) / mebibyte;
  t.ok(given > 20, `${given.toFixed(0)} MiB given back`);
  pressure.close();
  t.end();
});

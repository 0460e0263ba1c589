/** A collector in a process of its own, for tests that kill it. The settings are its one argument, as JSON. */
import { startCollector } from '../../src/collector/run.ts';
import type { CollectorSettings } from '../../src/settings/collector.ts';

const running = await startCollector(JSON.parse(process.argv[2] as string) as CollectorSettings);
await running.ready();
process.stdout.write('ready\n');

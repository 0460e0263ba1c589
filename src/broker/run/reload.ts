/**
 * Puts another configuration in force while the broker runs: whole or not at all. A rejected one leaves what was there, is
 * counted and is logged with all its problems.
 *
 * Files are watched whose content is part of the configuration: the configuration file when there is one, and the trust bundles
 * and certificates it names, because those are rotated by others (cert-manager, a mounted ConfigMap) who touch nothing else.
 */
import type { Clock } from '../../ops/clock.ts';
import type { Log } from '../../ops/log.ts';
import type { Metrics } from '../../ops/metrics.ts';
import type { BrokerSettings } from '../../settings/broker.ts';
import { readSettings } from '../../settings/document.ts';
import type { Built } from './configuration.ts';
import { compiledFiles, ConfigurationError, needsRestart } from './files.ts';
import { type FileWatch, watchFiles } from './watch-files.ts';

export interface ReloadOptions {
  readonly built: Built;
  /** Throws when the settings cannot be put in force. */
  readonly build: (settings: BrokerSettings, before: Built) => Built;
  /** Puts it in force. Throws, having changed nothing, when it cannot. */
  readonly use: (built: Built) => void;
  /** The configuration file; undefined: settings come by `apply` alone. */
  readonly reloadFrom: string | undefined;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly log: Log;
}

export interface Reloading extends FileWatch {
  /** Throws ConfigurationError, or what `build` or `use` throws, and leaves the old configuration in force. */
  readonly apply: (settings: BrokerSettings) => void;
}

export const startReloading = ({ built, build, use, reloadFrom, metrics, clock, log }: ReloadOptions): Reloading => {
  let current = built;
  /** Also of a configuration that was rejected: when a file it names appears, it is to be tried again. */
  let files = compiledFiles(built.settings);

  const count = (result: 'ok' | 'rejected'): void => metrics.add('outrider_broker_configuration_reloads_total', { result });
  const setCurrent = (isCurrent: boolean): void => metrics.set('outrider_broker_configuration_current', {}, isCurrent ? 1 : 0);
  setCurrent(true);

  const replace = (settings: BrokerSettings): void => {
    files = [...new Set([...compiledFiles(current.settings), ...compiledFiles(settings)])];
    const problems = needsRestart(current.settings, settings);
    if (problems.length > 0) throw new ConfigurationError(problems);
    const next = build(settings, current);
    const isChanged = next.version !== current.version;
    use(next);
    current = next;
    files = compiledFiles(settings);
    if (!isChanged) return;
    count('ok');
    log.info({ version: next.version }, 'configuration in force');
  };

  const counted = (read: () => BrokerSettings): void => {
    try {
      replace(read());
      setCurrent(true);
    } catch (error) {
      count('rejected');
      setCurrent(false);
      throw error;
    }
  };

  const reload = (): void => {
    try {
      counted(() => (reloadFrom === undefined ? current.settings : readBrokerSettings(reloadFrom)));
    } catch (error) {
      const problems = error instanceof Error ? error.message.split('\n') : [];
      log.error({ error, problems }, 'configuration rejected; the one before stays in force');
    }
  };
  const watch = watchFiles(() => (reloadFrom === undefined ? files : [reloadFrom, ...files]), clock, reload);

  return { apply: (settings) => counted(() => settings), close: watch.close };
};

const readBrokerSettings = (file: string): BrokerSettings => {
  const settings = readSettings(file);
  if (settings.kind !== 'broker') throw new ConfigurationError([`${file}: kind: is ${settings.kind}, write broker`]);
  return settings;
};

/**
 * `outrider echo`: the demo's target alone, for the sample in a cluster. In clear text, because it stands for a service whose certificate
 * would have to be made first; what it shows is worth nothing to anyone but it.
 */
import { hostPort } from '../core/destination.ts';
import { ListenError } from '../ops/admin.ts';
import { startHttpEcho } from './echo-target.ts';
import { type Command, readOptions, UsageError } from './terminal.ts';

/** An address that servers write: `0.0.0.0:8080`, `[::]:8080`. */
const addressIn = (text: string): { host: string; port: number } => {
  const [, v4, v6, port] = /^(?:([0-9.]+)|\[([0-9a-f:]+)\]):([0-9]{1,5})$/.exec(text) ?? [];
  const host = v4 ?? v6;
  if (host === undefined || Number(port) > 65_535) throw new UsageError('--listen takes an IP address and a port, such as 0.0.0.0:8080');
  return { host, port: Number(port) };
};

export const runEcho: Command = async (args, terminal) => {
  const { listen = '127.0.0.1:8080' } = readOptions(args, { listen: { type: 'string' } }).values;
  const { host, port } = addressIn(listen);
  try {
    const { address, close } = await startHttpEcho(host, port);
    terminal.print(`echo listens: http://${hostPort({ host: address.address, port: address.port })}`);
    await terminal.stopRequested;
    await close();
    return 0;
  } catch (error) {
    if (!(error instanceof ListenError)) throw error;
    terminal.complain(`echo: ${error.message}`);
    return 1;
  }
};

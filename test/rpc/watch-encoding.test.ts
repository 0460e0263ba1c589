/** What many proxies are sent alike is written once. */
import t from 'tap';
import { type BrokerChannel, openBroker } from '../../src/rpc/client.ts';
import { broker, createDomain, handlersOf, peerOf, snapshot } from './trust-domain.ts';

const domain = createDomain();

const heard = (channel: BrokerChannel): Promise<string> =>
  new Promise((resolve, reject) => {
    channel.watch({
      snapshot: ({ configurationVersion, targets }) => resolve(`${configurationVersion} ${targets.map(({ name }) => name).join(' ')}`),
      revocation: () => undefined,
      ended: reject,
    });
  });

t.test('a snapshot that many watch is encoded once, and each of them gets it', async (t) => {
  let encodings = 0;
  const { configurationVersion, targets } = snapshot();
  const shared = {
    configurationVersion,
    get targets() {
      encodings += 1;
      return targets;
    },
  };
  const server = await broker(t, domain, { handlers: handlersOf(domain, { watch: (_, send) => send.snapshot(shared) }) });
  const channel = openBroker({ broker: peerOf(server), svid: domain.svid() });
  t.teardown(() => channel.close());
  t.strictSame(new Set(await Promise.all(Array.from({ length: 20 }, () => heard(channel)))), new Set(['v1 echo']));
  t.equal(encodings, 1);
});

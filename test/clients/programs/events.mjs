// Server-sent events with EventSource: `events.mjs URL SEEN-URL`. Says of each event that it was seen, for which the next one waits.
// Run with --experimental-eventsource.
const [, , url, seen] = process.argv;
const source = new EventSource(url);
const got = [];
source.addEventListener('tick', ({ data, lastEventId }) => {
  got.push({ id: lastEventId, data });
  if (got.length < 3) return void fetch(seen);
  source.close();
  console.log(JSON.stringify({ events: got }));
});
source.addEventListener('error', ({ message }) => {
  source.close();
  console.log(JSON.stringify({ error: message ?? 'the stream broke off' }));
  process.exitCode = 1;
});

// GET and POST with Node's own clients: `http.mjs fetch|https URL`. Prints what each answered, a JSON line each.
import http from 'node:http';
import https from 'node:https';

const [, , client, url] = process.argv;
const headers = { Authorization: 'Bearer mine' };

const clients = {
  fetch: async (method, body) => {
    const response = await fetch(url, { method, body, headers });
    return { status: response.status, body: await response.json() };
  },
  // `node:https`, and `node:http` for a URL of its own.
  https: (method, body) =>
    new Promise((resolve, reject) => {
      const { request } = url.startsWith('https:') ? https : http;
      const outgoing = request(url, { method, headers }, (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (chunk) => (text += chunk));
        response.on('end', () => resolve({ status: response.statusCode, version: response.httpVersion, body: JSON.parse(text) }));
      });
      outgoing.on('error', reject).end(body);
    }),
};

for (const [method, body] of [
  ['GET', null],
  ['POST', 'body'],
]) {
  console.log(JSON.stringify(await clients[client](method, body)));
}

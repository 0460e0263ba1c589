// GET and POST through the environment's proxy with fetch; prints what each answered, a JSON line each.
const [, , url] = process.argv;
for (const [method, body] of [
  ['GET', null],
  ['POST', 'body'],
]) {
  const response = await fetch(url, { method, body, headers: { Authorization: 'Bearer mine' } });
  console.log(JSON.stringify({ status: response.status, body: await response.json() }));
}

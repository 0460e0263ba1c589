/**
 * `npm run bench`: CPU per intercepted request (1 KiB GET, keep-alive, credential injected, metered, recorded) next to nginx that sets a
 * header and writes an access log for the same work, in turn in one run: what is printed is the ratio of medians. Needs nginx
 * and wrk; loopback only, a few seconds a round.
 */
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { buildBundle } from '../../scripts/build.ts';
import { freePort } from '../support/free-port.ts';
import { fromBundle, residentMiB, startRole } from '../support/processes.ts';
import { brokerYaml, collectorYaml, host, prepareStack, proxyYaml } from '../support/stack.ts';

t.setTimeout(300_000);

const run = promisify(execFile);
const rounds = 5;
const secondsPerRound = 4;
const connections = 64;
const ticksPerSecond = 100;

/** CPU seconds that a process and its children have used (proc(5), fields 14 to 17). */
const cpuSeconds = (pids: readonly number[]): number =>
  pids.reduce((sum, pid) => {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return sum + (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
  }, 0);

const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .split(' ')
    .filter((text) => text.trim() !== '')
    .map(Number);

const accepts = async (port: number): Promise<void> => {
  for (;;) {
    const socket = connect({ host: '127.0.0.1', port });
    const isOpen = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true));
      socket.once('error', () => resolve(false));
    });
    socket.destroy();
    if (isOpen) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};

const startNginx = async (dir: string, name: string, servers: string): Promise<ChildProcess> => {
  const file = join(dir, `${name}.conf`);
  writeFileSync(
    file,
    `daemon off; worker_processes 1; pid ${dir}/${name}.pid; error_log ${dir}/${name}.error.log;
events { worker_connections 4096; }
http { access_log off; keepalive_requests 1000000000; client_body_temp_path ${dir}/b; proxy_temp_path ${dir}/p; fastcgi_temp_path ${dir}/f; uwsgi_temp_path ${dir}/u; scgi_temp_path ${dir}/s;
${servers}
}\n`,
  );
  return spawn('nginx', ['-c', file, '-e', `${dir}/${name}.error.log`], { stdio: 'ignore' });
};

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] as number;

interface Round {
  readonly requests: number;
  readonly cpuMicros: number;
  readonly errors: number;
}

t.test('CPU per request next to nginx', { timeout: 300_000 }, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'outrider-bench-'));
  const [originPort, nginxPort] = [await freePort(), await freePort()];
  const body = 'x'.repeat(1024);
  const origin = await startNginx(dir, 'origin', `server { listen 127.0.0.1:${originPort}; location / { return 200 "${body}"; } }`);
  const nginx = await startNginx(
    dir,
    'proxy',
    `upstream origin { server 127.0.0.1:${originPort}; keepalive 256; keepalive_requests 1000000000; }
server { listen 127.0.0.1:${nginxPort}; access_log ${dir}/access.log;
  location / { proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host ${host}; proxy_set_header Authorization "Bearer ${'y'.repeat(500)}"; } }`,
  );
  t.teardown(() => {
    nginx.kill('SIGQUIT');
    origin.kill('SIGQUIT');
    rmSync(dir, { recursive: true, force: true });
  });
  const stack = await prepareStack(t);
  const { files } = stack;
  const bundle = join(dir, 'dist');
  await buildBundle(bundle);
  const program = fromBundle(bundle);
  const broker = await startRole(t, 'broker', files.dir, brokerYaml(files, stack.issuer.url), program);
  const grpc = broker.ports['gRPC'] as number;
  const collector = await startRole(t, 'collector', files.dir, collectorYaml(files, grpc), program);
  const proxyText = proxyYaml(files, grpc, collector.ports['gRPC'] as number, { ...stack.origin, httpPort: originPort });
  const proxy = await startRole(t, 'proxy', files.dir, `${proxyText}log: { level: warn }\n`, program);
  await Promise.all([collector.ready, proxy.ready, accepts(originPort), accepts(nginxPort)]);
  const idleMiB = residentMiB(proxy.child.pid as number).now;

  const load = async (port: number, target: string, pids: readonly number[]): Promise<Round> => {
    const script = join(dir, 'request.lua');
    writeFileSync(script, `wrk.headers["Host"] = "${host}"\nrequest = function() return wrk.format("GET", "${target}") end\n`);
    const before = cpuSeconds(pids);
    const { stdout } = await run('wrk', ['-t1', `-c${connections}`, `-d${secondsPerRound}s`, '-s', script, `http://127.0.0.1:${port}/`]);
    const used = cpuSeconds(pids) - before;
    const requests = Number(/(\d+) requests in/.exec(stdout)?.[1]);
    const errors = Number(/Non-2xx or 3xx responses: (\d+)/.exec(stdout)?.[1] ?? 0);
    return { requests, cpuMicros: (used / requests) * 1e6, errors };
  };
  const ours: Round[] = [];
  const theirs: Round[] = [];
  await load(proxy.ports['proxy'] as number, `http://${host}/1k`, [proxy.child.pid as number]);
  for (let i = 0; i < rounds; i += 1) {
    theirs.push(await load(nginxPort, '/1k', [nginx.pid as number, ...childrenOf(nginx.pid as number)]));
    ours.push(await load(proxy.ports['proxy'] as number, `http://${host}/1k`, [proxy.child.pid as number]));
  }
  const of = (list: readonly Round[]): number => median(list.map(({ cpuMicros }) => cpuMicros));
  const spread = (list: readonly Round[]): string => list.map(({ cpuMicros }) => cpuMicros.toFixed(1)).join(' ');
  t.comment(`nginx    ${of(theirs).toFixed(1)} µs CPU a request (${spread(theirs)})`);
  t.comment(
    `outrider ${of(ours).toFixed(1)} µs CPU a request (${spread(ours)}), ${median(ours.map(({ requests }) => requests)) / secondsPerRound} requests/s`,
  );
  t.comment(`ratio    ${(of(ours) / of(theirs)).toFixed(2)}`);
  t.comment(
    `resident ${idleMiB.toFixed(0)} MiB idle, ${residentMiB(proxy.child.pid as number).peak.toFixed(0)} MiB at the highest with ${connections} connections`,
  );
  t.comment(`refused  ${ours.reduce((sum, { errors }) => sum + errors, 0)} of ${ours.reduce((sum, { requests }) => sum + requests, 0)}`);
  t.equal(
    theirs.reduce((sum, { errors }) => sum + errors, 0),
    0,
    'the comparison answered everything',
  );
});

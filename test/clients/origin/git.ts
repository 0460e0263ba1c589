/** A git server: `git http-backend` (git's own CGI program) behind HTTP, with one repository that may be cloned and pushed to. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import type { Handler } from './http.ts';

export interface GitRepository {
  /** What `/git/` stands for. */
  readonly root: string;
  /** A branch's commit. */
  readonly head: (branch: string) => string;
}

/** No configuration of whoever runs the tests. */
export const gitEnvironment = (home: string): NodeJS.ProcessEnv => ({
  PATH: process.env['PATH'],
  HOME: home,
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_TERMINAL_PROMPT: '0',
  GIT_AUTHOR_NAME: 'Tester',
  GIT_AUTHOR_EMAIL: 'tester@outrider.test',
  GIT_COMMITTER_NAME: 'Tester',
  GIT_COMMITTER_EMAIL: 'tester@outrider.test',
});

/** `git/demo.git` below `directory`, with one commit on main. */
export const createRepository = (directory: string): GitRepository => {
  const root = join(directory, 'git');
  const work = join(directory, 'git-seed');
  mkdirSync(root);
  mkdirSync(work);
  const git = (...args: string[]): string => execFileSync('git', args, { cwd: work, env: gitEnvironment(directory), encoding: 'utf8' });
  git('init', '--quiet', '--initial-branch=main');
  writeFileSync(join(work, 'README'), 'A repository behind the proxy.\n');
  git('add', 'README');
  git('commit', '--quiet', '--message=First');
  git('clone', '--quiet', '--bare', work, join(root, 'demo.git'));
  return { root, head: (branch) => git('--git-dir', join(root, 'demo.git'), 'rev-parse', branch).trim() };
};

/** RFC 3875: the head, a blank line, the body. */
const relayCgi = (child: ChildProcess, response: ServerResponse): void => {
  let head = Buffer.alloc(0);
  const { stdout } = child;
  if (!stdout) return;
  const read = (chunk: Buffer): void => {
    head = Buffer.concat([head, chunk]);
    const end = head.indexOf('\r\n\r\n');
    if (end < 0) return;
    stdout.off('data', read);
    const fields = head
      .toString('latin1', 0, end)
      .split('\r\n')
      .map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()] as const);
    const status = fields.find(([name]) => name.toLowerCase() === 'status')?.[1] ?? '200';
    response.writeHead(Number.parseInt(status, 10), Object.fromEntries(fields.filter(([name]) => name.toLowerCase() !== 'status')));
    response.write(head.subarray(end + 4));
    stdout.pipe(response);
  };
  stdout.on('data', read);
};

export const answerGit = ({ root }: GitRepository, ...[request, response]: Parameters<Handler>): void => {
  const url = new URL(request.url ?? '/', 'http://origin.invalid');
  const field = (name: string): string => String(request.headers[name] ?? '');
  const child = spawn('git', ['http-backend'], {
    stdio: ['pipe', 'pipe', 'ignore'],
    env: {
      PATH: process.env['PATH'],
      GIT_PROJECT_ROOT: root,
      GIT_HTTP_EXPORT_ALL: '1',
      GIT_CONFIG_NOSYSTEM: '1',
      // Who runs the tests may not own what they made (a container's volume).
      GIT_CONFIG_COUNT: '2',
      GIT_CONFIG_KEY_0: 'safe.directory',
      GIT_CONFIG_VALUE_0: '*',
      GIT_CONFIG_KEY_1: 'http.receivepack',
      GIT_CONFIG_VALUE_1: 'true',
      REMOTE_USER: 'workload',
      REMOTE_ADDR: '127.0.0.1',
      REQUEST_METHOD: request.method,
      PATH_INFO: url.pathname.slice('/git'.length),
      QUERY_STRING: url.search.slice(1),
      CONTENT_TYPE: field('content-type'),
      ...(request.headers['content-length'] === undefined ? {} : { CONTENT_LENGTH: field('content-length') }),
      HTTP_CONTENT_ENCODING: field('content-encoding'),
      GIT_PROTOCOL: field('git-protocol'),
    },
  });
  child.stdin.on('error', () => undefined);
  request.pipe(child.stdin);
  relayCgi(child, response);
  response.once('close', () => child.kill());
};

/** One request as a program sends it: Node's own client, the proxy and the roots that the environment names, nothing of Outrider's. */
import { Agent as HttpAgent, type IncomingMessage, request as httpRequest } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { isJsonObject } from '../../core/json.ts';
import { limits } from '../../core/limits.ts';

export interface Answer {
  readonly status: number;
  /** What a refusal says: its code, what happened and why. */
  readonly problem: string | undefined;
}

export interface SendOptions {
  /** W3C Trace Context: by it the request is found again. */
  readonly traceId: string;
  readonly signal: AbortSignal;
}

/** Throws when there is no answer. */
export const sendRequest = (url: string, { traceId, signal }: SendOptions): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const headers = { accept: '*/*', 'user-agent': 'outrider-self-test', traceparent: `00-${traceId}-${traceId.slice(0, 16)}-01` };
    const answered = (response: IncomingMessage): void => {
      answerOf(response).then(resolve, reject);
    };
    const way = { proxyEnv: process.env, keepAlive: false };
    const sent = url.startsWith('https:')
      ? httpsRequest(url, { agent: new HttpsAgent(way), headers, signal }, answered)
      : httpRequest(url, { agent: new HttpAgent(way), headers, signal }, answered);
    sent.once('error', reject);
    sent.end();
  });

const answerOf = async (response: IncomingMessage): Promise<Answer> => {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes <= limits.selfTestBodyBytesMax) parts.push(part);
  }
  const { statusCode: status = 0, headers } = response;
  const isProblem = headers['content-type']?.startsWith('application/problem+json') === true;
  return { status, problem: isProblem ? sentenceOf(Buffer.concat(parts).toString()) : undefined };
};

const sentenceOf = (text: string): string | undefined => {
  try {
    const problem: unknown = JSON.parse(text);
    if (!isJsonObject(problem)) return undefined;
    return ['code', 'title', 'detail'].flatMap((name) => (typeof problem[name] === 'string' ? [problem[name]] : [])).join(': ');
  } catch {
    return undefined;
  }
};

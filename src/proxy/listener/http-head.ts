/**
 * What the first bytes of a connection say in clear text: HTTP/1 and which host it is for, HTTP/2 by its preface, or neither. Used to
 * choose who reads on; judges nothing, and what can be read in two ways has no host. Pure.
 */
import { parseAuthority } from '../../core/destination.ts';
import { limits } from '../../core/limits.ts';

/** RFC 9113 section 3.4. No HTTP/1 request begins so. */
const preface = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';

/** Method and a space: RFC 9112 section 3, after the empty lines that section 2.2 lets a client send first. */
const methodStart = /^(?:\r\n|\n)*[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32} /;
const methodStartSoFar = /^(?:\r\n|\n)*(?:\r|[!#$%&'*+.^_`|~0-9A-Za-z-]{0,32})$/;
const requestLine = /^(?:\r\n|\n)*(\S+) (\S.*?) HTTP\/1\.[0-9]\r?\n/;
const lineMax = limits.requestTargetBytesMax + 64;

export type HttpStart = 'http1' | 'h2' | 'other';

/**
 * By the request line, so that a protocol of words (SMTP's "EHLO host") is not taken for HTTP. 'more': what is there fits HTTP/1,
 * and the line goes on.
 */
export const httpStart = (bytes: Buffer): HttpStart | 'more' => {
  const text = bytes.toString('latin1', 0, lineMax);
  if (text.startsWith(preface)) return 'h2';
  if (preface.startsWith(text)) return 'more';
  if (methodStartSoFar.test(text)) return 'more';
  if (!methodStart.test(text)) return 'other';
  if (requestLine.test(text)) return 'http1';
  const begun = text.search(/[^\r\n]/);
  // A line that is too long is still a request: the engine says so.
  if (!text.includes('\n', begun)) return text.length < lineMax ? 'more' : 'http1';
  return 'other';
};

const fieldLine = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t ]*(.*?)[\t ]*$/;

/**
 * The host that a whole HTTP/1 head asks for, canonical and without its port; undefined when it has none, several, or asks a proxy
 * (absolute-form, CONNECT). 'more' until the head is whole.
 */
export const hostOfHead = (bytes: Buffer): { readonly host: string | undefined } | 'more' => {
  const text = bytes.toString('latin1').replace(/^(?:\r\n|\n)+/, '');
  const end = text.indexOf('\r\n\r\n');
  if (end < 0) return bytes.length < limits.headerBytesMax + lineMax ? 'more' : { host: undefined };
  const [first = '', ...fields] = text.slice(0, end).split('\r\n');
  const target = /^[A-Z]+ (\S+) HTTP\/1\.[01]$/.exec(first)?.[1];
  if (target === undefined || !/^(?:\/|\*$)/.test(target)) return { host: undefined };
  const hosts: string[] = [];
  for (const field of fields) {
    const [, name, value] = fieldLine.exec(field) ?? [];
    // A line that is no field (folded, with a space before the colon, with a bare CR or LF) makes everything after it uncertain.
    if (name === undefined || value === undefined || /[\r\n\0]/.test(value)) return { host: undefined };
    if (name.toLowerCase() === 'host') hosts.push(value);
  }
  return { host: hosts.length === 1 ? parseAuthority(hosts[0] as string)?.host : undefined };
};

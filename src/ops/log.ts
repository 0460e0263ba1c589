/** Structured logs, one JSON object a line. Owns pino. */
import { pino, stdTimeFunctions } from 'pino';
import { Fault } from '../core/fault.ts';

export type LogFields = Readonly<Record<string, unknown>>;

export interface Log {
  readonly debug: (fields: LogFields, message: string) => void;
  readonly info: (fields: LogFields, message: string) => void;
  readonly warn: (fields: LogFields, message: string) => void;
  readonly error: (fields: LogFields, message: string) => void;
  /** A log whose lines all have these fields too. */
  readonly with: (fields: LogFields) => Log;
}

/** What an error may say in a log line: its class, code and message, and those of its causes; stacks only for bugs. */
const describeError = (error: unknown, depth = 0): unknown => {
  if (!(error instanceof Error)) return typeof error === 'string' ? error.slice(0, 500) : typeof error;
  const { code } = error as { code?: unknown };
  const isBug = !(error instanceof Fault) && (error instanceof TypeError || error.name === 'AssertionError' || error instanceof RangeError);
  return {
    name: error.name,
    ...(code === undefined ? {} : { code }),
    message: error.message.slice(0, 1000),
    ...(isBug ? { stack: error.stack } : {}),
    ...(error.cause === undefined || depth > 3 ? {} : { cause: describeError(error.cause, depth + 1) }),
  };
};

export interface LogOptions {
  readonly role: string;
  readonly level: 'debug' | 'info' | 'warn' | 'error' | 'silent';
  /** Where lines go; standard error unless told. */
  readonly write?: (line: string) => void;
}

export const createLog = ({ role, level, write }: LogOptions): Log => {
  const destination = { write: write ?? ((line: string) => void process.stderr.write(line)) };
  const options = {
    level,
    base: { role },
    timestamp: stdTimeFunctions.isoTime,
    messageKey: 'message',
    formatters: { level: (label: string) => ({ level: label }) },
    serializers: { error: describeError },
  };
  return wrap(pino(options, destination));
};

const wrap = (logger: ReturnType<typeof pino>): Log => ({
  debug: (fields, message) => logger.debug(fields, message),
  info: (fields, message) => logger.info(fields, message),
  warn: (fields, message) => logger.warn(fields, message),
  error: (fields, message) => logger.error(fields, message),
  with: (fields) => wrap(logger.child(fields)),
});

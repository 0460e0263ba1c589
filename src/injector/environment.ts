/**
 * What programs in the pod are told by their environment. What the user set is merged where it can be, else kept or replaced with a word.
 * Pure. Values of variables are never in a note.
 */
import { isJsonObject, type JsonObject } from '../core/json.ts';
import { exceptionsOf, javaProxyOptions, javaTrustOptions, proxyVariables, trustVariables } from '../core/program-environment.ts';
import type { InjectionMode } from '../settings/injector.ts';
import { bundleFile, ports, trustStoreFile } from './names.ts';
import type { Container, EnvironmentEntry } from './pod.ts';

export interface Surroundings {
  readonly mode: InjectionMode;
  /** What is reached without the proxy: names, addresses, ranges, and what Kubernetes puts in for `$(NAME)`. */
  readonly direct: readonly string[];
}

export interface ToldEnvironment {
  readonly env: readonly EnvironmentEntry[];
  /** Sentences without the container's name. */
  readonly notes: readonly string[];
}

const place = { host: '127.0.0.1', port: ports.proxy } as const;
const proxyUrl = `http://${place.host}:${place.port}`;
const exceptionVariables = ['no_proxy', 'NO_PROXY'] as const;
/** Where one comes from somewhere else (a ConfigMap, a Secret), the original is kept under this name, and Kubernetes puts it in. */
const originalPrefix = 'OUTRIDER_ORIGINAL_';

export const tellEnvironment = ({ env = [] }: Container, { mode, direct }: Surroundings): ToldEnvironment => {
  const original = originals(env, mode === 'explicit' ? [...exceptionVariables, 'JAVA_TOOL_OPTIONS'] : ['JAVA_TOOL_OPTIONS']);
  const user = valuesOf([...original.env, ...original.rest]);
  const trust = trustOf(user);
  const java = javaOf(user, { mode, direct });
  const proxy = mode === 'explicit' ? proxyOf(user, direct) : { values: {}, notes: [] };
  const set: Readonly<Record<string, string>> = { ...proxy.values, ...trust.values, ...java.values };
  return { env: [...original.env, ...replaced(original.rest, set)], notes: [...proxy.notes, ...trust.notes, ...java.notes] };
};

/**
 * The names among `names` whose value is not in the pod are moved to another name, and then refer to it. A reference that may lead nowhere sets
 * nothing, and Kubernetes leaves `$(NAME)` of what is not set as it is, on which a JVM does not start: so before the first there is what
 * counted without it. A list of exceptions has no such empty place, which some programs take for every name.
 */
const originals = (env: readonly EnvironmentEntry[], names: readonly string[]) => {
  const elsewhere = new Set(env.filter(({ name, valueFrom }) => names.includes(name) && valueFrom !== undefined));
  const isMoved = new Set<string>();
  let javaOptions = '';
  const moved = env.flatMap((entry): EnvironmentEntry[] => {
    const { name, value = '', valueFrom } = entry;
    // What refers to other variables would stand before them.
    if (name === 'JAVA_TOOL_OPTIONS' && valueFrom === undefined) javaOptions = value.includes('$(') ? '' : value;
    if (!elsewhere.has(entry) || valueFrom === undefined) return [];
    const isFirst = !isMoved.has(name);
    isMoved.add(name);
    const fallback =
      name === 'JAVA_TOOL_OPTIONS' && isFirst && isOptional(valueFrom) ? [{ name: originalPrefix + name, value: javaOptions }] : [];
    return [...fallback, { name: originalPrefix + name, valueFrom }];
  });
  const rest = env.map(
    (entry): EnvironmentEntry => (elsewhere.has(entry) ? { name: entry.name, value: `$(${originalPrefix}${entry.name})` } : entry),
  );
  return { env: moved, rest };
};

/** Of a ConfigMap, a Secret or a file: what is wanted of it need not be there. */
const isOptional = (valueFrom: JsonObject): boolean =>
  Object.values(valueFrom).some((reference) => isJsonObject(reference) && reference['optional'] === true);

/** Of several of one name the last counts. One whose value is elsewhere is there, and unknown. */
const valuesOf = (env: readonly EnvironmentEntry[]): Readonly<Record<string, string>> =>
  Object.fromEntries(env.map(({ name, value, valueFrom }) => [name, valueFrom === undefined ? (value ?? '') : `$(${name})`]));

const replaced = (env: readonly EnvironmentEntry[], set: Readonly<Record<string, string>>): readonly EnvironmentEntry[] => {
  const last = new Map(env.map(({ name }, i) => [name, i]));
  const kept = env.flatMap((entry, i): EnvironmentEntry[] => {
    // A variable may be called constructor.
    const value = Object.hasOwn(set, entry.name) ? set[entry.name] : undefined;
    if (value === undefined) return [entry];
    return last.get(entry.name) === i ? [{ name: entry.name, value }] : [];
  });
  const added = Object.entries(set).filter(([name]) => !last.has(name));
  return [...kept, ...added.map(([name, value]): EnvironmentEntry => ({ name, value }))];
};

const proxyOf = (user: Readonly<Record<string, string>>, direct: readonly string[]) => {
  const exceptions = exceptionsOf(user, direct);
  const values: Record<string, string> = {
    ...Object.fromEntries(proxyVariables.map((name) => [name, proxyUrl])),
    ...Object.fromEntries(exceptionVariables.map((name) => [name, exceptions.join(',')])),
    // Node's own http, https and fetch read the variables above only when told to.
    NODE_USE_ENV_PROXY: '1',
  };
  const over = [...proxyVariables, 'NODE_USE_ENV_PROXY'].filter((name) => (user[name] ?? '') !== '' && user[name] !== values[name]);
  const around = ['grpc_proxy', 'GRPC_PROXY'].filter((name) => (user[name] ?? '') !== '');
  const notes = [
    ...(over.length === 0 ? [] : [`${over.join(', ')} replaced: programs are led to the proxy in the pod`]),
    ...(around.length === 0 ? [] : [`${around.join(', ')} kept: gRPC programs that read it go around the proxy`]),
    ...(exceptions.includes('*') ? ['NO_PROXY has "*": programs that read it go around the proxy'] : []),
  ];
  return { values, notes };
};

const trustOf = (user: Readonly<Record<string, string>>) => {
  const isOurs = (name: string): boolean => (user[name] ?? '') === '' || user[name] === bundleFile;
  const names = trustVariables.map(({ name }) => name);
  const kept = names.filter((name) => !isOurs(name));
  return {
    values: Object.fromEntries(names.filter(isOurs).map((name) => [name, bundleFile])),
    notes: kept.length === 0 ? [] : [`${kept.join(', ')} kept: programs that read it may not trust the proxy`],
  };
};

/** The last of two equal options counts, so ours come last; what is there already is not written again. */
const javaOf = (user: Readonly<Record<string, string>>, { mode, direct }: Surroundings) => {
  const written = user['JAVA_TOOL_OPTIONS'] ?? '';
  const trusting = ['JAVA_TOOL_OPTIONS', 'JDK_JAVA_OPTIONS', '_JAVA_OPTIONS'].filter((name) => namesTrustStore(user[name] ?? ''));
  // A list that comes from elsewhere is not in Java's form: it has commas.
  const exceptions = exceptionsOf(user, direct).filter((item) => !item.startsWith(`$(${originalPrefix}`));
  const ours = [
    ...(mode === 'explicit' ? javaProxyOptions(place, exceptions) : []),
    ...(trusting.length === 0 ? javaTrustOptions(trustStoreFile) : []),
  ].join(' ');
  const isThere = ours === '' || written === ours || written.endsWith(` ${ours}`);
  const options = isThere ? written : [written, ours].filter((text) => text !== '').join(' ');
  return {
    values: options === '' ? {} : { JAVA_TOOL_OPTIONS: options },
    notes: [
      ...(trusting.length === 0
        ? []
        : [`${trusting.join(', ')} names a trust store, which is kept: Java programs may not trust the proxy`]),
      ...(written.startsWith(`$(${originalPrefix}`) ? ['JAVA_TOOL_OPTIONS comes from elsewhere: a trust store in it is replaced'] : []),
    ],
  };
};

const namesTrustStore = (options: string): boolean =>
  (options.match(/-Djavax\.net\.ssl\.trustStore=\S+/g) ?? []).some((option) => !option.endsWith(`=${trustStoreFile}`));

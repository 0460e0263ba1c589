/** What `--help` says: one text for all, one for each command. */
export const commandNames = ['broker', 'collector', 'proxy', 'demo', 'check', 'events'] as const;
export type CommandName = (typeof commandNames)[number];

const summaries: Readonly<Record<CommandName, string>> = {
  broker: 'attest workloads, decide by policy, hand out short-lived credentials',
  collector: 'take access events in, store them, then acknowledge',
  proxy: "the workload's egress proxy: inject credentials, leave evidence",
  demo: 'all of it in one process, with a stand-in cluster issuer and an echo target',
  check: 'read configuration files and say everything that is wrong with them',
  events: 'print access events, one JSON object a line',
};

export const overview = (): string =>
  [
    'outrider <command> [options]',
    '',
    'Lets an unmodified program call the services it may call without ever holding a credential.',
    '',
    ...commandNames.map((name) => `  ${name.padEnd(10)} ${summaries[name]}`),
    '',
    '  --help     this text, or after a command its own',
    '  --version  the version',
    '',
    'In a clone of the repository: npm run -s outrider -- <command> [options]; npm start is the demo.',
  ].join('\n');

const roleHelp = (role: 'broker' | 'collector' | 'proxy'): string[] => [
  `outrider ${role} --config FILE`,
  '',
  `Runs the ${role}: ${summaries[role]}.`,
  '',
  `  --config FILE  YAML; see config/examples/${role}.yaml`,
  '',
  'Prints where it listens, then that it is ready; structured logs go to standard error. SIGTERM or SIGINT lets requests',
  'in flight finish, a second one exits at once. Exit status: 0 stopped, 1 could not run, 2 wrong arguments.',
];

const helps: Readonly<Record<CommandName, readonly string[]>> = {
  broker: [
    ...roleHelp('broker'),
    '',
    'The configuration file is watched: a change is applied without a restart, and one that is wrong is refused and logged.',
  ],
  collector: roleHelp('collector'),
  proxy: roleHelp('proxy'),
  demo: [
    'outrider demo [--any-port] [--dir DIR] [--only issuer,target] [--token-lifetime SECONDS]',
    '',
    'Broker, collector, proxy, a stand-in cluster issuer and an HTTP and HTTPS echo target: real parts over real sockets.',
    'The configuration is config/demo/*.yaml.',
    '',
    '  --any-port                every listener on a free port instead of 15000 to 15443',
    '  --dir DIR                 where keys, tokens, events and logs go (default .outrider/demo)',
    '  --only issuer,target      only the stand-ins, to run the roles apart with config/examples',
    '  --token-lifetime SECONDS  life of the workload token (default 600); it is rotated at four fifths of that',
  ],
  check: [
    'outrider check --config FILE [--config FILE …] [--json]',
    'outrider check --schema broker|collector|proxy',
    '',
    'Reads configuration files of any role and prints every problem as file:line:column path: what is wrong, what to write.',
    'Warns of migration debt such as static credentials too. Exit status: 0 all are valid, 1 one is not.',
    '',
    '  --json         one JSON object a file',
    '  --schema KIND  the JSON Schema of a kind of configuration, for editors',
  ],
  events: [
    'outrider events [--file FILE] [--follow] [--limit N] [--since 15m]',
    '                [--workload ID] [--target NAME] [--kind KIND] [--request ID]',
    '',
    'Prints what the collector stored, one JSON object a line.',
    '',
    "  --file FILE     the collector's store (default: the demo's)",
    '  --follow        goes on with what arrives',
    '  --limit N       the last N matching events only',
    '  --since 15m     those of the last 15 minutes (s, m, h, d)',
    '  --workload ID   of this SPIFFE ID',
    '  --target NAME   of this target',
    '  --kind KIND     intent, outcome, refusal, pass or loss',
    '  --request ID    of this request',
  ],
};

export const commandHelp = (name: CommandName): string => helps[name].join('\n');

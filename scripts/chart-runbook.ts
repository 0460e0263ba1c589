/** RUNBOOK.md of the chart: what its alerts say, in one document for people. The text is the alerts' own. */
import { parse } from 'yaml';

export interface Rule {
  readonly record?: string;
  readonly alert?: string;
  readonly expr: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

interface Group {
  readonly name: string;
  readonly rules: readonly Rule[];
}

/** Groups of a rule file. */
export const groupsIn = (text: string): readonly Group[] => (parse(text) as { readonly groups: readonly Group[] }).groups;

/** What stands for a label or a value when nobody has been alerted. Not in angle brackets, which Markdown takes for HTML. */
const withoutTemplates = (text: string): string =>
  text.replaceAll(/\{\{ \$labels\.(\w+) \}\}/g, (_, label: string) => label.toUpperCase()).replaceAll(/\{\{ \$value[^}]*\}\}/g, 'VALUE');

const section = ({ alert, labels, annotations }: Rule): string => {
  const { summary, description, runbook } = annotations as Readonly<Record<'summary' | 'description' | 'runbook', string>>;
  return [
    `## ${alert}`,
    `*${labels?.['severity']}* · ${withoutTemplates(summary)}.`,
    withoutTemplates(description),
    runbook.trimEnd(),
  ].join('\n\n');
};

/** `alerts`: the text of files/alerts.yaml. */
export const runbook = (alerts: string): string =>
  [
    '# Runbook',
    'What to do about each alert. Made by "npm run chart" from files/alerts.yaml, whose alerts carry the same text.',
    ...groupsIn(alerts).flatMap(({ rules }) => rules.map(section)),
    '',
  ]
    .join('\n\n')
    .trimEnd()
    .concat('\n');

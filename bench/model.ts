/**
 * `npm run bench -- model [NAME...]`: searches the model of the hand-over (test/model) in all its configurations, or in those
 * named, as a table; what is found is told as the shortest story that leads there. A whole run is kept in results.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { table } from '../src/cli/output';
import { type Checked, check, type Finding } from '../test/model/check';
import { IN_CI, WIDE } from '../test/model/configurations';
import { BUDGETS, type Configuration } from '../test/model/hand-over-settings';
import { say } from './report';

const RESULTS = join(__dirname, '..', '..', 'bench', 'results');
const CONFIGURATIONS: Readonly<Record<string, Configuration>> = { ...IN_CI, ...WIDE };

interface Row {
  readonly name: string;
  readonly mayHappen: string;
  readonly seconds: number;
  readonly checked: Checked;
}

// Configurations of a few million states take a minute each; nothing else in this process waits meanwhile.
export function benchModel(json: boolean, args: readonly string[]): Promise<void> {
  const named = args.filter((arg) => !arg.startsWith('--'));
  const unknown = named.find((name) => !(name in CONFIGURATIONS));
  if (unknown !== undefined)
    throw new Error(`no configuration ${unknown}; there are ${Object.keys(CONFIGURATIONS).join(', ')}`);
  const rows = (named.length > 0 ? named : Object.keys(CONFIGURATIONS)).map(searched);
  const text = rowsTable(rows);
  process.stdout.write(`${text}\n`);
  if (named.length === 0) {
    mkdirSync(RESULTS, { recursive: true });
    writeFileSync(join(RESULTS, 'hand-over-model.txt'), `${text}\n`);
  }
  const bad = rows.filter(({ checked }) => checked.findings.length > 0);
  for (const { name, checked } of bad) for (const finding of checked.findings) say(told(name, finding));
  if (json) process.stdout.write(`${JSON.stringify({ bench: 'model', rows: rows.map(jsonOf) })}\n`);
  return bad.length > 0
    ? Promise.reject(new Error(`something was found in ${bad.map(({ name }) => name).join(', ')}`))
    : Promise.resolve();
}

function jsonOf({ name, seconds, checked: { states, transitions, complete, findings } }: Row): object {
  const verified = complete && findings.length === 0;
  return { name, seconds, states, transitions, complete, findings, verified };
}

function searched(name: string): Row {
  const configuration = CONFIGURATIONS[name];
  if (!configuration) throw new Error(`no configuration ${name}`);
  const startedAt = performance.now();
  const checked = check(configuration);
  const seconds = (performance.now() - startedAt) / 1000;
  say(
    [
      `${name}: ${checked.states} states, ${checked.transitions} transitions, ${seconds.toFixed(0)} s`,
      checked.complete ? '' : ', cut off',
      checked.findings.length > 0 ? ': SOMETHING WAS FOUND' : '',
    ].join(''),
  );
  return { name, mayHappen: mayHappen(configuration), seconds, checked };
}

function mayHappen({ budget, second }: Configuration): string {
  const times = BUDGETS.flatMap((name) => (budget[name] === undefined ? [] : [`${name} ${budget[name]}`])).join(', ');
  return second ? `a second migration ${second === 'back' ? 'back' : 'the same way'}; ${times}` : times;
}

/** Of several findings of a kind the one with the most states. */
function rowsTable(rows: readonly Row[]): string {
  const most = (findings: readonly Finding[]): string => String(Math.max(0, ...findings.map(({ states }) => states)));
  return table([
    [
      'configuration',
      'what may happen, and how often',
      'states',
      'transitions',
      'seconds',
      'violations',
      'stuck',
      'never clean',
    ],
    ...rows.map(({ name, seconds, checked, mayHappen: what }) => {
      const unlessCut = (findings: readonly Finding[]): string => (checked.complete ? most(findings) : '?');
      return [
        name,
        what,
        `${checked.states}${checked.complete ? '' : ', cut off'}`,
        String(checked.transitions),
        seconds.toFixed(0),
        most(checked.violations),
        unlessCut(checked.stuck),
        unlessCut(checked.neverClean),
      ];
    }),
  ]);
}

function told(name: string, { what, states, story }: Finding): string {
  return `\n${name}: ${what}; ${states} states. The shortest way:\n${story.map((line) => `  ${line.replaceAll('\n', '\n  ')}`).join('\n')}`;
}

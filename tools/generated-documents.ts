/**
 * The documents that are made from the tables of src/model: options, errors, the contract's schemas. Text only; writing
 * is generate-docs.ts, and test/unit/documents.test.ts compares what is committed with what is made here.
 */
import { z } from 'zod';
import { kebab, variableOf } from '../src/cli/settings';
import type { ErrorCodeSpec } from '../src/model/error-code-spec';
import { ERROR_CODES } from '../src/model/error-codes';
import { errorReportSchema } from '../src/model/errors';
import { EXIT, EXIT_MEANINGS } from '../src/model/exit-codes';
import { GUEST_STATES, type GuestStateSpec } from '../src/model/guest-states';
import {
  abortMigrationSchema,
  imageProgressSchema,
  migrationProgressSchema,
  migrationRequestSchema,
  migrationResultSchema,
  retryStepSchema,
  setBandwidthLimitSchema,
} from '../src/model/migration';
import {
  CONTROL_QUEUE,
  hostQueue,
  MESSAGES,
  migrationWorkflowId,
  SEARCH_ATTRIBUTES,
  WORKFLOWS,
  warmWorkflowId,
} from '../src/model/names';
import type { OptionSpec } from '../src/model/option-spec';
import { describe } from '../src/model/option-text';
import { MIGRATION_OPTIONS, PROCESS_OPTIONS } from '../src/model/options';
import {
  DESTINATION_EVENTS,
  DESTINATION_TABLE,
  isRefused,
  type Row,
  SOURCE_EVENTS,
  SOURCE_TABLE,
  type Step,
} from '../src/model/ownership-machine';

const NOTICE = '<!-- Made by `npm run docs`; change the table in the source, not this file. -->';

function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

function optionRows(table: Readonly<Record<string, OptionSpec>>): string[][] {
  return Object.entries(table).map(([name, spec]) => [
    `\`${name}\``,
    `\`--${kebab(name)}\``,
    `\`${variableOf(name)}\``,
    describe(spec),
    spec.unit ?? '',
    spec.default === '' ? '' : `\`${String(spec.default)}\``,
    spec.help,
  ]);
}

const GUEST_STATE_COLUMNS = [
  'state',
  'the guest runs',
  'on disk by then',
  'source agent dies',
  'destination agent dies',
  'source QEMU dies',
  'destination QEMU dies',
  'link is cut',
];

function switchover(): string {
  const rows = Object.entries<GuestStateSpec>(GUEST_STATES).map(([name, state]) => [
    `\`${name}\`: ${state.title}`,
    state.runsAt,
    state.durable,
    state.sourceAgent,
    state.destinationAgent,
    state.sourceQemu,
    state.destinationQemu,
    state.link,
  ]);
  return `${NOTICE}
# The switchover of a running guest, state by state

What is true in each state of a guest's move, and what a crash in it leads to. The order above all: never two running copies,
never a lost guest, then downtime. \`mine\` is the point of no return: before it every failure ends with the guest running
at the source, after it with the guest running at the destination. The control worker and the Temporal server have no column: in
every state the agents go on without them, and the step that waits for them is tried again.

${markdownTable(GUEST_STATE_COLUMNS, rows)}

${ownership()}

The tests walk these tables: \`test/helpers/crash-matrix.ts\` has to name every state (it does not compile otherwise),
\`npm run bench -- matrix\` kills, cuts and fills in each of them while a monitor watches both QEMUs. \`npm run bench -- model\`
searches the tables of ownership through all orders of two attempts, crashes, resets and terminates; \`npm run bench -- sim\`
runs the code that follows them in a simulated world.
`;
}

function stepText<S, E extends string>(from: string, step: Step<S, E>): string {
  if (isRefused(step)) return `\`${step.refused}\``;
  const effects = step.effects.length === 0 ? '' : `: ${step.effects.join(', ')}`;
  return step.to === from ? `stays${effects}` : `**${String(step.to)}**${effects}`;
}

function ownershipTable<State extends string, Event extends string, E extends string>(
  table: Readonly<Record<State, Row<State, Event, E>>>,
  events: readonly Event[],
  may: (state: State) => string,
): string {
  const states = Object.keys(table) as State[];
  const rows = states.map((state) => {
    const { meaning, on, atStart, whenClosed } = table[state];
    return [
      `\`${state}\``,
      meaning,
      may(state),
      ...events.map((event) => stepText(state, on[event])),
      atStart,
      whenClosed,
    ];
  });
  return markdownTable(
    [
      'state',
      'what it means',
      'allowed',
      ...events.map((event) => `\`${event}\``),
      'when the agent starts',
      'when the workflow is closed',
    ],
    rows,
  );
}

/** The tables that journals, activities, recovery and sweep carry out. */
function ownership(): string {
  const said = (...allowed: readonly (string | false)[]): string =>
    allowed.filter((each) => each !== false).join('; ') || 'nothing';
  const mayAtSource = (state: keyof typeof SOURCE_TABLE): string => {
    const { mayRun, open } = SOURCE_TABLE[state];
    return said(mayRun && 'the guest may be let run', open && 'no other migration gets the VM');
  };
  const mayAtDestination = (state: keyof typeof DESTINATION_TABLE): string => {
    const { takesData, mayRun, open } = DESTINATION_TABLE[state];
    return said(
      takesData && 'data is taken in',
      mayRun && 'the guest may be started',
      open && 'no other migration gets the VM',
    );
  };
  return `## Who owns the VM

What an event leads to in each state, on either side (\`src/model/ownership-machine.ts\`). A state in bold is a line of the
journal (\`<data>/ownership/<vm>.journal\`), on disk before what stands behind it is done; a code is what the event is refused
with. Each is checked, written and done inside the VM's lock. A guest is told to run only where the VM's *last* line allows it.

### At the source

${ownershipTable(SOURCE_TABLE, SOURCE_EVENTS, mayAtSource)}

### At the destination

${ownershipTable(DESTINATION_TABLE, DESTINATION_EVENTS, mayAtDestination)}

### What holds in every state

- At most one of the two QEMUs runs the guest. Never do both journals say that their host may run it.
- A promise not to start it (\`abandoned\`, \`given_back\`) is never broken.
- What runs has memory and disks of one moment: a QEMU is loaded with what was verified, or the VM is given back.
- Nothing of an owner's is a baseline, which may be pruned.
- Where a guest stands still, somebody will act: the step that holds it, the agent when it starts, the sweep, or an operator
  who has been told.`;
}

function configuration(): string {
  const head = ['name', 'flag', 'variable', 'takes', 'unit', 'default', 'what it does'];
  return `${NOTICE}
# Configuration

Every option has one name. A flag wins over its variable, the variable over the configuration file, the file over the
default. The file is YAML with the names of the first column; it is the one of \`--config\`, else \`DWCP_CONFIG\`, else
\`./dwcp.yaml\`, else \`/etc/dwcp/dwcp.yaml\`. An unknown name or a bad value ends the command with exit code ${EXIT.usage} and
names its place. A file that was found and not named is read only where it and its folder are the user's own (or root's) and nobody else
may write them.

Sizes, rates and durations take units: \`64MiB\`, \`100MB/s\`, \`800mbit\`, \`30s\`. A plain number is in the unit of the
table. In a request (JSON) they are plain numbers.

## Options of a migration

Flags of \`dwcp migrate\`, \`warm\` and \`plan\`; \`options\` of a request.

${markdownTable(head, optionRows(MIGRATION_OPTIONS))}

## Options of a process

Flags of \`dwcp agent\`, \`control\`, \`server\`, \`doctor\` and of the commands that look at a host's own data.

${markdownTable(head, optionRows(PROCESS_OPTIONS))}

## The Temporal server

Where it is comes from Temporal's own settings, the same for every command and for NovaCron's programs:
\`TEMPORAL_ADDRESS\` (default \`localhost:7233\`), \`TEMPORAL_NAMESPACE\` (default \`default\`), \`TEMPORAL_API_KEY\`
(or \`TEMPORAL_API_KEY_FILE\`, a file that its owner alone may read),
\`TEMPORAL_TLS\` and its certificate files, or a profile in \`TEMPORAL_CONFIG_FILE\`.

| variable | what it does |
| --- | --- |
| \`DWCP_TEMPORAL_CLI\` | the \`temporal\` program that the embedded server runs |
| \`DWCP_CONFIG\` | the configuration file |
`;
}

function errors(): string {
  const rows = Object.entries<ErrorCodeSpec>(ERROR_CODES).map(([code, spec]) => [
    `\`${code}\``,
    spec.meaning,
    spec.retry,
    spec.fallback ? 'yes' : '',
    String(spec.exitCode),
    spec.mend,
  ]);
  const exits = Object.entries(EXIT).map(([name, code]) => [String(code), EXIT_MEANINGS[name as keyof typeof EXIT]]);
  return `${NOTICE}
# Errors and exit codes

Every error has a code; programs compare codes, the text is for people. In Temporal the code is the failure's type, and its
first detail is \`{code, message, phase?, side?, hint}\`.

- **transient**: trying again may help. Activities do so by themselves, with capped back-off and without limit.
- **operator**: trying again helps only after somebody has changed something. The workflow parks (search attribute
  \`NeedsOperator\`), says what, and waits for \`retry_step\` or \`abort_migration\`; nothing that has arrived is lost.
- **permanent**: trying again cannot help. Where *standard transfer* says yes, transport or encoder are what failed, and
  with \`enableFallback\` the standard transfer takes over; else the migration rolls back.

${markdownTable(['code', 'meaning', 'class', 'standard transfer', 'exit', 'mend'], rows)}

## Exit codes of \`dwcp\`

${markdownTable(['exit', 'meaning'], exits)}
`;
}

function schema(name: string, title: string, type: z.ZodType, io: 'input' | 'output'): [string, string] {
  const made = z.toJSONSchema(type, { io, target: 'draft-2020-12' });
  return [`contract/schemas/${name}.json`, `${JSON.stringify({ $id: `dwcp/${name}`, title, ...made }, null, 2)}\n`];
}

/** What the Go client's constants are checked against. */
function names(): string {
  const example = { vmId: 'VM', hostId: 'HOST', destinationHost: 'HOST' };
  return `${JSON.stringify(
    {
      controlQueue: CONTROL_QUEUE,
      hostQueue: hostQueue(example.hostId),
      workflows: WORKFLOWS,
      migrationWorkflowId: migrationWorkflowId(example.vmId),
      warmWorkflowId: warmWorkflowId(example.vmId, example.destinationHost),
      messages: MESSAGES,
      searchAttributes: SEARCH_ATTRIBUTES,
      errorCodes: Object.keys(ERROR_CODES),
    },
    null,
    2,
  )}\n`;
}

/** Path from the project's root -> text. */
export function generatedDocuments(): ReadonlyMap<string, string> {
  return new Map([
    ['docs/configuration.md', configuration()],
    ['docs/switchover.md', switchover()],
    ['docs/errors.md', errors()],
    schema(
      'migration-request',
      'Argument of migrateVm, warmBaseline and planMigration',
      migrationRequestSchema,
      'input',
    ),
    schema('migration-result', 'Result of migrateVm and warmBaseline', migrationResultSchema, 'output'),
    schema('migration-progress', 'Answer of the query "progress"', migrationProgressSchema, 'output'),
    schema('image-progress', 'Heartbeat of a transfer activity', imageProgressSchema, 'output'),
    schema('retry-step', 'Argument of the update "retry_step"', retryStepSchema, 'input'),
    schema('abort-migration', 'Argument of the update "abort_migration"', abortMigrationSchema, 'input'),
    schema('set-bandwidth-limit', 'Argument of the update "set_bandwidth_limit"', setBandwidthLimitSchema, 'input'),
    schema('error-report', 'First detail of every failure', errorReportSchema, 'output'),
    ['contract/names.json', names()],
  ]);
}

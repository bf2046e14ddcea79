/** Histories of migrations that have run replay on the workflows as they are: a change that would break open ones is seen here. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Runtime, Worker } from '@temporalio/worker';
import { DeterminismViolationError } from '@temporalio/workflow';
import { WORKFLOW_BUNDLE } from '../../src/control/control-worker';

const FOLDER = join(__dirname, '..', '..', '..', 'test', 'fixtures', 'histories');
const names = readdirSync(FOLDER).map((file) => file.replace(/\.json$/, ''));

interface History {
  readonly events: { activityTaskScheduledEventAttributes?: { activityType: { name: string } } }[];
}

function load(name: string): History {
  return JSON.parse(readFileSync(join(FOLDER, `${name}.json`), 'utf8')) as History;
}

const replay = (history: History): Promise<void> =>
  Worker.runReplayHistory({ workflowBundle: { codePath: WORKFLOW_BUNDLE } }, history);

beforeAll(
  () =>
    void Runtime.install({
      logger: {
        log: () => undefined,
        trace: () => undefined,
        debug: () => undefined,
        info: () => undefined,
        warn: () => undefined,
        error: () => undefined,
      },
    }),
);

test.each([
  'completed',
  'completed-onto-baseline',
  'completed-standard',
  'completed-fallback',
  'cancelled',
  'parked-and-retried',
  'warmed',
  'pruned',
])('there is a history of a migration that %s', (name) => {
  expect(names).toContain(name);
});

test.each(names)('%s replays', async (name) => {
  await replay(load(name));
});

test('a history in which another activity was scheduled does not', async () => {
  const history = load('completed');
  const scheduled = history.events.find(
    (event) => event.activityTaskScheduledEventAttributes?.activityType.name === 'detectTier',
  );
  scheduled!.activityTaskScheduledEventAttributes!.activityType.name = 'somethingElse';
  await expect(replay(history)).rejects.toThrow(DeterminismViolationError);
});

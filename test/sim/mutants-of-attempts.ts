/**
 * Mutants of how attempts give way to one another, and of what is done afterwards: recovery, sweep, clean-up.
 */
import { edit, type Mutant } from './mutant';

export const ATTEMPTS: readonly Mutant[] = [
  {
    name: 'no lock a VM',
    edits: [
      edit('src/store/vm-locks', 'return await running;', 'return await work();'),
      edit('src/store/vm-locks', 'const running = before.then(work, work);', 'const running = before;'),
    ],
  },
  {
    name: 'a newer attempt does not wait for the end of the one before it',
    edits: [edit('src/sync/source-hub', 'await earlier?.ended.catch(() => undefined);', '')],
  },
  {
    name: 'steps of a migration go side by side',
    edits: [
      edit(
        'src/sync/source-hub',
        'return this.attempt(`${migrationId}/ownership`, signal, run);',
        'return run(signal);',
      ),
    ],
  },
  {
    name: 'a session of an older attempt is let in',
    edits: [edit('src/sync/destination-hub', 'if (newest > hello.epoch)', 'if (false)')],
  },
  {
    name: 'what an older session has under way goes on beside the newer',
    edits: [
      edit(
        'src/sync/destination-hub',
        'new session_work_1.SessionWork(this.#works.get(sessionId))',
        'new session_work_1.SessionWork()',
      ),
    ],
  },
  {
    name: 'a guest that was loaded stays loaded where the next rounds begin',
    edits: [
      edit(
        'src/hypervisor/qemu/incoming-guest',
        'if (this.#loading || this.#loaded !== undefined || (known && !known.prefix.equals(setUp.prefix)))',
        'if (known && !known.prefix.equals(setUp.prefix))',
      ),
      edit(
        'src/hypervisor/qemu/incoming-guest',
        'if ((0, loaded_guest_1.sameState)(this.#loaded, state) && (await (0, loaded_guest_1.answers)(this.#qmp)))',
        'if (await (0, loaded_guest_1.answers)(this.#qmp))',
      ),
    ],
  },
  {
    name: 'what was loaded for an older attempt counts for the newer',
    edits: [
      edit(
        'src/hypervisor/qemu/incoming-guest',
        'if (attempt === this.#attempt)\n                        this.#isLoaded(state);',
        'this.#isLoaded(state);',
      ),
      edit(
        'src/hypervisor/qemu/incoming-guest',
        'if (attempt !== this.#attempt)\n                    throw superseded();\n            }',
        '}',
      ),
    ],
  },
  {
    name: 'a switchover that was broken off goes on by itself',
    edits: [
      edit('src/sync/guest/move-mode', 'throwIfEnded() {', 'throwIfEnded() { return;'),
      edit('src/sync/hand-over/source-ownership', 'if (standsStill && !(await standsStill()))', 'if (false)'),
    ],
  },
  {
    name: 'a switchover that was broken off leaves the guest standing',
    edits: [edit('src/sync/guest/live-migration', 'await (0, guest_pause_1.letRunOn)(this.#guest);', '')],
  },
  {
    name: 'an older version of a block overwrites a newer',
    edits: [
      edit('src/sync/destination/newest-batch', 'if (isStale())', 'if (false)'),
      edit('src/sync/destination/newest-batch', 'others.length > 0 && !isStale()', 'false'),
    ],
  },
];

export const AFTERWARDS: readonly Mutant[] = [
  {
    name: 'nobody completes what stands behind a line at start',
    edits: [
      edit('src/agent/recovery', 'if (failed.length === 0)', 'return; if (failed.length === 0)'),
      edit('src/agent/recovery', "if (atStart === 'let the guest run on')", "if (atStart === 'no such thing')"),
    ],
  },
  {
    name: 'an agent that starts does nothing for what was there',
    edits: [edit('src/agent/recovery', 'while (!signal.aborted) {', 'while (false) {')],
  },
  {
    name: 'the sweep does not look',
    edits: [edit('src/agent/sweeper', 'async #sweep() {', 'async #sweep() { return;')],
  },
  {
    name: 'the sweep takes back what was handed over without asking',
    edits: [
      edit(
        'src/agent/sweeper',
        "await (await migration.session('settle')).control.request('abandon', { vmId, fence: last.fence });",
        '',
      ),
    ],
  },
  {
    name: 'the sweep does not ask whether the workflow is open',
    edits: [edit('src/agent/sweeper', "if (status.name !== 'RUNNING')", 'if (true)')],
  },
  {
    name: 'the workflow rolls back without the destination’s promise',
    edits: [edit('workflows/switchover', 'await promisesNotToStart(flow)', 'true', 2)],
  },
  {
    name: 'a promise that nobody gave counts as given',
    edits: [edit('workflows/switchover', 'catch {\n        return false;', 'catch {\n        return true;')],
  },
  {
    name: 'a hand-over in doubt counts as refused',
    edits: [
      edit(
        'src/sync/hand-over/in-doubt',
        'if (NOT_TAKEN_OVER.has(reason.code))',
        'if (reason.code === "SESSION_LOST") return new errors_1.DwcpError("ABANDONED", "lost"); if (NOT_TAKEN_OVER.has(reason.code))',
      ),
      edit(
        'activities/source-guest',
        'await takeOver(input, handOver, attempt);',
        "await takeOver(input, handOver, attempt).catch((error) => { throw error.code === 'ABANDONED' ? new " +
          "errors_1.DwcpError('GUEST_RUNS_ON', 'refused') : error; });",
      ),
      edit('workflows/switchover', 'flow.handedOver = false;', ''),
    ],
  },
  {
    name: 'a destination that gave the VM back leaves its QEMU',
    edits: [
      edit(
        'src/sync/destination/destination-migration',
        'await this.#guest?.discard();\n        if (this.#guest)',
        'if (this.#guest)',
      ),
    ],
  },
  {
    name: 'a QEMU that has run is replaced when it ends',
    edits: [
      edit('src/hypervisor/qemu/incoming-guest', 'this.#toldToRun = true;', ''),
      edit('src/sync/destination/destination-guest', 'if (before)', 'if (false)'),
    ],
  },
  {
    name: 'a journal that is gone counts as one that never was',
    edits: [
      edit('src/store/ownership-journal', 'if (await (0, durable_file_1.exists)(this.#knownPath(vmId)))', 'if (false)'),
    ],
  },
];

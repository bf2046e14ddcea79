/**
 * Mutants of the product: one line of the hand-over undone in each, as a text edit of the compiled code. A simulation that finds
 * nothing wrong with one of them does not look there.
 */
import type { Edit } from './loader';

export interface Mutant {
  readonly name: string;
  readonly edits: readonly Edit[];
}

const edit = (file: string, find: string, replace: string, count = 1): Edit => ({ file, find, replace, count });

/** Each has to fit the code as it is: an edit whose text is not there is an error of the mutant, said by name. */
export const MUTANTS: readonly Mutant[] = [
  { name: 'journals and records are renamed into place without being synced', edits: [edit('src/store/durable-file', 'await file.sync();', '', 2)] },
  { name: 'folders are not synced', edits: [edit('src/store/durable-folder', 'await folder.sync();', '')] },
  { name: 'no lock a VM', edits: [edit('src/store/vm-locks', 'return await running;', 'return await work();'), edit('src/store/vm-locks', 'const running = before.then(work, work);', 'const running = before;')] },
  { name: 'handed over, the source may roll back without a promise', edits: [edit('src/model/ownership-machine', "released: no('HANDOVER_IN_DOUBT'), roll_back: no('HANDOVER_IN_DOUBT')", "released: no('HANDOVER_IN_DOUBT'), roll_back: ROLL_BACK")] },
  { name: 'handed over, the guest may run on', edits: [edit('src/model/ownership-machine', "open: true, mayRun: false, atStart: 'nothing', whenClosed: 'ask the destination'", "open: true, mayRun: true, atStart: 'let the guest run on', whenClosed: 'ask the destination'")] },
  { name: 'behind `mine` the destination still promises', edits: [edit('src/model/ownership-machine', "effects: ['forget the record'] }, abandon: no('ALREADY_PAST_RETURN'), cannot_start: { to: 'given_back'", "effects: ['forget the record'] }, abandon: { to: 'abandoned', effects: GIVE_UP }, cannot_start: { to: 'given_back'")] },
  { name: 'abandoned, the destination still takes over', edits: [edit('src/model/ownership-machine', "on: { prepare: no('ABANDONED'), take_over: no('ABANDONED'), installed: no('ABANDONED'), abandon: { to: 'abandoned'", "on: { prepare: no('ABANDONED'), take_over: TAKE_OVER, installed: { to: 'installed', effects: ['forget the record'] }, abandon: { to: 'abandoned'")] },
  { name: 'nobody completes what stands behind a line at start', edits: [edit('src/agent/recovery', 'if (failed.length === 0)', 'return; if (failed.length === 0)'), edit('src/agent/recovery', "if (atStart === 'let the guest run on')", "if (atStart === 'no such thing')")] },
  { name: 'the last disk round is left out', edits: [edit('src/sync/live-migration', 'await this.#disks.lastRound(this.#sending.signal);', 'for (const { feed } of this.#disks.all) feed.end();')] },
  { name: 'an older version of a block overwrites a newer', edits: [edit('src/sync/working-image', 'if (isStale())', 'if (false)'), edit('src/sync/working-image', 'others.length > 0 && !isStale()', 'false')] },
  { name: '`started` is not written before the guest runs', edits: [edit('src/sync/destination-guest', 'await (0, durable_file_1.writeDurably)(this.#startedPath, JSON.stringify({ responds: false }));', '')] },
  { name: 'what memory holds is not compared before it is loaded again', edits: [edit('src/sync/destination-guest', 'if (verifiedRoot === undefined || image.verifiedRoot !== verifiedRoot)', 'if (false)')] },
  { name: 'the workflow rolls back without the destination’s promise', edits: [edit('workflows/switchover', 'await promisesNotToStart(flow)', 'true', 2)] },
  { name: 'a hand-over in doubt counts as refused', edits: [edit('src/sync/source-migration', 'if (NOT_TAKEN_OVER.has(reason.code))', 'if (reason.code === "SESSION_LOST") return new errors_1.DwcpError("ABANDONED", "lost"); if (NOT_TAKEN_OVER.has(reason.code))')] },
  { name: 'a release does not end the QEMU', edits: [edit('src/hypervisor/host-driver', 'await (0, guest_process_1.quitGuest)(definition.qmpPath);', '')] },
  { name: 'the sweep does not look', edits: [edit('src/agent/sweeper', 'async #sweep() {', 'async #sweep() { return;')] },
];

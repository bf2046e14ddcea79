/**
 * Mutants of the product: one thought of the hand-over left out of each, as a text edit of the compiled code. A simulation that
 * finds nothing wrong with one of them does not look there. Which seed finds which: bench/results/sim-mutants.txt.
 */
import { edit, type Mutant } from './mutant';
import { AFTERWARDS, ATTEMPTS } from './mutants-of-attempts';

const SYNCED_FIRST: readonly Mutant[] = [
  {
    name: 'journals and records are renamed into place without being synced',
    edits: [edit('src/store/durable-file', 'await file.sync();', '', 2)],
  },
  {
    name: 'the line that goes into room set aside is not synced',
    edits: [
      edit(
        'src/store/durable-file',
        'await file.truncate(content.length);\n        await file.sync();',
        'await file.truncate(content.length);',
      ),
    ],
  },
  { name: 'folders are not synced', edits: [edit('src/store/durable-folder', 'await folder.sync();', '')] },
  {
    name: 'a file that is written is not synced in its folder',
    edits: [
      edit('src/store/durable-file', 'await (0, durable_folder_1.syncFolder)((0, node_path_1.dirname)(path));', ''),
    ],
  },
  {
    name: 'a file that is renamed is not synced in its folder',
    edits: [
      edit('src/store/durable-file', 'await (0, durable_folder_1.syncFolder)((0, node_path_1.dirname)(to));', ''),
    ],
  },
  {
    name: 'a folder that is there passes for durable',
    edits: [
      edit('src/store/durable-folder', 'if (first === undefined && durable.has(folder))', 'if (first === undefined)'),
    ],
  },
  {
    name: 'the state that a guest’s device has is not synced',
    edits: [
      edit(
        'src/sync/destination/destination-guest',
        '(0, durable_file_1.writeDurably)(this.#statePath, text), ',
        '(0, promises_1.writeFile)(this.#statePath, text), ',
      ),
    ],
  },
];

const ORDERED: readonly Mutant[] = [
  {
    name: 'the promise is written before the record',
    edits: [
      edit(
        'activities/destination-host',
        'await hub.incoming.prepare(',
        "if (mode === 'migrate' && own.state === 'none') await own.happened('prepare', fence); await hub.incoming.prepare(",
      ),
    ],
  },
  {
    name: '`rolled_back` is written before the guest runs on',
    edits: [
      edit(
        'src/sync/hand-over/source-ownership',
        'const vm = await registry.get(vmId);\n            await holder.resume(vm.images);',
        "await own.happened('runs_again', fence); const vm = await registry.get(vmId);\n            await holder.resume(vm.images);",
      ),
    ],
  },
  {
    name: 'the guest is started before `mine` is written',
    edits: [
      edit(
        'src/sync/destination/destination-migration',
        "await own.happened('take_over', fence,",
        "await this.#guest?.start(() => this.images.image(guest_1.MEMORY_IMAGE_ID), memoryRoot); await own.happened('take_over', fence,",
      ),
    ],
  },
  {
    name: '`handed_over` is written when the destination has taken over',
    edits: [
      edit(
        'activities/source-guest',
        'await ownership.handOver(vmId, migrationId, handOver, () => live.standsStill());',
        'await hub.open(migrationId, destination, { bandwidthLimit: 0, priority: 1 }).takeOver(vmId, roots, signal); ' +
          'await ownership.handOver(vmId, migrationId, handOver, () => live.standsStill());',
      ),
    ],
  },
  {
    name: '`started` is not written before the guest runs',
    edits: [
      edit(
        'src/sync/destination/destination-guest',
        'await (0, durable_file_1.writeDurably)(this.#startedPath, JSON.stringify({ responds: false }));',
        '',
      ),
    ],
  },
  {
    name: 'the last disk round is left out',
    edits: [
      edit(
        'src/sync/guest/live-migration',
        'await this.#disks.lastRound(this.#sending.stopped);',
        'for (const { feed } of this.#disks.all) feed.end();',
      ),
    ],
  },
  {
    name: 'the VM is registered as moved without its QEMU being ended',
    edits: [edit('src/hypervisor/host-driver', 'await (0, guest_process_1.quitGuest)(definition.qmpPath);', '')],
  },
];

const REFUSED: readonly Mutant[] = [
  {
    name: 'handed over, the source may roll back without a promise',
    edits: [
      edit(
        'src/model/ownership-machine',
        "released: no('HANDOVER_IN_DOUBT'), roll_back: no('HANDOVER_IN_DOUBT')",
        "released: no('HANDOVER_IN_DOUBT'), roll_back: ROLL_BACK",
      ),
    ],
  },
  {
    name: 'handed over, the guest may run on',
    edits: [
      edit(
        'src/model/ownership-machine',
        "open: true, mayRun: false, atStart: 'nothing', whenClosed: 'ask the destination'",
        "open: true, mayRun: true, atStart: 'let the guest run on', whenClosed: 'ask the destination'",
      ),
    ],
  },
  {
    name: 'behind `mine` the destination still promises',
    edits: [
      edit(
        'src/model/ownership-machine',
        "effects: ['forget the record'] }, abandon: no('ALREADY_PAST_RETURN'), cannot_start: { to: 'given_back'",
        "effects: ['forget the record'] }, abandon: { to: 'abandoned', effects: GIVE_UP }, cannot_start: { to: 'given_back'",
      ),
      edit(
        'src/model/ownership-machine',
        "abandon: no('ALREADY_PAST_RETURN'), cannot_start: no('ALREADY_PAST_RETURN')",
        "abandon: { to: 'installed', effects: [] }, cannot_start: no('ALREADY_PAST_RETURN')",
      ),
    ],
  },
  {
    name: 'abandoned, the destination still takes over',
    edits: [
      edit(
        'src/model/ownership-machine',
        "on: { prepare: no('ABANDONED'), take_over: no('ABANDONED'), installed: no('ABANDONED'), abandon: { to: 'abandoned'",
        "on: { prepare: no('ABANDONED'), take_over: TAKE_OVER, installed: { to: 'installed', effects: ['forget the " +
          "record'] }, abandon: { to: 'abandoned'",
      ),
      edit(
        'src/sync/destination/destination-migration',
        "if (own.state === 'promised')\n                    await this.#becomeMine",
        "if (own.state === 'promised' || own.state === 'abandoned')\n                    await this.#becomeMine",
      ),
      edit(
        'src/sync/destination/destination-migration',
        'await this.#giveUp();\n        });',
        'if (this.record.mode !== "migrate") await this.#giveUp();\n        });',
      ),
    ],
  },
  {
    name: 'the guest goes on whatever the journal says',
    edits: [
      edit(
        'src/sync/hand-over/source-ownership',
        'if (!ownership_machine_1.SOURCE_TABLE[own.state].mayRun || !(await own.isLast()))',
        'if (false)',
      ),
    ],
  },
  {
    name: 'a VM that another migration has may be claimed',
    edits: [
      edit(
        'src/sync/hand-over/source-ownership',
        'if (last && (0, ownership_machine_1.isOpenState)(last.state) && last.migrationId !== migrationId)',
        'if (false)',
      ),
    ],
  },
  {
    name: 'the destination promises a place that another migration has',
    edits: [edit('activities/destination-host', 'if (holder !== undefined)', 'if (false)')],
  },
  {
    name: 'the destination takes data behind its promise',
    edits: [
      edit(
        'src/sync/destination/destination-migration',
        'if (!this.takesData || !ownership_machine_1.DESTINATION_TABLE[state].takesData)',
        'if (false)',
      ),
    ],
  },
  {
    name: 'what has arrived is not compared before it is taken over',
    edits: [
      edit('src/sync/destination/open-images', 'if (root !== undefined && image.verifiedRoot === root)', 'if (true)'),
    ],
  },
  {
    name: 'what memory holds is not compared before it is loaded again',
    edits: [
      edit(
        'src/sync/destination/destination-guest',
        'if (verifiedRoot === undefined || image.verifiedRoot !== verifiedRoot)',
        'if (false)',
      ),
    ],
  },
  {
    name: 'any QEMU that is paused counts as having the guest',
    edits: [
      edit(
        'src/sync/destination/destination-guest',
        "if (!loaded.success || loaded.data.state !== digestOf(state.toString('utf8')))",
        'if (!loaded.success)',
      ),
      edit('src/hypervisor/qemu/incoming-guest', "if (!running && status !== 'paused')", 'if (false)'),
    ],
  },
  {
    name: 'a process is known by its number alone',
    edits: [
      edit(
        'src/hypervisor/qemu/process-table',
        'return startTicksOf(pid) === startTicks;',
        'return startTicksOf(pid) !== undefined;',
      ),
    ],
  },
];

/** Each has to fit the code as it is: an edit whose text is not there is an error of the mutant, said by name. */
export const MUTANTS: readonly Mutant[] = [...SYNCED_FIRST, ...ORDERED, ...REFUSED, ...ATTEMPTS, ...AFTERWARDS];

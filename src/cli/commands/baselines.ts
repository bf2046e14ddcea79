/** `dwcp baseline list | verify | prune`: what this host holds of images from before. Works beside a running agent. */
import type { Command } from 'commander';
import { DwcpError } from '../../model/errors';
import { EXIT } from '../../model/exit-codes';
import { PROCESS_OPTIONS } from '../../model/options';
import { formatBytes, parseSizeBytes } from '../../model/units';
import { type BaselineListing, BaselineStore } from '../../store/baselines';
import { SealingKey } from '../../store/sealing-key';
import { CodecPool } from '../../sync/codec/codec-pool';
import { BaselineSealer } from '../../sync/upkeep/baseline-sealer';
import { type BaselineVerdict, verifyBaseline } from '../../sync/upkeep/verify-baseline';
import type { Flags } from '../flags';
import { table } from '../output';
import { addOptions } from '../settings';
import { PLACE, placeOf } from './place';

export function addBaselineCommands(program: Command): void {
  const baseline = program.command('baseline').description('What this host holds of images from before');
  const ofVm = (records: readonly BaselineListing[], vmId: unknown): readonly BaselineListing[] =>
    vmId === undefined ? records : records.filter((record) => record.vmId === vmId);

  addOptions(
    baseline
      .command('list')
      .description('List baselines, least recently used first')
      .argument('[vm]', 'only of this VM'),
    PROCESS_OPTIONS,
    PLACE,
  ).action(async (vmId: string | undefined, flags: Flags, command: Command) => {
    const { dataDir, output } = placeOf(flags, command);
    const rows = [['vm', 'image', 'kind', 'generation', 'on disk', 'whole', 'sealed', 'last used']];
    for (const record of ofVm(await new BaselineStore(dataDir).list(), vmId)) {
      if (output.json) output.emit({ event: 'baseline', ...record }, () => '');
      rows.push([
        record.vmId,
        record.imageId,
        record.kind,
        String(record.generation),
        formatBytes(record.allocatedBytes),
        record.complete ? 'yes' : 'in part',
        sealedText(record),
        new Date(record.lastUsedAtMs).toISOString(),
      ]);
    }
    if (!output.json) output.say(rows.length === 1 ? `no baselines under ${dataDir}` : table(rows));
  });

  addOptions(
    baseline
      .command('verify')
      .description('Read baselines and compare them with their hashes; exit code 11 where one is damaged')
      .argument('[vm]', 'only of this VM')
      .option('--forget', 'remove those that are damaged; they are sent anew by the next migration'),
    PROCESS_OPTIONS,
    [...PLACE, 'baselineKeyFile'],
  ).action(async (vmId: string | undefined, flags: Flags, command: Command) => {
    const { dataDir, output, options } = placeOf(flags, command);
    const store = new BaselineStore(dataDir);
    const key = SealingKey.read(options.baselineKeyFile);
    const pool = new CodecPool(0);
    store.guardWith(new BaselineSealer(store, pool, key));
    try {
      for (const record of ofVm(await store.list(), vmId)) {
        const opened = await store.open(record.vmId, record.imageId);
        const verdict: BaselineVerdict = opened
          ? await verifyBaseline(opened, store.accessTo(opened.record), pool)
          : { state: 'missing' };
        const bad = verdict.state === 'damaged' || verdict.state === 'missing';
        if (bad) process.exitCode = EXIT.integrity;
        if (bad && flags.forget === true) await store.forget(record.vmId, record.imageId);
        output.emit(
          { event: 'verified', vmId: record.vmId, imageId: record.imageId, ...verdict },
          () =>
            `${record.vmId}/${record.imageId}  ${textOf(verdict)}${bad && flags.forget === true ? ': removed' : ''}`,
        );
      }
    } finally {
      await pool.close();
    }
  });

  addOptions(
    baseline
      .command('prune')
      .description('Remove the least recently used until the rest fits')
      .requiredOption('--to <size>', 'what may remain, such as 100GiB; 0 removes all that may go')
      .option('--vm <vm>', 'only of this VM'),
    PROCESS_OPTIONS,
    PLACE,
  ).action(async (flags: Flags, command: Command) => {
    const { dataDir, output } = placeOf(flags, command);
    const limit = parseSizeBytes(String(flags.to));
    if (limit === undefined)
      throw new DwcpError('INVALID_INPUT', `A size is such as 100GiB, not "${String(flags.to)}"`);
    const removed = await new BaselineStore(dataDir).prune(Math.max(1, limit), {
      ...(typeof flags.vm === 'string' && { vmId: flags.vm }),
    });
    output.emit({ event: 'pruned', removed }, () =>
      removed.length === 0
        ? 'nothing had to go'
        : removed.map((record) => `${record.vmId}/${record.imageId}  ${formatBytes(record.allocatedBytes)}`).join('\n'),
    );
  });
}

function sealedText({ contentPath, seal }: BaselineListing): string {
  if (contentPath === undefined) return '-';
  return seal ? (seal.complete ? 'yes' : 'in part') : 'no';
}

function textOf(verdict: BaselineVerdict): string {
  if (verdict.state === 'whole') return `whole: ${verdict.blocks} blocks`;
  if (verdict.state === 'damaged')
    return (
      `damaged: ${verdict.damagedBlocks} of ${verdict.blocks} blocks differ from their hashes; --forget removes it, ` +
      'else they are sent again when it is used'
    );
  if (verdict.state === 'locked') return 'sealed with a key that was not given: --baseline-key-file names its file';
  return verdict.state === 'in use'
    ? 'in use: the VM lives here, its image is the content'
    : 'missing: its content or its manifest is gone; --forget removes the record';
}

/**
 * The RAM blocks of a QEMU as its monitor for people lists them - the other says nothing of them - and whether QEMU can stream them at
 * all. A line: `  0000:00:02.0/vga.vram    4 KiB  0x0000000004080000 0x0000000001000000 0x0000000001000000 ...`.
 */
import { cannotBeMovedLive } from '../../model/guest-refusals';
import { formatBytes } from '../../model/units';
import type { QmpClient } from './qmp-client';

const LINE = /^\s*(.*?)\s+\d+ [KMGT]?i?B\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)/i;

export interface ListedBlock {
  /** Empty where it is no memory of the guest's, or not yet. */
  readonly id: string;
  /** In QEMU's own numbering of all memory. */
  readonly offset: number;
  readonly usedBytes: number;
  readonly mostBytes: number;
}

export async function listRamBlocks(qmp: QmpClient): Promise<ListedBlock[]> {
  return parseRamBlocks(await qmp.execute('human-monitor-command', { 'command-line': 'info ramblock' }));
}

export function parseRamBlocks(text: string): ListedBlock[] {
  return text.split('\n').flatMap((line) => {
    const [, id = '', offset, used, most] = LINE.exec(line) ?? [];
    if (offset === undefined || used === undefined || most === undefined) return [];
    return [
      {
        id,
        offset: Number.parseInt(offset, 16),
        usedBytes: Number.parseInt(used, 16),
        mostBytes: Number.parseInt(most, 16),
      },
    ];
  });
}

/**
 * Without KVM, QEMU (10.0, system/physmem.c, tlb_reset_dirty_range_all) takes a block's place in itself for its place in all memory, and
 * ends by an assertion where a block that the guest writes to while it migrates is larger than the first of them. It would end the guest,
 * so nothing passes it.
 * @throws GUEST_REFUSED
 */
export async function assertStreams(qmp: QmpClient): Promise<void> {
  if ((await qmp.execute('query-kvm')).enabled) return;
  const blocks = await listRamBlocks(qmp);
  const large = tooLarge(blocks);
  if (!large) return;
  const memory = await qmp.execute('query-memory-devices');
  const backend = /^\/objects\/(.*)$/.exec(large.id)?.[1] ?? large.id;
  const { data } = memory.find(({ data: { memdev } }) => memdev === `/objects/${backend}`) ?? {};
  const what = data?.id === undefined ? `memory ${backend}` : `memory device ${data.id} (${backend})`;
  throw cannotBeMovedLive(
    `its ${what}, ${formatBytes(large.usedBytes)}, is larger than the memory that its QEMU has made first, ` +
      'and QEMU without KVM would end as it migrates: unplug it, or start the guest anew with its largest memory first, or all of it in -m',
  );
}

/** The first block of the guest's that is larger than what begins at 0. */
export function tooLarge(blocks: readonly ListedBlock[]): ListedBlock | undefined {
  const first = blocks.find(({ offset }) => offset === 0);
  return first && blocks.find(({ id, usedBytes }) => id !== '' && usedBytes > first.mostBytes);
}

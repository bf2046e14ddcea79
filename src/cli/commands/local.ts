/**
 * The commands that look at this host's own data folder: its VMs. They work without a server and beside a
 * running agent, whose files are replaced as a whole or not at all.
 */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { ImageFilesDriver } from '../../hypervisor/image-files';
import { foldersOf } from '../../hypervisor/qemu/guest-policy';
import { DwcpError } from '../../model/errors';
import type { ImageKind } from '../../model/ids';
import { type VmLooks, vmDefinitionSchema } from '../../model/image';
import { PROCESS_OPTIONS } from '../../model/options';
import { formatBytes } from '../../model/units';
import { BaselineStore } from '../../store/baselines';
import { OwnershipJournal } from '../../store/ownership-journal';
import { VmRegistry } from '../../store/vm-registry';
import type { Flags } from '../flags';
import { addOptions } from '../settings';
import { addGuestCommands, assertNotInMigration, defineGuest } from './guests';
import { PLACE, placeOf } from './place';

function collect(value: string, previous: string[]): string[] {
  return [...previous, value];
}

function parseImage(kind: ImageKind, text: string, index: number): { imageId: string; kind: ImageKind; path: string } {
  const [name, path] = text.includes('=')
    ? [text.slice(0, text.indexOf('=')), text.slice(text.indexOf('=') + 1)]
    : [undefined, text];
  const letter = String.fromCharCode('a'.charCodeAt(0) + index);
  const unnamed = { disk: `vd${letter}`, memory: 'memory', gpu: `gpu${index}` }[kind];
  return { imageId: name ?? unnamed, kind, path: resolve(path) };
}

function looksOf({ type, tenant }: Flags): VmLooks {
  return { ...(typeof type === 'string' && { vmType: type }), ...(typeof tenant === 'string' && { tenant }) };
}

export function addLocalCommands(program: Command): void {
  const vm = program.command('vm').description('VMs of this host');

  addOptions(
    vm
      .command('define')
      .description('Make a VM known to this host: image files, or a guest by its QEMU command behind --')
      .argument('<vm>', 'its id')
      .argument('[command...]', 'behind --: the QEMU command that runs it')
      .option(
        '--type <type>',
        'what it has in common with others that look alike: those of one tenant share a dictionary',
      )
      .option('--tenant <tenant>', 'whose it is: only VMs of one tenant share bases (`dwcp base`) and dictionaries')
      .option('--disk <[name=]path>', 'a disk image; may be given again', collect, [])
      .option('--memory <[name=]path>', 'a saved memory image', collect, [])
      .option('--gpu <[name=]path>', 'the saved state of an accelerator; may be given again', collect, []),
    PROCESS_OPTIONS,
    [...PLACE, 'imageRoots'],
  ).action(async (vmId: string, guest: string[], flags: Flags, command: Command) => {
    const place = placeOf(flags, command);
    if (guest.length > 0) return defineGuest(place, vmId, guest, looksOf(flags));
    const { dataDir, output, options } = place;
    const images = (['disk', 'memory', 'gpu'] as const).flatMap((kind) =>
      (flags[kind] as string[]).map((text, index) => parseImage(kind, text, index)),
    );
    const parsed = vmDefinitionSchema.safeParse({ vmId, images, ...looksOf(flags) });
    if (!parsed.success || images.length === 0) {
      const missing =
        images.length === 0 ? 'give at least one --disk, --memory or --gpu' : (parsed.error?.issues[0]?.message ?? '');
      throw new DwcpError('INVALID_INPUT', `VM ${vmId}: ${missing}`);
    }
    const registry = new VmRegistry(dataDir, foldersOf(options.imageRoots));
    registry.assertPlaces(parsed.data.images);
    const known = await registry.find(vmId);
    await assertNotInMigration(dataDir, vmId);
    if (known?.presence === 'away')
      throw new DwcpError('VM_NOT_HERE', `VM ${vmId} has moved to ${known.movedTo ?? 'another host'}`);
    const inspected = await new ImageFilesDriver().inspect(parsed.data.images);
    await registry.put({ ...parsed.data, presence: 'here', generation: known?.generation ?? 0 });
    output.emit(
      { event: 'vm', vmId, images: inspected },
      () => `${vmId}: ${inspected.map((image) => `${image.imageId} ${formatBytes(image.sizeBytes)}`).join(', ')}`,
    );
  });

  addOptions(vm.command('list').description('List the VMs that this host knows'), PROCESS_OPTIONS, PLACE).action(
    async (flags: Flags, command: Command) => {
      const { dataDir, output } = placeOf(flags, command);
      const records = await new VmRegistry(dataDir).list();
      if (records.length === 0 && !output.json)
        output.say(`no VMs under ${dataDir}; \`dwcp vm define\` makes one known`);
      for (const record of records)
        output.emit(
          { event: 'vm', ...record },
          () =>
            `${record.vmId}  ${record.presence === 'here' ? 'here' : `away: ${record.movedTo ?? '?'}`}  ` +
            record.images.map((image) => image.imageId).join(', '),
        );
    },
  );

  addOptions(
    vm
      .command('show')
      .description('Show one VM: its images, its owner, its last migrations')
      .argument('<vm>', 'its id'),
    PROCESS_OPTIONS,
    PLACE,
  ).action(async (vmId: string, flags: Flags, command: Command) => {
    const { dataDir, output } = placeOf(flags, command);
    const record = await new VmRegistry(dataDir).get(vmId);
    const journal = (await new OwnershipJournal(dataDir).entries(vmId)).slice(-10);
    output.emit({ event: 'vm', ...record, journal }, () =>
      [
        `${vmId}: ${record.presence === 'here' ? 'lives here' : `lives on ${record.movedTo ?? 'another host'}`}, ` +
          `generation ${record.generation}`,
        ...record.images.map((image) => `  ${image.imageId}  ${image.kind}  ${image.path}`),
        ...journal.map(
          (entry) =>
            `  ${new Date(entry.atMs).toISOString()}  ${entry.state.padEnd(11)} ${entry.migrationId}` +
            (entry.note ? ` (${entry.note})` : ''),
        ),
      ].join('\n'),
    );
  });

  addOptions(
    vm.command('remove').description('Forget a VM and its baselines; its image files stay').argument('<vm>', 'its id'),
    PROCESS_OPTIONS,
    PLACE,
  ).action(async (vmId: string, flags: Flags, command: Command) => {
    const { dataDir, output } = placeOf(flags, command);
    const registry = new VmRegistry(dataDir);
    await registry.get(vmId);
    await assertNotInMigration(dataDir, vmId);
    await registry.remove(vmId);
    const store = new BaselineStore(dataDir);
    const baselines = (await store.list()).filter((record) => record.vmId === vmId);
    for (const { imageId } of baselines) await store.forget(vmId, imageId);
    const also =
      baselines.length === 0
        ? ''
        : `; ${formatBytes(baselines.reduce((sum, { allocatedBytes }) => sum + allocatedBytes, 0))} of baselines are removed`;
    output.emit(
      { event: 'removed', vmId, baselines: baselines.length },
      () => `${vmId} is forgotten; its image files stay where they are${also}`,
    );
  });

  addGuestCommands(vm);
}

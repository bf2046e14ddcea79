/**
 * The commands that look at this host's own data folder: VMs and baselines. They work without a server and beside a
 * running agent, whose files are replaced as a whole or not at all.
 */
import type { Command } from 'commander';
import { resolveDataDir } from '../../agent/host';
import { ImageFilesDriver } from '../../hypervisor/image-files';
import { DwcpError } from '../../model/errors';
import { vmDefinitionSchema } from '../../model/image';
import { PROCESS_OPTIONS } from '../../model/options';
import { formatBytes, parseSizeBytes } from '../../model/units';
import { BaselineStore } from '../../store/baselines';
import { OwnershipJournal } from '../../store/ownership-journal';
import { VmRegistry } from '../../store/vm-registry';
import { createOutput, type Output, table } from '../output';
import { addOptions, processOptions } from '../settings';
import { addGuestCommands, assertNotInMigration, defineGuest } from './guests';
import { resolve } from 'node:path';

type Flags = Readonly<Record<string, unknown>>;

const PLACE = ['hostId', 'dataDir'];

function collect(value: string, previous: string[]): string[] {
  return [...previous, value];
}

function parseImage(kind: 'disk' | 'memory', text: string, index: number): { imageId: string; kind: 'disk' | 'memory'; path: string } {
  const [name, path] = text.includes('=') ? [text.slice(0, text.indexOf('=')), text.slice(text.indexOf('=') + 1)] : [undefined, text];
  const letter = String.fromCharCode('a'.charCodeAt(0) + index);
  return { imageId: name ?? (kind === 'memory' ? 'memory' : `vd${letter}`), kind, path: resolve(path) };
}

export function addLocalCommands(program: Command): void {
  const vm = program.command('vm').description('VMs of this host');
  const place = (flags: Flags, command: Command): { dataDir: string; output: Output; flags: Flags } => {
    const all = { ...flags, config: command.optsWithGlobals().config as unknown };
    return { dataDir: resolveDataDir(processOptions(all)), output: createOutput(command.optsWithGlobals().json === true), flags };
  };

  addOptions(
    vm.command('define').description('Make a VM known to this host: image files, or a guest by its QEMU command behind --').argument('<vm>', 'its id').argument('[command...]', 'behind --: the QEMU command that runs it')
      .option('--disk <[name=]path>', 'a disk image; may be given again', collect, [])
      .option('--memory <[name=]path>', 'a saved memory image', collect, []),
    PROCESS_OPTIONS, PLACE,
  ).action(async (vmId: string, guest: string[], flags: Flags, command: Command) => {
    const { dataDir, output } = place(flags, command);
    if (guest.length > 0) return defineGuest(dataDir, vmId, guest, output);
    const images = [...(flags.disk as string[]).map((text, index) => parseImage('disk', text, index)), ...(flags.memory as string[]).map((text, index) => parseImage('memory', text, index))];
    const parsed = vmDefinitionSchema.safeParse({ vmId, images });
    if (!parsed.success || images.length === 0) {
      const missing = images.length === 0 ? 'give at least one --disk or --memory' : parsed.error?.issues[0]?.message ?? '';
      throw new DwcpError('INVALID_INPUT', `VM ${vmId}: ${missing}`);
    }
    const registry = new VmRegistry(dataDir);
    const known = await registry.find(vmId);
    await assertNotInMigration(dataDir, vmId);
    if (known?.presence === 'away') throw new DwcpError('VM_NOT_HERE', `VM ${vmId} has moved to ${known.movedTo ?? 'another host'}`);
    const inspected = await new ImageFilesDriver().inspect(parsed.data.images);
    await registry.put({ ...parsed.data, presence: 'here', generation: known?.generation ?? 0 });
    output.emit({ event: 'vm', vmId, images: inspected }, () => `${vmId}: ${inspected.map((image) => `${image.imageId} ${formatBytes(image.sizeBytes)}`).join(', ')}`);
  });

  addOptions(vm.command('list').description('List the VMs that this host knows'), PROCESS_OPTIONS, PLACE).action(async (flags: Flags, command: Command) => {
    const { dataDir, output } = place(flags, command);
    const records = await new VmRegistry(dataDir).list();
    if (records.length === 0 && !output.json) output.say(`no VMs under ${dataDir}; \`dwcp vm define\` makes one known`);
    for (const record of records) output.emit({ event: 'vm', ...record }, () => `${record.vmId}  ${record.presence === 'here' ? 'here' : `away: ${record.movedTo ?? '?'}`}  ${record.images.map((image) => image.imageId).join(', ')}`);
  });

  addOptions(vm.command('show').description('Show one VM: its images, its owner, its last migrations').argument('<vm>', 'its id'), PROCESS_OPTIONS, PLACE).action(async (vmId: string, flags: Flags, command: Command) => {
    const { dataDir, output } = place(flags, command);
    const record = await new VmRegistry(dataDir).get(vmId);
    const journal = (await new OwnershipJournal(dataDir).entries(vmId)).slice(-10);
    output.emit({ event: 'vm', ...record, journal }, () => [
      `${vmId}: ${record.presence === 'here' ? 'lives here' : `lives on ${record.movedTo ?? 'another host'}`}, generation ${record.generation}`,
      ...record.images.map((image) => `  ${image.imageId}  ${image.kind}  ${image.path}`),
      ...journal.map((entry) => `  ${new Date(entry.atMs).toISOString()}  ${entry.state.padEnd(11)} ${entry.migrationId}${entry.note ? ` (${entry.note})` : ''}`),
    ].join('\n'));
  });

  addOptions(vm.command('remove').description('Forget a VM; its image files stay').argument('<vm>', 'its id'), PROCESS_OPTIONS, PLACE).action(async (vmId: string, flags: Flags, command: Command) => {
    const { dataDir, output } = place(flags, command);
    const registry = new VmRegistry(dataDir);
    await registry.get(vmId);
    await assertNotInMigration(dataDir, vmId);
    await registry.remove(vmId);
    output.emit({ event: 'removed', vmId }, () => `${vmId} is forgotten; its image files stay where they are`);
  });

  addGuestCommands(vm, place);

  const baseline = program.command('baseline').description('What this host holds of images from before');
  addOptions(baseline.command('list').description('List baselines, least recently used first'), PROCESS_OPTIONS, PLACE).action(async (flags: Flags, command: Command) => {
    const { dataDir, output } = place(flags, command);
    const rows = [['vm', 'image', 'generation', 'on disk', 'whole', 'last used']];
    for (const record of await new BaselineStore(dataDir, 0).list()) {
      if (output.json) output.emit({ event: 'baseline', ...record }, () => '');
      rows.push([record.vmId, record.imageId, String(record.generation), formatBytes(record.allocatedBytes), record.complete ? 'yes' : 'in part', new Date(record.lastUsedAtMs).toISOString()]);
    }
    if (!output.json) output.say(table(rows));
  });

  addOptions(baseline.command('prune').description('Remove the least recently used until the rest fits').requiredOption('--to <size>', 'what may remain, such as 100GiB; 0 removes all that may go'), PROCESS_OPTIONS, PLACE).action(async (flags: Flags, command: Command) => {
    const { dataDir, output } = place(flags, command);
    const limit = parseSizeBytes(String(flags.to));
    if (limit === undefined) throw new DwcpError('INVALID_INPUT', `A size is such as 100GiB, not "${String(flags.to)}"`);
    const removed = await new BaselineStore(dataDir, 0).prune(Math.max(1, limit));
    output.emit({ event: 'pruned', removed }, () => (removed.length === 0 ? 'nothing had to go' : removed.map((record) => `${record.vmId}/${record.imageId}  ${formatBytes(record.allocatedBytes)}`).join('\n')));
  });
}

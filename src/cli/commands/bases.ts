/** `dwcp base add | list | remove`: disks of this host that pages of VMs of the same tenant may refer to when they arrive. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { DwcpError } from '../../model/errors';
import { baseNameSchema, tenantSchema } from '../../model/ids';
import { PROCESS_OPTIONS } from '../../model/options';
import { formatBytes } from '../../model/units';
import { BaseStore } from '../../store/base-disks';
import { CodecPool } from '../../sync/codec/codec-pool';
import { registerBase } from '../../sync/upkeep/base-registration';
import type { Flags } from '../flags';
import { table } from '../output';
import { addOptions } from '../settings';
import { PLACE, placeOf } from './place';

export function addBaseCommands(program: Command): void {
  const base = program
    .command('base')
    .description(
      'Disks of this host that arriving VMs may refer to: images that do not change, public within a tenant',
    );

  addOptions(
    base
      .command('add')
      .description('Make an image file known as a base; reads all of it')
      .argument('<name>', 'its name')
      .requiredOption('--path <file>', 'the image file, which is not written any more')
      .requiredOption('--tenant <tenant>', 'whose VMs may refer to it'),
    PROCESS_OPTIONS,
    PLACE,
  ).action(async (text: string, flags: Flags, command: Command) => {
    const { dataDir, output } = placeOf(flags, command);
    const name = baseNameSchema.safeParse(text);
    const tenant = tenantSchema.safeParse(flags.tenant);
    if (!name.success || !tenant.success || tenant.data === '')
      throw new DwcpError(
        'INVALID_INPUT',
        `Base ${text}: ${(name.error ?? tenant.error)?.issues[0]?.message ?? 'a tenant has a name'}`,
      );
    const pool = new CodecPool(0);
    try {
      const added = await registerBase(
        { name: name.data, tenant: tenant.data, path: resolve(String(flags.path)) },
        new BaseStore(dataDir),
        pool,
      );
      output.emit(
        { event: 'base', ...added },
        () =>
          `${added.name}: ${formatBytes(added.sizeBytes)}, root ${added.root.slice(0, 16)}; ` +
          `VMs of ${added.tenant} may refer to it`,
      );
    } finally {
      await pool.close();
    }
  });

  addOptions(base.command('list').description('List the bases of this host'), PROCESS_OPTIONS, PLACE).action(
    async (flags: Flags, command: Command) => {
      const { dataDir, output } = placeOf(flags, command);
      const store = new BaseStore(dataDir);
      const rows = [['base', 'tenant', 'size', 'root', 'file', 'usable']];
      for (const each of await store.list()) {
        const whole = await store.isWhole(each);
        if (output.json) output.emit({ event: 'base', ...each, usable: whole }, () => '');
        rows.push([
          each.name,
          each.tenant || '-',
          formatBytes(each.sizeBytes),
          each.root.slice(0, 16),
          each.path,
          whole ? 'yes' : 'no: the file has changed or is gone; add it again',
        ]);
      }
      if (!output.json) output.say(rows.length === 1 ? `no bases under ${dataDir}` : table(rows));
    },
  );

  addOptions(
    base.command('remove').description('Forget a base; its file stays').argument('<name>', 'its name'),
    PROCESS_OPTIONS,
    PLACE,
  ).action(async (text: string, flags: Flags, command: Command) => {
    const { dataDir, output } = placeOf(flags, command);
    const store = new BaseStore(dataDir);
    if (!(await store.list()).some(({ name }) => name === text))
      throw new DwcpError('INVALID_INPUT', `This host knows no base ${text}; \`dwcp base list\` names those it does`);
    await store.forget(text);
    output.emit({ event: 'removed', base: text }, () => `${text} is no base any more; its file stays where it is`);
  });
}

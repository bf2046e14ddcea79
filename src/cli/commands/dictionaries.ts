/** `dwcp dictionary train | schedule | unschedule | list | remove`: dictionaries by VM type. */
import type { Command } from 'commander';
import { dictionarySchedule, dictionaryScheduleId, ensureSchedules, removeSchedule } from '../../control/schedules';
import type { TrainResult } from '../../model/dictionary-training';
import { DwcpError } from '../../model/errors';
import { hostIdSchema } from '../../model/ids';
import { trainWorkflowId, WORKFLOWS } from '../../model/names';
import { PROCESS_OPTIONS } from '../../model/options';
import { formatBytes, formatDuration } from '../../model/units';
import { DictionaryStore, vmTypeOf } from '../../store/dictionaries';
import { executeWorkflow, withClient } from '../execute-workflow';
import { type Flags, outputOf } from '../flags';
import { table } from '../output';
import { addOptions, scheduledEveryMs } from '../settings';
import { PLACE, placeOf } from './place';

export function addDictionaryCommands(program: Command): void {
  const dictionary = program
    .command('dictionary')
    .description('Dictionaries for VMs of one type, trained on the hosts that have them');
  const ofHosts = (name: string, description: string): Command =>
    dictionary
      .command(name)
      .description(description)
      .argument('<type>', 'VM type, as given to `dwcp vm define --type`')
      .option('--hosts <names>', 'hosts, separated by commas; else all that migrations have named');

  ofHosts('train', 'Take new samples and train now').action(async (type: string, flags: Flags, command: Command) => {
    const vmType = vmTypeOf(type);
    const result = await executeWorkflow<TrainResult>(command, WORKFLOWS.trainDictionary, trainWorkflowId(vmType), {
      vmType,
      hosts: hostsOf(flags),
    });
    outputOf(command).emit({ event: 'trained', vmType, ...result }, () =>
      [
        ...result.trained.map(
          ({ hostId, of, kept, reason, version, samples }) =>
            `${hostId}: ${of === undefined ? '' : `${of}: `}` +
            `${kept ? `version ${version ?? 0}` : 'not kept'}: ${reason}; ${samples} samples`,
        ),
        ...result.away.map((line) => `left out: ${line}`),
        ...(result.trained.length + result.away.length === 0 ? ['no host is known yet; name them with --hosts'] : []),
      ].join('\n'),
    );
  });

  ofHosts('schedule', 'Train again and again; the same again changes the schedule, which the Temporal UI shows')
    .requiredOption('--every <duration>', 'such as 24h')
    .action(async (type: string, flags: Flags, command: Command) => {
      const vmType = vmTypeOf(type);
      const everyMs = scheduledEveryMs('--every', flags.every);
      await withClient(command, async (client) => {
        const done = await ensureSchedules(client, [dictionarySchedule(vmType, hostsOf(flags), everyMs)]);
        outputOf(command).emit(
          { event: 'schedule', ...done },
          () =>
            `${dictionaryScheduleId(vmType)}: ${done[dictionaryScheduleId(vmType)] ?? ''}, every ${formatDuration(everyMs)}`,
        );
      });
    });

  dictionary
    .command('unschedule')
    .description('Take the schedule of a type away')
    .argument('<type>', 'VM type')
    .action(async (type: string, _flags: Flags, command: Command) => {
      const id = dictionaryScheduleId(vmTypeOf(type));
      await withClient(command, (client) => removeSchedule(client, id));
      outputOf(command).emit({ event: 'unscheduled', schedule: id }, () => `${id} is gone`);
    });

  addOptions(dictionary.command('list').description('List what this host has trained'), PROCESS_OPTIONS, PLACE).action(
    async (flags: Flags, command: Command) => {
      const { dataDir, output } = placeOf(flags, command);
      const versions = await new DictionaryStore(dataDir).list();
      if (output.json) for (const version of versions) output.emit({ event: 'dictionary', ...version }, () => '');
      else if (versions.length === 0)
        output.say(`no dictionaries under ${dataDir}; \`dwcp dictionary train TYPE\` makes one`);
      else
        output.say(
          table([
            ['type', 'of', 'version', 'size', 'gain', 'samples', 'trained', 'hash'],
            ...versions.map((each) => [
              each.vmType,
              each.of === 'tenants' ? each.name : `VM ${each.name}`,
              String(each.version),
              formatBytes(each.sizeBytes),
              `${(100 * each.gain).toFixed(1)} %`,
              String(each.samples),
              new Date(each.trainedAtMs).toISOString(),
              each.hash,
            ]),
          ]),
        );
    },
  );

  addOptions(
    dictionary
      .command('remove')
      .description('Forget dictionary and samples of a type on this host')
      .argument('<type>', 'VM type'),
    PROCESS_OPTIONS,
    PLACE,
  ).action(async (type: string, flags: Flags, command: Command) => {
    const { dataDir, output } = placeOf(flags, command);
    await new DictionaryStore(dataDir).forget(vmTypeOf(type));
    output.emit({ event: 'removed', vmType: type }, () => `${type}: dictionary and samples are removed from this host`);
  });
}

function hostsOf(flags: Flags): string[] {
  const names = typeof flags.hosts === 'string' ? flags.hosts.split(',').map((name) => name.trim()) : [];
  for (const name of names)
    if (!hostIdSchema.safeParse(name).success)
      throw new DwcpError('INVALID_INPUT', `--hosts takes names of hosts, not "${name}"`);
  return names;
}

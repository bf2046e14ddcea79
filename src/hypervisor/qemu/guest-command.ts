/**
 * A QEMU command line as data: what of it is the guest's own, what DWCP adds to run it, its machine by version. What of it may
 * run is allowed-options.ts's, making it another host's relocate.ts's, starting anything guest-process.ts's. Pure.
 */
import { sayReadOnly } from './guest-disks';
import { type OptionWord, optionWords, printWords } from './option-words';
import type { RunPlaces } from './run-places';

const DROPPED = new Set(
  '-incoming -pidfile -qmp -qmp-pretty -monitor -mon -sandbox -S -daemonize --daemonize'.split(' '),
);

/** What of a command is the guest's own: without monitors, and without what only starting it needed. */
export function guestOwn(command: readonly string[]): string[] {
  const [program = '', ...args] = command;
  const options = optionWords(args);
  const monitors = new Set(
    options.flatMap(({ flag, value = '' }) => (flag === '-mon' ? (/chardev=([^,]+)/.exec(value)?.[1] ?? []) : [])),
  );
  const isMonitor = ({ flag, value = '' }: OptionWord): boolean =>
    flag === '-chardev' && monitors.has(/(?:^|,)id=([^,]+)/.exec(value)?.[1] ?? '');
  const own = options.filter((option) => !DROPPED.has(option.flag) && !isMonitor(option));
  return [
    program,
    ...printWords(
      sayReadOnly(own.flatMap((option) => (option.flag === '-nographic' ? withoutGraphics(own) : [option]))),
    ),
  ];
}

/** What `-nographic` means: its first serial line, where none is named, is where its QEMU prints. */
function withoutGraphics(own: readonly OptionWord[]): OptionWord[] {
  const hasSerial = own.some(({ flag }) => flag === '-serial');
  return [{ flag: '-display', value: 'none' }, ...(hasSerial ? [] : [{ flag: '-serial', value: 'stdio' }])];
}

/** What a QEMU is started for: to run its guest, to wait for one that a migration brings, or to see whether it starts. */
export type GuestPurpose = 'run' | 'incoming' | 'try';

/**
 * What QEMU would show in a window where a command says of no screen, and here is none: the first serial line is written down, where the
 * machine has one that nobody has named.
 */
export function unsaidConsoles(command: readonly string[], { folder }: Pick<RunPlaces, 'folder'>): string[] {
  const options = optionWords(command.slice(1));
  if (options.some(({ flag }) => ['-display', '-vnc', '-spice', '-nographic'].includes(flag))) return [];
  const says = options.some(
    ({ flag, value = '' }) =>
      flag === '-serial' || flag === '-nodefaults' || (flag === '-device' && /serial|console/.test(value)),
  );
  return ['-display', 'none', ...(says ? [] : ['-serial', `file:${folder}/first-serial.log`])];
}

/** The arguments that DWCP adds to run a guest on this host. */
export function ownArguments(places: RunPlaces, purpose: GuestPurpose): string[] {
  const monitors = [
    '-monitor',
    'none',
    '-qmp',
    `unix:${places.qmpPath},server=on,wait=off`,
    '-qmp',
    `unix:${places.monitorPath},server=on,wait=off`,
  ];
  if (purpose === 'run') return monitors;
  return [...monitors, '-S', ...(purpose === 'incoming' ? ['-incoming', `unix:${places.incomingPath}`] : [])];
}

/** The command with its machine named by version: an alias means another machine to another QEMU. QEMU takes the last that is said. */
export function pinMachine(command: readonly string[], machine: string): string[] {
  const [program = '', ...args] = command;
  const options = optionWords(args);
  const [first] = options.filter(isMachine);
  if (!first) return [...command, '-machine', machine];
  return [
    program,
    ...printWords(
      options.flatMap((option) => {
        if (!isMachine(option)) return [option];
        const others = (option.value ?? '').split(',').filter((part, at) => !namesMachine(part, at));
        const parts = option === first ? [machine, ...others] : others;
        return parts.length === 0 ? [] : [{ flag: option.flag, value: parts.join(',') }];
      }),
    ),
  ];
}

/** As a command names it: a version, or an alias; undefined where its QEMU's own default runs. */
export function machineOf(command: readonly string[]): string | undefined {
  const parts = optionWords(command.slice(1))
    .filter(isMachine)
    .map(({ value = '' }) => value.split(','));
  const named = parts.flatMap((option) => option.filter(namesMachine));
  return named.at(-1)?.replace(/^type=/, '');
}

function isMachine({ flag }: OptionWord): boolean {
  return flag === '-M' || flag === '-machine';
}

function namesMachine(part: string, at: number): boolean {
  return part.startsWith('type=') || (at === 0 && !part.includes('='));
}

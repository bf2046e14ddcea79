/**
 * The table of what a guest's QEMU command may hold. A command comes from another host, or from its operator; whoever has written
 * it, QEMU opens what it names, so nothing in it may name a program, file, socket or network but the guest's own and
 * what this host makes for it. What is not in the table is refused, each with one line that says what to write instead.
 */

import { DwcpError, type DwcpErrorFields } from '../../model/errors';
import { ownValue } from '../../model/own-value';
import { type Allowance, type Objection, quoted } from './allowance';
import { chardev, display, spice, stream, tpmSocket, vnc } from './allowed-backends';
import { audiodev, device, global, object } from './allowed-devices';
import { blockdev, cdrom, drive, unnamed } from './allowed-disks';
import { all, keyed, oneOf, type Rule, refused, text, word } from './allowed-keys';
import { netdev, nic, oldNet } from './allowed-networks';
import { parseOptionText, valueIn } from './option-text';
import { optionWords, standsAlone } from './option-words';

const PROGRAM = /^(qemu-system-[a-z0-9_]+|qemu-kvm|kvm)$/;

const MACHINE = all(
  word,
  `type accel usb vmport smm hpet acpi dump-guest-core mem-merge nvdimm hmat kernel-irqchip kernel_irqchip kvm-shadow-mem graphics
   memory-backend pflash0 pflash1 i8042 pit sata smbus pic max-ram-below-4g default-bus-bypass-iommu default_bus_bypass_iommu aux-ram-share
   gic-version its iommu virtualization highmem secure ras mte suppress-vmdesc enforce-config-section x-oem-id x-oem-table-id fd-bootchk
   confidential-guest-support page-sampling pcie bios-table-tests`,
);
const FIRMWARE_TABLE = `type vendor version date release uefi manufacturer product serial uuid sku family asset location loc_pfx bank part
  speed sock_pfx max-speed current-speed processor-id processor-family value`;
const file: Rule = (path, allowance) => allowance.file(path);
/** No pattern is made of it, and none could be. */
const processor: Rule = (value) =>
  /^[\w.-]+(,[+-]?[\w.-]+(=[\w.+ -]*)?)*$/.test(value)
    ? undefined
    : `${quoted(value)} is no processor model with its features`;

const RULES: Readonly<Record<string, Rule>> = {
  '-M': keyed(MACHINE, 'type'),
  '-machine': keyed(MACHINE, 'type'),
  '-cpu': processor,
  '-accel': keyed(
    {
      accel: oneOf('kvm', 'tcg'),
      ...all(
        word,
        `thread tb-size one-insn-per-tb split-wx kernel-irqchip kvm-shadow-mem dirty-ring-size eager-split-size
         notify-vmexit notify-window honor-guest-pat`,
      ),
    },
    'accel',
  ),
  '-m': keyed(all(word, 'size slots maxmem'), 'size'),
  '-smp': keyed(all(word, 'cpus maxcpus sockets dies clusters modules cores threads drawers books'), 'cpus'),
  '-numa': keyed(
    all(word, 'type nodeid cpus mem memdev initiator src dst val socket-id core-id thread-id die-id node-id'),
    'type',
  ),
  '-name': keyed({ guest: text, 'debug-threads': word }, 'guest'),
  '-uuid': word,
  '-rtc': keyed(all(word, 'base clock driftfix')),
  '-boot': keyed(all(word, 'order once menu strict reboot-timeout splash-time'), 'order'),
  '-global': global,
  '-overcommit': keyed(all(word, 'mem-lock cpu-pm')),
  '-msg': keyed(all(word, 'timestamp guest-name')),
  '-action': keyed(all(word, 'reboot shutdown panic watchdog')),
  '-watchdog-action': word,
  '-icount': keyed(all(word, 'shift align sleep'), 'shift'),
  '-smbios': keyed(all(text, FIRMWARE_TABLE)),
  '-fw_cfg': keyed({ name: text, string: text }, 'name'),
  '-k': oneOf(
    ...'ar bepo cz da de de-ch en-gb en-us es et fi fo fr fr-be fr-ca fr-ch hr hu is it ja lt lv mk nl no pl pt pt-br ru sl sv th tr'.split(
      ' ',
    ),
  ),
  '-vga': word,
  '-usbdevice': oneOf('tablet', 'mouse', 'keyboard'),
  '-display': display,
  '-vnc': vnc,
  '-spice': spice,
  '-netdev': netdev,
  '-nic': nic,
  '-net': oldNet,
  '-device': device,
  '-object': object,
  '-audiodev': audiodev,
  '-drive': drive,
  '-blockdev': blockdev,
  ...all(unnamed, '-hda -hdb -hdc -hdd'),
  '-cdrom': cdrom,
  ...all(stream, '-serial -parallel -debugcon'),
  '-chardev': chardev,
  ...all(file, '-kernel -dtb -bios'),
  // Behind a space stand arguments for what is loaded.
  '-initrd': (path, allowance) =>
    path.includes(' ') ? 'has a space in its path; give the file another name' : file(path, allowance),
  '-append': text,
  '-pflash': refused('names firmware without its format; use -drive if=pflash,format=raw,readonly=on,file=PATH'),
  '-sandbox': refused('is DWCP’s to set; leave it out'),
  '-mem-path': refused('is a file of its host; use -object memory-backend-memfd'),
  '-tpmdev': keyed({ type: oneOf('emulator'), ...all(word, 'id chardev') }, 'type'),
  ...all(refused('takes words from a file of its host; write them into the command'), '-readconfig -writeconfig -set'),
  ...all(refused('writes a log on its host; leave it out'), '-D -d -dfilter -trace -perfmap'),
  ...all(refused('runs a program of its host; leave it out'), '-plugin'),
  ...all(refused('says as whom QEMU runs, which is its host’s to say; leave it out'), '-run-with -chroot -runas -user'),
  ...all(refused('hands a folder of its host to the guest; leave it out'), '-virtfs -fsdev'),
  ...all(refused('is DWCP’s own; leave it out'), '-incoming -loadvm -qmp -qmp-pretty -monitor -mon -pidfile -add-fd'),
  ...all((at) => `${quoted(at)} opens QEMU to a debugger; leave it out`, '-gdb -qtest -qtest-log'),
  ...all(
    refused('names a disk without its format; use -drive if=floppy,format=raw,file=PATH'),
    '-fda -fdb -sd -mtdblock',
  ),
};
const ALONE_ALLOWED = new Set(
  '-nodefaults -no-user-config -no-reboot -no-shutdown -no-fd-bootchk -no-acpi -no-hpet -enable-kvm -usb -only-migratable -mem-prealloc'.split(
    ' ',
  ),
);

/** The base name of the program that a command starts; where that lies is each host's own. @throws GUEST_REFUSED */
export function programOf(command: readonly string[], details: DwcpErrorFields = {}): string {
  const [program = ''] = command;
  const name = program.slice(program.lastIndexOf('/') + 1);
  if (!PROGRAM.test(name))
    throw new DwcpError(
      'GUEST_REFUSED',
      `The guest’s command starts ${quoted(program)}, which is no QEMU; it has to be qemu-system-ARCH`,
      details,
    );
  return name;
}

function idIn(value: string | undefined, unsaid: string, key = 'id'): string | undefined {
  const parsed = value === undefined ? undefined : parseOptionText(value, unsaid);
  return parsed && valueIn(parsed, key);
}

/** What speaks against one option, with its name and what to write instead. */
function objectionTo(
  flag: string,
  value: string | undefined,
  allowance: Allowance,
  tpms: readonly string[] = [],
): Objection {
  if (!flag.startsWith('-')) return `${quoted(flag)} is no option; name a disk with -drive file=…,format=…`;
  if (flag.startsWith('--')) return `${quoted(flag)} has two dashes; write it with one`;
  if (ALONE_ALLOWED.has(flag)) return undefined;
  if (standsAlone(flag)) return `${flag} is not among the options that a guest may have; leave it out`;
  const rule = ownValue(RULES, flag);
  if (!rule) return `${quoted(flag)} is not among the options that a guest may have; leave it out`;
  if (value === undefined) return `${flag} has no value; give it one`;
  if (value.startsWith('-')) return `${flag} has the value ${quoted(value)}, which looks like an option; leave it out`;
  const mayCall = flag === '-chardev' && tpms.includes(idIn(value, 'backend') ?? '');
  const objection = text(value, allowance) ?? (mayCall ? tpmSocket : rule)(value, allowance);
  return objection === undefined ? undefined : `${flag} ${objection}`;
}

/** @returns the first thing in a command that may not be there */
export function objectionToCommand(command: readonly string[], allowance: Allowance): Objection {
  const options = optionWords(command.slice(1));
  const tpms = options.flatMap(({ flag, value }) => (flag === '-tpmdev' ? (idIn(value, 'type', 'chardev') ?? []) : []));
  // What another program has to answer is named before the socket that leads to it.
  const [ends, others] = [true, false].map((isEnd) => options.filter(({ flag }) => (flag === '-chardev') === isEnd));
  for (const { flag, value } of [...(others ?? []), ...(ends ?? [])]) {
    const objection = objectionTo(flag, value, allowance, tpms);
    if (objection !== undefined) return objection;
  }
  return undefined;
}

/** @throws GUEST_REFUSED with one line: the option, why it may not be, what to write instead */
export function assertAllowed(command: readonly string[], allowance: Allowance, details: DwcpErrorFields = {}): void {
  programOf(command, details);
  const objection = objectionToCommand(command, allowance);
  if (objection !== undefined)
    throw new DwcpError('GUEST_REFUSED', `The guest’s command is refused: ${objection}`, details);
}

/** The files that a command names, by what is done with them; whether it may is not looked at. */
export function filesOf(command: readonly string[]): {
  readonly written: readonly string[];
  readonly read: readonly string[];
} {
  const [written, read] = [new Set<string>(), new Set<string>()];
  const collect =
    (into: Set<string>) =>
    (path: string): undefined =>
      void into.add(path);
  const allowance: Allowance = {
    disk: collect(written),
    file: collect(read),
    stream: () => undefined,
    network: () => undefined,
    program: () => undefined,
    console: () => undefined,
    forward: () => undefined,
    windows: true,
  };
  for (const { flag, value } of optionWords(command.slice(1))) objectionTo(flag, value, allowance);
  return { written: [...written], read: [...read] };
}

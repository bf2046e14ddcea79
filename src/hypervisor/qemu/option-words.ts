/**
 * A QEMU command cut into its options by how many words each takes, as QEMU itself cuts it: never by what stands before a word,
 * since a value may look like an option. Cutting loses nothing; what of it may run is allowed-options.ts's.
 */

export interface OptionWord {
  /** The option with its one dash; of a word that is none, which QEMU takes for a disk, -hda. */
  readonly flag: string;
  readonly value?: string;
}

const ALONE = words(`
  S daemonize nodefaults no-user-config no-reboot no-shutdown no-fd-bootchk no-acpi no-hpet nographic enable-kvm usb only-migratable
  mem-prealloc snapshot s preconfig full-screen win2k-hack portrait curses semihosting singlestep version help h
`);
const WITH_VALUE = words(`
  M machine cpu accel m smp numa name uuid rtc boot global display vnc vga nic net netdev device object drive blockdev
  hda hdb hdc hdd cdrom fda fdb sd mtdblock pflash serial parallel chardev debugcon kernel initrd append dtb bios smbios k
  watchdog watchdog-action action msg overcommit icount audiodev audio fw_cfg usbdevice mem-path acpitable option-rom
  incoming pidfile qmp qmp-pretty monitor mon sandbox virtfs fsdev tpmdev spice iscsi add-fd set compat L plugin trace D d dfilter
  gdb qtest qtest-log readconfig writeconfig loadvm run-with chroot runas user semihosting-config prom-env seed perfmap
  shim nvram g rotate echr icount bt tb-size
`);

function words(text: string): ReadonlySet<string> {
  return new Set(
    text
      .trim()
      .split(/\s+/)
      .map((word) => `-${word}`),
  );
}

/** QEMU takes two dashes for one, before any option that it has. */
function oneDash(word: string): string {
  const single = word.slice(1);
  return word.startsWith('--') && (WITH_VALUE.has(single) || ALONE.has(single)) ? single : word;
}

/** @param args a command without its program */
export function optionWords(args: readonly string[]): OptionWord[] {
  const found: OptionWord[] = [];
  for (let at = 0; at < args.length; at += 1) {
    const word = args[at] ?? '';
    if (!word.startsWith('-')) {
      // As QEMU takes it: the first disk.
      found.push({ flag: '-hda', value: word });
      continue;
    }
    const flag = oneDash(word);
    const value = args[at + 1];
    if (!WITH_VALUE.has(flag) || value === undefined) found.push({ flag });
    else {
      found.push({ flag, value });
      at += 1;
    }
  }
  return found;
}

export function printWords(options: readonly OptionWord[]): string[] {
  return options.flatMap(({ flag, value }) => (value === undefined ? [flag] : [flag, value]));
}

/** Whether QEMU has an option of that name that takes a value. */
export function takesValue(flag: string): boolean {
  return WITH_VALUE.has(flag);
}

export function standsAlone(flag: string): boolean {
  return ALONE.has(flag);
}

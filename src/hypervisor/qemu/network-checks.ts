/**
 * Whether what this host's configuration gives a guest for its networks is there, and leads somewhere: bridges and taps as the kernel
 * shows them, helpers and scripts as files. Asked before anything is sent; `--force` leaves it out.
 */
import { accessSync, constants, existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { cannotRunHere } from '../../model/guest-refusals';
import type { NetworkTarget } from './network-map';
import { parseOptionText, valueIn } from './option-text';
import type { OptionWord } from './option-words';
import { type MappedNetwork, mappedNetwork, type NetworkPlaces } from './relocate-networks';

const INTERFACES = '/sys/class/net';
const UP = 0x1;
const MULTI_QUEUE = 0x100;
/** Where distributions put it; QEMU was built with one of them. */
const HELPER_FOLDERS = ['/usr/lib/qemu', '/usr/libexec', '/usr/libexec/qemu', '/usr/local/libexec', '/usr/lib'];
const HELPER = 'qemu-bridge-helper';

/**
 * @param options of the guest's command, as it comes @param runs its card is in use, and cannot lose what it has been promised
 * @throws GUEST_REFUSED with the name and the mend
 */
export function assertNetworks(
  options: readonly OptionWord[],
  places: NetworkPlaces,
  { runs, qemuFolder }: { readonly runs: boolean; readonly qemuFolder: string },
): void {
  for (const option of options) {
    const network = mappedNetwork(option, places);
    if (!network?.target) continue;
    const objection =
      objectionTo(network.target, qemuFolder) ?? (runs ? objectionOfCard(network, network.target, options) : undefined);
    if (objection !== undefined) throw cannotRunHere(`its network ${named(network)} is ${objection}`);
  }
}

function named({ name, what }: MappedNetwork): string {
  return name === '' ? `(${what})` : `${name} (${what})`;
}

function objectionTo(target: NetworkTarget, qemuFolder: string): string | undefined {
  if (target.kind === 'bridge') return objectionToBridge(target.name) ?? missingHelper(qemuFolder);
  if (target.kind === 'tap') return objectionToTap(target.name, target.isolated);
  if (target.kind === 'script') return cannotBeRun(target.up) ?? cannotBeRun(target.down);
  if (target.kind === 'user') return undefined;
  return cannotBeRun(target.program) ?? (target.bridge === undefined ? undefined : objectionToBridge(target.bridge));
}

function objectionToBridge(name: string): string | undefined {
  if (!existsSync(join(INTERFACES, name)))
    return `bridge ${name} here, which there is not: make it (ip link add ${name} type bridge; ip link set ${name} up), or name another in guestNetworks`;
  if (!existsSync(join(INTERFACES, name, 'bridge')))
    return `${name} here, which is no bridge: name a bridge in guestNetworks, or say what it is (tap:${name})`;
  return isUp(name) ? undefined : `bridge ${name} here, which is down: ip link set ${name} up`;
}

function missingHelper(qemuFolder: string): string | undefined {
  const beside =
    qemuFolder === ''
      ? []
      : [qemuFolder, join(dirname(qemuFolder), 'libexec'), join(dirname(qemuFolder), 'lib', 'qemu')];
  return [...HELPER_FOLDERS, ...beside].some((folder) => existsSync(join(folder, HELPER)))
    ? undefined
    : `a bridge here, and QEMU’s ${HELPER} is missing: install it (Debian: qemu-system-common), or name a tap in guestNetworks`;
}

function objectionToTap(name: string, isolated: boolean): string | undefined {
  const folder = join(INTERFACES, name);
  if (!existsSync(folder))
    return (
      `tap ${name} here, which there is not: make it (ip tuntap add ${name} mode tap; ip link set ${name} master BRIDGE up), ` +
      'or name another in guestNetworks'
    );
  const flags = numberIn(join(folder, 'tun_flags'));
  if (flags === undefined)
    return `${name} here, which is no tap: name a tap in guestNetworks, or say what it is (bridge:${name})`;
  if (!isUp(name)) return `tap ${name} here, which is down: ip link set ${name} up`;
  if (!isolated && !existsSync(join(folder, 'master')))
    return (
      `tap ${name} here, which is in no bridge: ip link set ${name} master BRIDGE; or say that it is to be by itself ` +
      `(guestNetworks …=tap:${name}:isolated)`
    );
  const taken = (flags & MULTI_QUEUE) === 0 && numberIn(join(folder, 'carrier')) === 1;
  return taken
    ? `tap ${name} here, which is taken${holderOf(name)}: end that, or name another in guestNetworks`
    : undefined;
}

function cannotBeRun(program: string | undefined): string | undefined {
  if (program === undefined) return undefined;
  try {
    accessSync(program, constants.X_OK);
    return undefined;
  } catch {
    return `made by ${program} here, which is no program that may be run: make it executable, or name another in guestNetworks`;
  }
}

/** What a running guest's card has promised its driver: QEMU would say so when everything has been sent. */
function objectionOfCard(
  { id, queues, pairs }: MappedNetwork,
  { kind }: NetworkTarget,
  options: readonly OptionWord[],
): string | undefined {
  if (kind !== 'tap' && queues > 1)
    return `a ${kind} here, and has ${queues} queues, which only a tap has: name a tap of as many in guestNetworks`;
  const plain = valueIn({ pairs }, 'vnet_hdr') === 'off';
  const virtio = isVirtio(valueIn({ pairs }, 'model')) || hasVirtioCard(options, id);
  return kind === 'user' && !plain && virtio
    ? 'QEMU’s own here (user), which has none of the offloads that its virtio card uses: name a tap or a bridge in guestNetworks, or move it stopped'
    : undefined;
}

function hasVirtioCard(options: readonly OptionWord[], id: string | undefined): boolean {
  return options.some(({ flag, value = '' }) => {
    const parsed = flag === '-device' ? parseOptionText(value, 'driver') : undefined;
    return (
      parsed !== undefined &&
      id !== undefined &&
      valueIn(parsed, 'netdev') === id &&
      isVirtio(valueIn(parsed, 'driver'))
    );
  });
}

function isVirtio(model: string | undefined): boolean {
  return /^virtio(-net.*)?$/.test(model ?? '');
}

function isUp(name: string): boolean {
  return ((numberIn(join(INTERFACES, name, 'flags')) ?? 0) & UP) !== 0;
}

/** The kernel shows what a descriptor of /dev/net/tun is of. */
function holderOf(tap: string): string {
  const lineOf = new RegExp(`^iff:\\s*${tap.replace(/[.+]/g, '\\$&')}$`, 'm');
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name)))
    try {
      const folder = join('/proc', pid, 'fdinfo');
      if (readdirSync(folder).some((fd) => lineOf.test(readFileSync(join(folder, fd), 'utf8'))))
        return ` by process ${pid} (${readFileSync(join('/proc', pid, 'comm'), 'utf8').trim()})`;
    } catch {
      // It has ended meanwhile, or is another user's.
    }
  return '';
}

function numberIn(path: string): number | undefined {
  try {
    return Number(readFileSync(path, 'utf8').trim());
  } catch {
    return undefined;
  }
}

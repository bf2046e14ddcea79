/**
 * What of a host a guest's command may name, as questions that each answer with the reason against it: the guest's own disks, files
 * that it reads, places of its character streams, networks. Here for the host whose operator gave the command; for the one that
 * the guest comes to, arriving-allowance.ts.
 */
import { normalize } from 'node:path';
import { isBlockDevice, isDevicePath } from '../../system/block-device';
import type { HostPort } from './port-ranges';

/** What speaks against it, and the mend; undefined where it may be. */
export type Objection = string | undefined;

export interface Allowance {
  /** A file that the guest writes. */
  readonly disk: (path: string) => Objection;
  /** A file that the guest reads: a kernel, an ISO image, a base. */
  readonly file: (path: string) => Objection;
  /** A file or socket that QEMU makes. */
  readonly stream: (path: string) => Objection;
  /** A tap or bridge of the host. */
  readonly network: (name: string) => Objection;
  /** A program that QEMU starts for a network. */
  readonly program: (path: string) => Objection;
  /** A port on which somebody may look at the guest. */
  readonly console: (port: HostPort) => Objection;
  /** A port that is forwarded to the guest. */
  readonly forward: (port: HostPort) => Objection;
  /** Whether QEMU may open windows. */
  readonly windows: boolean;
}

const OF_THE_KERNEL = ['/dev/', '/proc/', '/sys/'];

/** A path that says itself where it leads. */
export function plainPath(path: string): Objection {
  if (!path.startsWith('/')) return `${quoted(path)} is no absolute path; name the file by its absolute path`;
  if (normalize(path) !== path || path.endsWith('/') || !isPrintable(path))
    return `${quoted(path)} is not written plainly; name the file without "..", "//" and control characters`;
  return undefined;
}

export function isPrintable(text: string): boolean {
  // oxlint-disable-next-line no-control-regex -- these are what is looked for
  return !/[\u0000-\u001f\u007f]/.test(text);
}

/** Text of a peer's in a line of ours. */
export function quoted(text: string): string {
  return JSON.stringify(text.length > 120 ? `${text.slice(0, 120)}…` : text);
}

export function readablePath(path: string): Objection {
  const device = OF_THE_KERNEL.find((folder) => path.startsWith(folder));
  // A comma stands between files where QEMU takes several (-initrd).
  if (path.includes(',')) return `${quoted(path)} has a comma in it; give the file another name`;
  return (
    plainPath(path) ??
    (device === undefined ? undefined : `${quoted(path)} is a device or the kernel’s; name an ordinary file`)
  );
}

/** A file, or a block device; nothing else of /dev has a content that could be measured. */
function diskFile(path: string): Objection {
  const plain = plainPath(path);
  if (plain !== undefined || !isDevicePath(path) || isBlockDevice(path)) return plain;
  return `${quoted(path)} is no block device of this host; name a disk that is there`;
}

/** For a command that this host's operator has given: anything here that can also be made at another host. */
export const OWN_HOST: Allowance = {
  disk: diskFile,
  file: readablePath,
  stream: (path) => (path.startsWith('/dev/') ? readablePath(path) : plainPath(path)),
  network: () => undefined,
  program: plainPath,
  console: () => undefined,
  forward: () => undefined,
  windows: true,
};

/**
 * What of this host belongs to a guest's QEMU that runs as a user of its own: the folder where it makes its sockets, the disks that
 * root has, a way to both. Everything else below the data folder stays closed to it. Other users' files and folders are never
 * touched: they are theirs to open.
 */
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  realpathSync,
  type Stats,
  statSync,
} from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { DwcpError } from '../../model/errors';
import { isBlockDevice } from '../../system/block-device';
import type { GuestIds, GuestUser } from './guest-user';
import type { RunPlaces } from './run-places';

const ROOT = 0;
const STICKY = 0o1000;
/** Of a folder that others may go through, and not look into. */
const WAY = 0o011;

/** The folders of a guest's sockets, the agent's and its QEMU's. @returns as whom that runs; undefined: as this process */
export function settleGuest(places: RunPlaces, user: GuestUser | undefined): GuestIds | undefined {
  makeFolders(places);
  if (!user) return undefined;
  const ids = { uid: idOf(places, user), gid: user.gid };
  openWay(user.dataDir, places.agentFolder);
  give(places.folder, ids);
  return ids;
}

/**
 * As settleGuest(), for a QEMU that runs already, whoever has started it: whom its monitor belongs to. What processes say of a socket
 * could be another's who calls his own so.
 * @returns whom the agent's sockets are for
 */
export function settleRunning(places: RunPlaces, qmpPath: string, user: GuestUser | undefined): GuestIds | undefined {
  makeFolders(places);
  if (process.getuid?.() !== ROOT) return undefined;
  const monitor = lstatSync(qmpPath, { throwIfNoEntry: false });
  if (!monitor?.isSocket() || monitor.uid === ROOT) return undefined;
  if (user) openWay(user.dataDir, places.agentFolder);
  if (statSync(places.folder).uid === ROOT) give(places.folder, monitor);
  return { uid: monitor.uid, gid: monitor.gid };
}

/** A socket of the agent's, for its QEMU to connect to. */
export function giveSocket(path: string, ids: GuestIds | undefined): void {
  if (ids) lchownSync(path, ids.uid, ids.gid);
}

/**
 * Lends a guest its disks: a file or device of root's, where only root can have put it, becomes the QEMU's; root reads and writes it as
 * before. Anybody else's is left as it is, and QEMU says what it may not open.
 */
export function lendDisks(paths: readonly string[], ids: GuestIds, user: GuestUser): void {
  const dataDir = realOf(user.dataDir) ?? user.dataDir;
  for (const path of paths) {
    const real = realOf(path);
    if (real === undefined) continue;
    openWay(dataDir, dirname(real));
    if (!isRootsAlone(dirname(resolve(path))) || !isRootsAlone(dirname(real))) continue;
    // In the data folder it is the agent's, also where it was another guests' user's before.
    lend(real, ids, (owner) => owner === ROOT || isGuests(owner, user) || isBelow(dataDir, real));
  }
}

/** The devices that a guest has left are root's again: the next guest may be given the same user. */
export function takeBackDevices(paths: readonly string[], user: GuestUser): void {
  for (const path of paths) {
    const real = realOf(path);
    if (real === undefined || !isBlockDevice(real)) continue;
    const { uid, gid } = statSync(real);
    if (isGuests(uid, user)) lchownSync(real, ROOT, gid);
  }
}

function lend(path: string, { uid }: GuestIds, mayBeLent: (owner: number) => boolean): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const file = fstatSync(fd);
    if (!(file.isFile() || file.isBlockDevice()) || file.uid === uid || !mayBeLent(file.uid)) return;
    fchownSync(fd, uid, file.gid);
    fchmodSync(fd, (file.mode & 0o777) | 0o600);
  } finally {
    closeSync(fd);
  }
}

function makeFolders({ folder, agentFolder }: RunPlaces): void {
  for (const path of [folder, agentFolder]) mkdirSync(path, { recursive: true, mode: 0o700 });
}

/**
 * Gives a folder of sockets away, with the streams that its owner has made in it. It lies in a folder of the agent's: nobody can put a
 * link in its place.
 */
function give(folder: string, { uid, gid }: GuestIds): void {
  const { uid: owner } = statSync(folder);
  if (owner === uid) return;
  for (const path of readdirSync(folder).map((name) => join(folder, name)))
    if (lstatSync(path).uid === owner) lchownSync(path, uid, gid);
  chownSync(folder, uid, gid);
}

function isGuests(id: number, { uid, perVm }: GuestUser): boolean {
  return id === uid || (perVm !== undefined && id >= perVm.first && id < perVm.first + perVm.count);
}

/** A VM keeps its id as long as its folder is there, whose owner says it. */
function idOf({ folder }: RunPlaces, user: GuestUser): number {
  if (!user.perVm) return user.uid;
  const { first, count } = user.perVm;
  const known = statSync(folder).uid;
  if (known >= first && known < first + count) return known;
  const around = dirname(folder);
  const taken = new Set(readdirSync(around).map((name) => lstatSync(join(around, name)).uid));
  for (let id = first; id < first + count; id += 1) if (!taken.has(id)) return id;
  throw new DwcpError('CONFIG_INVALID', `guestUser: /etc/subuid gives ${user.name} ${count} ids, and all are taken`);
}

/**
 * Lets others through from one folder to another below it, root's. What lies beside the way was behind a closed door: it is closed
 * itself first.
 */
function openWay(from: string, to: string): void {
  const target = resolve(to);
  if (!isBelow(from, target)) return;
  let at = from;
  openFolder(at);
  for (const name of relative(from, target)
    .split(sep)
    .filter((part) => part !== ''))
    openFolder((at = join(at, name)));
}

function isBelow(folder: string, path: string): boolean {
  return `${path}${sep}`.startsWith(`${folder}${sep}`);
}

function openFolder(folder: string): void {
  const { uid, mode } = statSync(folder);
  const opened = WAY & ~mode;
  if (uid !== ROOT || opened === 0) return;
  const closed = ((opened & 0o010) === 0 ? 0 : 0o070) | ((opened & 0o001) === 0 ? 0 : 0o007);
  for (const path of readdirSync(folder).map((name) => join(folder, name))) {
    const below = lstatSync(path);
    if (!below.isSymbolicLink() && below.uid === ROOT && (below.mode & closed) !== 0)
      chmodSync(path, below.mode & 0o7777 & ~closed);
  }
  chmodSync(folder, (mode & 0o7777) | WAY);
}

/** Whether nobody but root can change what a path leads through. */
function isRootsAlone(folder: string): boolean {
  for (let at = folder; ; at = dirname(at)) {
    if (!isRoots(statSync(at))) return false;
    if (at === dirname(at)) return true;
  }
}

function isRoots({ uid, gid, mode }: Stats): boolean {
  const othersWrite = (mode & 0o002) !== 0 || ((mode & 0o020) !== 0 && gid !== ROOT);
  return uid === ROOT && (!othersWrite || (mode & STICKY) !== 0);
}

function realOf(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

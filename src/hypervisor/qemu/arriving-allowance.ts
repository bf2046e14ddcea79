/**
 * What of this host a command may name that has come from another: the places that this host has given the VM's disks, streams in the
 * guest's run folder, and files and networks that this host's configuration names.
 */
import { basename, dirname, normalize } from 'node:path';
import { isWithin, liesBelow, realOf } from '../../system/open-beneath';
import { type Allowance, type Objection, plainPath, quoted, readablePath } from './allowance';
import type { GuestPolicy } from './guest-policy';
import { RESERVED_NAMES } from './run-places';

/** @param disks places of the VM's own images here */
export function arrivingAllowance(policy: GuestPolicy, disks: readonly string[], runFolder: string): Allowance {
  return {
    disk: (path) => (disks.includes(path) ? undefined : `${quoted(path)} is none of the VM’s own disks`),
    file: (path) => readablePath(path) ?? insideOf(path, policy),
    stream: (path) =>
      dirname(path) === normalize(runFolder) && !RESERVED_NAMES.test(basename(path))
        ? plainPath(path)
        : `${quoted(path)} is no place of a guest’s streams here`,
    network: (name) =>
      policy.networks.includes(name)
        ? undefined
        : `${quoted(name)} is none of the networks that guests may use here; name it in this host’s guestNetworks`,
    listens: false,
  };
}

/** Nothing is looked for outside of the folders: whether it is there is nobody's business. What is missing is said by who needs it. */
function insideOf(path: string, { folders, dataDir }: GuestPolicy): Objection {
  return liesBelow(path, folders) && (dataDir === undefined || !isWithin(realOf(path), realOf(dataDir)))
    ? undefined
    : `${quoted(path)} lies in none of this host’s guestFolders; put it there, or name its folder`;
}

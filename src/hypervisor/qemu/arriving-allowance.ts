/**
 * What of this host a command may name that has come from another: the places that this host has given the VM's disks, streams in the
 * guest's run folder, and files, networks and ports that this host's configuration names.
 */
import { basename, dirname, normalize } from 'node:path';
import { isWithin, liesBelow, realOf } from '../../system/open-beneath';
import { type Allowance, type Objection, plainPath, quoted, readablePath } from './allowance';
import type { GuestPolicy } from './guest-policy';
import { namesIn, noNetwork, parseNetworkMap, programsIn } from './network-map';
import { type HostPort, isIn, type PortRange, portText } from './port-ranges';
import { RESERVED_NAMES } from './run-places';

/** @param disks places of the VM's own images here */
export function arrivingAllowance(policy: GuestPolicy, disks: readonly string[], runFolder: string): Allowance {
  const map = parseNetworkMap(policy.networks);
  const [names, programs] = [namesIn(map), programsIn(map)];
  return {
    disk: (path) => (disks.includes(path) ? undefined : `${quoted(path)} is none of the VM’s own disks`),
    file: (path) => readablePath(path) ?? insideOf(path, policy),
    stream: (path) =>
      dirname(path) === normalize(runFolder) && !RESERVED_NAMES.test(basename(path))
        ? plainPath(path)
        : `${quoted(path)} is no place of a guest’s streams here`,
    network: (name) => (names.includes(name) ? undefined : noNetwork(name)),
    program: (path) =>
      programs.includes(path) ? undefined : `${quoted(path)} is none that this host’s guestNetworks names`,
    console: (port) => inside(port, 'consolePorts', policy.consolePorts),
    forward: (port) => inside(port, 'guestPorts', policy.guestPorts),
    windows: false,
  };
}

function inside(port: HostPort, option: string, ranges: readonly PortRange[] = []): Objection {
  return isIn(ranges, port)
    ? undefined
    : `port ${portText(port)} is none that guests may open here; name it in this host’s ${option}`;
}

/** Nothing is looked for outside of the folders: whether it is there is nobody's business. What is missing is said by who needs it. */
function insideOf(path: string, { folders, dataDir }: GuestPolicy): Objection {
  return liesBelow(path, folders) && (dataDir === undefined || !isWithin(realOf(path), realOf(dataDir)))
    ? undefined
    : `${quoted(path)} lies in none of this host’s guestFolders; put it there, or name its folder`;
}

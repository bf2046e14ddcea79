/** What may be left at neither host once a move has ended: files on their way, sockets that nobody needs, processes. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { StageHost } from '../../bench/stage';
import { runPlaces } from '../../src/hypervisor/qemu/run-places';
import { VmRegistry } from '../../src/store/vm-registry';
import { until } from '../../src/system/wait';
import type { TwoHosts } from './two-hosts';

const UNFINISHED = /\.dwcp-work$|\.part$|\.tmp$|\.files$|\/(incoming|outgoing|try)\/./;
const SETTLES_MS = 20_000;

/** @param owner where the VM is now; undefined: its guest runs nowhere @returns what is still there when all has had its time */
export async function leftovers(hosts: TwoHosts, vmId: string, owner: StageHost | undefined): Promise<string[]> {
  let left: string[] = [];
  const look = (): boolean => {
    left = leftNow(hosts, vmId, owner);
    return left.length === 0;
  };
  await until(look, { everyMs: 200, withinMs: SETTLES_MS });
  return left;
}

function leftNow(hosts: TwoHosts, vmId: string, owner: StageHost | undefined): string[] {
  const { a, b } = hosts.stage;
  return [a, b].flatMap((host) => {
    const { folder, qmpPath, monitorPath, incomingPath, outgoingPath, nbdPath, mirrorPath } = runPlaces(
      new VmRegistry(host.dataDir).runFolder(vmId),
    );
    const files = filesBelow(hosts.seen(host, host.dataDir)).filter((path) => UNFINISHED.test(path));
    const ours =
      host === owner ? [outgoingPath, nbdPath, mirrorPath, incomingPath] : [outgoingPath, nbdPath, mirrorPath];
    const sockets = ours.filter((path) => isListenedAt(hosts, host, path));
    const answers = host === owner ? [] : [qmpPath, monitorPath].filter((path) => isListenedAt(hosts, host, path));
    const programs = host === owner ? [] : processesNaming(`${folder}/`);
    return [...files, ...sockets, ...answers, ...programs];
  });
}

function isListenedAt(hosts: TwoHosts, host: StageHost, path: string): boolean {
  const { pid } = host === hosts.stage.a ? hosts.source : hosts.destination;
  return readFileSync(`/proc/${pid}/net/unix`, 'utf8')
    .split('\n')
    .some((line) => line.endsWith(` ${path}`) && line.includes(' 00010000 '));
}

function filesBelow(folder: string): string[] {
  try {
    return readdirSync(folder, { recursive: true, withFileTypes: true })
      .map((entry) => join(entry.parentPath, entry.name))
      .filter((path) => statSync(path, { throwIfNoEntry: false })?.isFile() ?? false);
  } catch {
    // Agents remove some of it meanwhile.
    return ['(what is there changes)'];
  }
}

/** QEMU's programs. */
export function processesNaming(text: string): string[] {
  return readdirSync('/proc').flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
      return /^\S*(qemu-|swtpm)/.test(command) && command.includes(text) ? [`process ${pid}: ${command}`] : [];
    } catch {
      return [];
    }
  });
}

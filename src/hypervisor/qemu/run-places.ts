/**
 * Where a guest's sockets and logs lie on a host: one of the monitors is the agent's, the other anybody's. A guest's own streams lie
 * beside them under other names: a serial line that spoke to a monitor would hand its host to the guest. What the agent makes lies in
 * a folder of its own: in QEMU's, QEMU could put anything in its place.
 */
import { basename, dirname, join } from 'node:path';

/** Linux, sockaddr_un. */
export const MAX_SOCKET_PATH_BYTES = 107;
/** Where not even that fits no guest runs: DWCP's own sockets have names as long. */
const SHORTEST_NAME = 13;

export interface RunPlaces {
  /** QEMU's, which makes its sockets and the guest's streams there. */
  readonly folder: string;
  /** The agent's: no VM has a name that begins with a dot. */
  readonly agentFolder: string;
  readonly qmpPath: string;
  readonly monitorPath: string;
  readonly incomingPath: string;
  readonly outgoingPath: string;
  readonly nbdPath: string;
  /** Where QEMU's own mirror of a disk goes, and is carried on from. */
  readonly mirrorPath: string;
  readonly logPath: string;
  /** Where QEMU writes what is looked at of its memory. */
  readonly lookPath: string;
}

/** Names in a run folder that are DWCP's own. */
export const RESERVED_NAMES =
  /^(qmp|monitor|incoming|outgoing|nbd|mirror|still-\d+)\.sock$|^(qemu|first-serial)\.log$|^\.*$/;

export function runPlaces(runFolder: string): RunPlaces {
  const agentFolder = join(dirname(runFolder), `.${basename(runFolder)}`);
  const at = (name: string): string => join(runFolder, name);
  const beside = (name: string): string => join(agentFolder, name);
  return {
    folder: runFolder,
    agentFolder,
    qmpPath: at('qmp.sock'),
    monitorPath: at('monitor.sock'),
    incomingPath: at('incoming.sock'),
    outgoingPath: beside('outgoing.sock'),
    nbdPath: at('nbd.sock'),
    mirrorPath: beside('mirror.sock'),
    logPath: beside('qemu.log'),
    lookPath: beside('look.bin'),
  };
}

/** Places of a guest's own streams, by what they were called elsewhere; none twice, none that is DWCP's. */
export class StreamPlaces {
  readonly #runFolder: string;
  readonly #taken = new Set<string>();

  constructor(runFolder: string) {
    this.#runFolder = runFolder;
  }

  place(path: string): string {
    const name = this.#fitting(RESERVED_NAMES.test(basename(path)) ? `guest-${basename(path)}` : basename(path));
    let free = name;
    for (let count = 2; this.#taken.has(free); count += 1) free = this.#fitting(`${count}-${name}`);
    this.#taken.add(free);
    return join(this.#runFolder, free);
  }

  /** A socket's path is short, and a name may be of any length. */
  #fitting(name: string): string {
    const room = Math.max(SHORTEST_NAME, MAX_SOCKET_PATH_BYTES - Buffer.byteLength(join(this.#runFolder, '/')));
    const letters = Array.from(name.slice(0, room));
    while (Buffer.byteLength(letters.join('')) > room) letters.pop();
    return letters.join('');
  }
}

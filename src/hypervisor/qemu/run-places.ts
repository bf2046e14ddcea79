/**
 * Where a guest's sockets and logs lie on a host: one of the monitors is the agent's, the other anybody's. A guest's own streams lie
 * beside them under other names: a serial line that spoke to a monitor would hand its host to the guest.
 */
import { basename, join } from 'node:path';

export interface RunPlaces {
  readonly qmpPath: string;
  readonly monitorPath: string;
  readonly incomingPath: string;
  readonly outgoingPath: string;
  readonly nbdPath: string;
  /** Where QEMU's own mirror of a disk goes, and is carried on from. */
  readonly mirrorPath: string;
  readonly logPath: string;
}

/** Names in a run folder that are DWCP's own. */
export const RESERVED_NAMES = /^(qmp|monitor|incoming|outgoing|nbd|mirror|still-\d+)\.sock$|^qemu\.log$|^\.*$/;

export function runPlaces(runFolder: string): RunPlaces {
  const at = (name: string): string => join(runFolder, name);
  return {
    qmpPath: at('qmp.sock'),
    monitorPath: at('monitor.sock'),
    incomingPath: at('incoming.sock'),
    outgoingPath: at('outgoing.sock'),
    nbdPath: at('nbd.sock'),
    mirrorPath: at('mirror.sock'),
    logPath: at('qemu.log'),
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
    const name = RESERVED_NAMES.test(basename(path)) ? `guest-${basename(path)}` : basename(path);
    let free = name;
    for (let count = 2; this.#taken.has(free); count += 1) free = `${count}-${name}`;
    this.#taken.add(free);
    return join(this.#runFolder, free);
  }
}

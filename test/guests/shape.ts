/**
 * What an entry of the table of guests says: how a guest is made and started at its source, what its destination lacks, what happens
 * meanwhile, and what has to come of its move. Who plays it is walk.ts; the entries are table.ts's.
 */
import type { MigrateOptions } from '../../src/control/orchestrator';
import type { ErrorCode } from '../../src/model/error-codes';
import type { VmRecord } from '../../src/store/vm-registry';
import type { HostBox } from './host-box';

export interface ShapePlaces {
  readonly vmId: string;
  /** Of its own, at the source: no other host sees it. */
  readonly folder: string;
  /** Of its own, and both hosts see it. */
  readonly common: string;
  /** Its disk, below `folder`; what boots from it is made before `make` is called. */
  readonly disk: string;
  /** Kernel and initrd of the small Linux, where the entry has that. */
  readonly linux: string;
}

/** Monitor commands that an operator gives, whatever QEMU has. */
export type Said = readonly (readonly [command: string, parameters?: Readonly<Record<string, unknown>>])[];

/** A guest on its way. */
export interface OnItsWay {
  readonly say: (command: string, parameters?: Readonly<Record<string, unknown>>) => Promise<unknown>;
  /** Until some of it has been sent. */
  readonly untilSent: () => Promise<void>;
  readonly source: HostBox;
  readonly destination: HostBox;
  /** Where its first disk lies at the destination. */
  readonly diskThere: string;
}

export interface Refusal {
  readonly codes: readonly ErrorCode[];
  /** The line has to name the thing. */
  readonly says: RegExp;
}

export interface Expected {
  /** It goes over, and comes back. */
  readonly moved?: true;
  /** It is refused before a byte has been sent, and never paused. */
  readonly refused?: Refusal;
  /** Its move ends, or waits for an operator, in the midst: of what has happened meanwhile. */
  readonly ends?: Refusal;
}

export interface GuestShape {
  readonly name: string;
  /** Its number among the field cases; 0: none, it is a control. */
  readonly field: number;
  /** Among the quickest dozen, which `npm test` walks. */
  readonly quick?: true;
  /** What runs in it: counts in its memory, does what key is pressed at it, a small Linux that checks its files. */
  readonly guest?: 'counting' | 'keys' | 'linux';
  /** What this machine has to have for it. */
  readonly needs?: string;
  readonly make?: (at: ShapePlaces, source: HostBox) => void;
  readonly command: (at: ShapePlaces) => readonly string[];
  /** Defined and started, started by hand and adopted, or defined and left stopped. */
  readonly begun?: 'started' | 'adopted' | 'stopped';
  /** Of one that is adopted: what its QEMU is started through, and its monitor where that is none of ours. */
  readonly through?: (at: ShapePlaces) => readonly string[];
  readonly monitor?: (at: ShapePlaces) => string;
  /** To the guest that runs, before its move. */
  readonly said?: (at: ShapePlaces) => Said;
  /** What its destination is like. */
  readonly there?: (destination: HostBox, at: ShapePlaces) => void | Promise<void>;
  /** What is done to its source right before its move; its end is at the end of the entry. */
  readonly here?: (source: HostBox, at: ShapePlaces) => void | Promise<void>;
  /** Its operator has stopped it. */
  readonly stopsFirst?: true;
  readonly options?: MigrateOptions;
  readonly meanwhile?: (guest: OnItsWay, at: ShapePlaces) => Promise<void>;
  readonly expected: Expected;
  /** What is wrong with it as it has arrived. */
  readonly arrived?: (record: VmRecord, at: ShapePlaces) => string | undefined;
  /** Whether it is left as it was where its move has ended; its disks alone count where it is not. */
  readonly left?: 'running' | 'not running';
}

export const moved: Expected = { moved: true };

export function refused(says: RegExp, ...codes: readonly ErrorCode[]): Expected {
  return { refused: { says, codes: codes.length > 0 ? codes : ['GUEST_REFUSED'] } };
}

/** Either is right. */
export function movedOrRefused(says: RegExp, ...codes: readonly ErrorCode[]): Expected {
  return { ...moved, ...refused(says, ...codes) };
}

export function ends(says: RegExp, ...codes: readonly ErrorCode[]): Expected {
  return { ends: { says, codes } };
}

/** A guest without anything that it does not need. */
export function machine(type: string, ...more: readonly string[]): string[] {
  const bare = ['-accel', 'tcg', '-M', type, '-m', '64', '-display', 'none', '-vga', 'none', '-nic', 'none'];
  return ['qemu-system-x86_64', ...bare, '-serial', 'null', ...more];
}

export function pc(...more: readonly string[]): string[] {
  return machine('pc', ...more);
}

export function q35(...more: readonly string[]): string[] {
  return machine('q35', ...more);
}

export function ide(path: string, more = ''): string[] {
  return ['-drive', `file=${path},format=raw,if=ide${more}`];
}

/**
 * QEMU's migration stream (plain, not multifd) as bytes. Big-endian; what of it is ours to understand:
 *
 *   "QEVM" 00000003                                     head
 *   07 u32 length, name, subsections                    configuration; its subsections end with the first section below
 *   01 u32 id  u8 n "ram"  u32 instance  u32 version=4  SECTION_START of RAM, then its set-up:
 *        u64 total | 0x04   per block: u8 n, id, u64 used length     until total is reached
 *        u64 0x10 (EOS)     7e u32 id                                footer
 *   02 u32 id   page records ... u64 0x10   7e u32 id   SECTION_PART, one per iteration
 *   03 u32 id   page records ... u64 0x10   7e u32 id   SECTION_END: the last pages, the guest is stopped
 *   08 u16 command u16 n data                           a command between sections (10.0: the switchover begins)
 *   04 ... 00 06 ...                                    device state, end of file, description: opaque, passed on
 *
 *   page record: u64 offset | flags   without CONTINUE: u8 n, block id   then ZERO: u8 fill   or PAGE: 4096 bytes
 *
 * CONTINUE means the block named last, also across sections. Source: QEMU migration/savevm.c and ram.c, 10.0.
 */
import { DwcpError } from '../../model/errors';

export const STREAM_MAGIC = 0x5145564d;
export const STREAM_VERSION = 3;
export const RAM_SECTION_VERSION = 4;
export const PAGE_BYTES = 4096;

export const SECTION = {
  endOfFile: 0x00,
  start: 0x01,
  part: 0x02,
  end: 0x03,
  full: 0x04,
  configuration: 0x07,
  command: 0x08,
  footer: 0x7e,
} as const;

export const PAGE_FLAG = { zero: 0x02, memSize: 0x04, page: 0x08, endOfSection: 0x10, continue: 0x20 } as const;
export const FLAG_MASK = PAGE_BYTES - 1;

/** Bounds on what a stream may claim, before memory is taken for it. */
export const STREAM_LIMITS = { prefixBytes: 1024 * 1024, blocks: 1024, ramBytes: 64 * 2 ** 40 } as const;

/** The stream is not one that this code understands: the standard transfer may still move the guest. */
export function notUnderstood(what: string): DwcpError {
  return new DwcpError('STREAM_NOT_UNDERSTOOD', `QEMU's migration stream holds ${what}`, { phase: 'transfer' });
}

/**
 * Disks of a host's own, for tests that fill one or crash the host on it. A crash disk is ext4 on a loop device with direct
 * I/O; a crash shuts the file system down as a power cut does (EXT4_IOC_SHUTDOWN without a flush of its log, what xfstests
 * use), so that all that was not synced is gone, then mounts it anew, which replays its journal. Each crash proves that.
 */
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { MIB } from '../../src/model/units';
import { temporaryFolder } from './data';

export interface HostDisk {
  readonly folder: string;
  remove(): Promise<void>;
}

const EXT4_IOC_SHUTDOWN = 0x8004587d;
const WITHOUT_FLUSHING_THE_LOG = 2;
/** Data and its metadata stay in memory until somebody syncs them, or for longer than any test; a rename syncs nothing by itself. */
const MOUNT_OPTIONS = 'commit=300,noauto_da_alloc';
const PROBE_BYTES = 100_000;
const BUSY_PATIENCE_MS = 10_000;

const mounted = new Set<string>();
const loops = new Set<string>();

export class SmallDisk implements HostDisk {
  readonly folder: string;

  /** A tmpfs. @param at where; else a place of its own */
  constructor(size: string, at = join(temporaryFolder(), 'd')) {
    mkdirSync(at, { recursive: true });
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', at]);
    mounted.add(at);
    this.folder = at;
  }

  /** @returns what makes room again */
  fill(): () => void {
    return fillDisk(this.folder);
  }

  remove(): Promise<void> {
    execFileSync('umount', ['-l', this.folder]);
    mounted.delete(this.folder);
    return Promise.resolve();
  }
}

/** Writes until nothing goes any more. @returns what makes room again */
export function fillDisk(folder: string): () => void {
  const path = join(folder, 'filler');
  const file = openSync(path, 'w');
  try {
    for (const size of [MIB, 4096]) {
      try {
        for (;;) writeSync(file, Buffer.alloc(size));
      } catch {
        continue; // Full: that is what was wanted.
      }
    }
  } finally {
    closeSync(file);
  }
  return () => rmSync(path, { force: true });
}

export class CrashDisk implements HostDisk {
  readonly folder = join(temporaryFolder(), 'd');
  readonly #backing = join(temporaryFolder(), 'disk');
  readonly #loop: string;

  constructor(sizeBytes = 768 * MIB) {
    const file = openSync(this.#backing, 'w');
    ftruncateSync(file, sizeBytes);
    closeSync(file);
    execFileSync('mkfs.ext4', ['-q', '-F', this.#backing]);
    this.#loop = execFileSync('losetup', ['--find', '--show', '--direct-io=on', this.#backing], {
      encoding: 'utf8',
    }).trim();
    loops.add(this.#loop);
    mkdirSync(this.folder);
    this.#mount();
  }

  /** @param kill ends every process of the host, at once */
  async crash(kill: () => void): Promise<void> {
    const [synced, lost] = [join(this.folder, 'probe-synced'), join(this.folder, 'probe-lost')];
    if (!existsSync(synced)) writeProbe(synced, true);
    writeProbe(lost, false);
    kill();
    shutDown(this.folder);
    await this.#unmount();
    this.#mount();
    expect(readFileSync(synced).length).toBe(PROBE_BYTES);
    expect(statSync(lost, { throwIfNoEntry: false })?.size ?? 0).toBe(0);
    rmSync(lost, { force: true });
  }

  async remove(): Promise<void> {
    await this.#unmount();
    execFileSync('losetup', ['--detach', this.#loop]);
    loops.delete(this.#loop);
    rmSync(this.#backing);
  }

  #mount(): void {
    execFileSync('mount', ['-t', 'ext4', '-o', MOUNT_OPTIONS, this.#loop, this.folder]);
    mounted.add(this.folder);
  }

  /** Never lazily: mounted again beside what is still open there, it would be the same file system as before. */
  async #unmount(): Promise<void> {
    for (
      const deadline = performance.now() + BUSY_PATIENCE_MS;
      ;
      await new Promise((resolve) => setTimeout(resolve, 10))
    ) {
      try {
        execFileSync('umount', [this.folder], { stdio: 'pipe' });
        mounted.delete(this.folder);
        return;
      } catch (error) {
        if (performance.now() > deadline) throw error;
      }
    }
  }
}

function writeProbe(path: string, sync: boolean): void {
  const file = openSync(path, 'w');
  writeFileSync(file, Buffer.alloc(PROBE_BYTES, 7));
  if (sync) fsyncSync(file);
  closeSync(file);
}

interface Koffi {
  load(library: string): { func(prototype: string): unknown };
}

function shutDown(folder: string): void {
  const koffi = createRequire(__filename)('koffi') as Koffi;
  const ioctl = koffi.load('libc.so.6').func('int ioctl(int fd, unsigned long request, void *flags)') as (
    fd: number,
    request: number,
    flags: Uint8Array,
  ) => number;
  const fd = openSync(folder, 'r');
  try {
    if (ioctl(fd, EXT4_IOC_SHUTDOWN, new Uint8Array(Uint32Array.of(WITHOUT_FLUSHING_THE_LOG).buffer)) !== 0)
      throw new Error(`${folder} cannot be shut down`);
  } finally {
    closeSync(fd);
  }
}

afterAll(() => {
  for (const folder of mounted) execFileSync('umount', ['-l', folder]);
  for (const loop of loops) execFileSync('losetup', ['--detach', loop]);
});

/** Block devices for tests: loop devices, which are gone behind the test. They stand for LVM volumes and zvols. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, ftruncateSync, openSync, readFileSync, readSync, rmSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { temporaryFolder } from './data';
import { needsProgram, needsRoot } from './needs';

const made = new Set<LoopDevice>();

export function needsLoopDevices(): string | undefined {
  return needsRoot() ?? needsProgram('losetup', 'mount', '/sbin', '/usr/sbin');
}

export class LoopDevice {
  readonly path: string;
  readonly backing: string;

  /** @param sizeBytes whole sectors */
  constructor(sizeBytes: number) {
    this.backing = join(temporaryFolder(), 'device');
    const file = openSync(this.backing, 'w');
    ftruncateSync(file, sizeBytes);
    closeSync(file);
    this.path = execFileSync('losetup', ['--find', '--show', this.backing], { encoding: 'utf8' }).trim();
    made.add(this);
  }

  /** Writes as somebody else would, and waits until it is there. */
  write(offset: number, bytes: Buffer): void {
    const fd = openSync(this.path, 'r+');
    writeSync(fd, bytes, 0, bytes.length, offset);
    closeSync(fd);
    execFileSync('sync', [this.path]);
  }

  /** The hash over its first bytes, as the next reader finds them. */
  sha256(sizeBytes: number): string {
    const fd = openSync(this.path, 'r');
    const bytes = Buffer.alloc(sizeBytes);
    readSync(fd, bytes, 0, sizeBytes, 0);
    closeSync(fd);
    return createHash('sha256').update(bytes).digest('hex');
  }

  fill(from: string): void {
    this.write(0, readFileSync(from));
  }

  /** It is what it was, under its name: nobody has put a file there, or taken it away. */
  expectThere(): void {
    expect(statSync(this.path).isBlockDevice()).toBe(true);
  }

  remove(): void {
    if (!made.delete(this)) return;
    execFileSync('losetup', ['--detach', this.path]);
    rmSync(this.backing, { force: true });
  }
}

afterAll(() => {
  for (const device of [...made]) device.remove();
});

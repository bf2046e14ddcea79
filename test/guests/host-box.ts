/**
 * A host in a mount and a network namespace of its own: what it sees of the files of this machine, which ports are taken there, what its
 * QEMU is like. What is done to it for one entry of the table is undone behind that.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { whichTool } from '../../src/cli/demo/tools';

const QEMU = 'qemu-system-x86_64';

export class HostBox {
  readonly pid: number;
  /** What is run through this is run there. */
  readonly prefix: readonly string[];
  readonly #holder: ChildProcess;
  #programs = '';
  #undo: (() => void)[] = [];

  /** Ends with this process, whatever ends that. */
  static async open(): Promise<HostBox> {
    const holder = spawn(
      'unshare',
      ['--mount', '--net', '--propagation', 'private', 'sh', '-c', 'ip link set lo up && echo ready && exec cat'],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
    await new Promise<void>((resolve, reject) => {
      holder.stdout.once('data', () => resolve());
      holder.once('close', () => reject(new Error('no namespaces can be had: root, unshare and ip are needed')));
    });
    return new HostBox(holder);
  }

  private constructor(holder: ChildProcess) {
    this.#holder = holder;
    this.pid = holder.pid ?? 0;
    this.prefix = ['nsenter', '-t', String(this.pid), '-m', '-n', '--'];
  }

  /** A path of this host's as this process sees it. */
  seen(path: string): string {
    return `/proc/${this.pid}/root${path}`;
  }

  run(...command: readonly string[]): string {
    const [program = '', ...args] = [...this.prefix, ...command];
    return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  }

  /** It is ended behind the entry. */
  spawn(...command: readonly string[]): ChildProcess {
    const [program = '', ...args] = [...this.prefix, ...command];
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    this.#undo.push(() => child.kill('SIGKILL'));
    return child;
  }

  /** A folder is empty there. @param kind of file system */
  hide(folder: string, kind = 'tmpfs'): void {
    this.run('mkdir', '-p', folder);
    this.run('mount', '-t', kind, kind, folder);
    this.#undo.push(() => this.run('umount', '-l', folder));
  }

  /** Another file or folder stands there. */
  bind(from: string, over: string): void {
    this.run('mount', '--bind', from, over);
    this.#undo.push(() => this.run('umount', '-l', over));
  }

  /** What is hidden there for good is seen, as on shared storage. */
  share(folder: string): void {
    this.run('umount', '-l', folder);
    this.#undo.push(() => this.run('mount', '-t', 'tmpfs', 'tmpfs', folder));
  }

  /** A network device that goes again. */
  link(name: string, ...kind: readonly string[]): void {
    this.run('ip', ...(kind[0] === 'tap' ? ['tuntap', 'add', name, 'mode', 'tap'] : ['link', 'add', name, ...kind]));
    this.run('ip', 'link', 'set', name, 'up');
    this.#undo.push(() => this.run('ip', 'link', 'del', name));
  }

  /** Somebody listens at a port there. */
  async take(port: number): Promise<void> {
    const text = `require('net').createServer().listen(${port}, '127.0.0.1', () => console.log('listening'))`;
    const child = this.spawn(process.execPath, '-e', text);
    await new Promise((resolve) => child.stdout?.once('data', resolve));
  }

  /** Where this host's QEMU programs are: real ones, behind a script. */
  programs(folder: string): string {
    const real = whichTool(QEMU) ?? QEMU;
    this.#programs = folder;
    mkdirSync(folder, { recursive: true });
    const before = join(folder, 'before');
    writeFileSync(join(folder, QEMU), `#!/bin/bash\n[ ! -e ${before} ] || . ${before}\nexec ${real} "$@"\n`);
    chmodSync(join(folder, QEMU), 0o755);
    return folder;
  }

  /** @param lines of a shell, before QEMU is run with "$@" */
  beforeQemu(lines: string): void {
    const before = join(this.#programs, 'before');
    writeFileSync(before, `${lines}\n`);
    this.#undo.push(() => rmSync(before, { force: true }));
  }

  /** Whatever else has to be undone behind the entry. */
  behind(undo: () => void): void {
    this.#undo.push(undo);
  }

  /** As it was before the entry. */
  restore(): void {
    for (const undo of this.#undo.splice(0).toReversed()) {
      try {
        undo();
      } catch {
        // It has gone by itself.
      }
    }
  }

  close(): void {
    this.restore();
    if (existsSync(`/proc/${this.pid}`)) this.#holder.kill('SIGKILL');
  }
}

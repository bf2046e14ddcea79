/**
 * A simulated host: its file system, its processes by number, what /proc says of them, and its crash. Which process runs what is
 * for whoever starts it: QEMUs here, agents in agent.ts.
 */
import { DiskModel } from './disk-model';
import type { Truth } from './guest';
import { Life } from './life';
import { SimQemu } from './qemu';
import type { SimScheduler } from './scheduler';
import { ProcessFiles, type Virtual } from './sim-fs';
import type { Network } from './sim-link';
import { ProcessSockets } from './sim-net';

interface Process {
  readonly life: Life;
  readonly command: readonly string[];
  readonly qemu: SimQemu | undefined;
}

export interface HostWatch {
  qemuChanged(qemu: SimQemu, how: string): void;
}

const CLOCK_TICKS = 100;

export class SimHost {
  readonly name: string;
  readonly dataDir: string;
  readonly disk: DiskModel;
  readonly scheduler: SimScheduler;
  readonly network: Network;
  /** What its clock shows beyond the true time. */
  clockOffsetMs = 0;
  readonly #processes = new Map<number, Process>();
  readonly #watch: HostWatch;
  readonly #truthOf: (command: readonly string[]) => Truth;
  #nextPid = 100;
  #boots = 1;

  constructor(
    name: string,
    scheduler: SimScheduler,
    network: Network,
    watch: HostWatch,
    truthOf: (command: readonly string[]) => Truth,
  ) {
    this.name = name;
    this.dataDir = `/var/${name}`;
    this.scheduler = scheduler;
    this.network = network;
    this.#watch = watch;
    this.#truthOf = truthOf;
    this.disk = new DiskModel(() => scheduler.nowMs);
  }

  get qemus(): SimQemu[] {
    return [...this.#processes.values()].flatMap(({ qemu, life }) => (qemu && life.alive ? [qemu] : []));
  }

  /** A process that is no QEMU. */
  start(what: string, command: readonly string[]): Life {
    return this.#process(what, command, undefined);
  }

  files(life: Life): ProcessFiles {
    return new ProcessFiles(this.disk, life, this.#virtual);
  }

  /** Starts a QEMU. @param say hears what it prints */
  startQemu(command: readonly string[], say: (line: string) => void): SimQemu {
    const life = new Life(`${this.name}'s QEMU`, this.#pid(), this.scheduler);
    const files = this.files(life);
    const qemu: SimQemu = new SimQemu({
      life,
      files,
      scheduler: this.scheduler,
      disk: this.disk,
      sockets: new ProcessSockets(life, files, this.scheduler),
      command,
      truth: this.#truthOf(command),
      hostName: this.name,
      clock: () => this.scheduler.nowMs + this.clockOffsetMs,
      say,
      changed: (changed, how) => this.#watch.qemuChanged(changed, how),
    });
    this.#add({ life, command, qemu });
    life.post('starts', () => qemu.start(), 20 * this.scheduler.random());
    return qemu;
  }

  /** @throws ESRCH */
  signal(pid: number, signal: string | number): void {
    const process = this.#processes.get(pid);
    if (!process) throw Object.assign(new Error('kill ESRCH'), { code: 'ESRCH', errno: -3, syscall: 'kill' });
    if (signal === 0) return;
    if (signal === 'SIGSTOP') process.life.suspend();
    else if (signal === 'SIGCONT') process.life.resume();
    else process.life.kill();
  }

  /** Everything that runs ends without a word; of what was not synced some is there. */
  crash(): void {
    for (const { life } of [...this.#processes.values()]) {
      this.network.silence(life);
      life.kill();
    }
    this.disk.crash(() => this.scheduler.random());
    this.#boots += 1;
  }

  #process(what: string, command: readonly string[], qemu: SimQemu | undefined): Life {
    const life = new Life(`${this.name}'s ${what}`, this.#pid(), this.scheduler);
    this.#add({ life, command, qemu });
    return life;
  }

  #add(process: Process): void {
    this.#processes.set(process.life.pid, process);
    process.life.onEnd(() => this.#processes.delete(process.life.pid));
  }

  /** Numbers come again: soon, so that it matters. */
  #pid(): number {
    do this.#nextPid = this.#nextPid >= 108 ? 100 : this.#nextPid + 1;
    while (this.#processes.has(this.#nextPid));
    return this.#nextPid;
  }

  readonly #virtual: Virtual = {
    read: (path) => {
      if (path === '/proc/net/unix') return this.#unixSockets();
      if (path === '/proc/locks') return '';
      if (path === '/proc/meminfo') return 'MemAvailable:   16000000 kB\n';
      if (path === '/proc/sys/kernel/random/boot_id')
        return `00000000-0000-4000-8000-${String(this.#boots).padStart(12, '0')}\n`;
      const [, pid, what] = /^\/proc\/(\d+)\/(\w+)$/.exec(path) ?? [];
      const process = this.#processes.get(Number(pid));
      if (!process) return undefined;
      switch (what) {
        case 'cmdline':
          return process.command.map((word) => `${word}\0`).join('');
        case 'exe':
          return '';
        case 'comm':
          return 'qemu-system-x86\n';
        case 'stat':
          return this.#statLine(process);
        case 'status':
          return `Name:\tqemu-system-x86\nState:\tS (sleeping)\nPid:\t${process.life.pid}\n`;
        default:
          return undefined;
      }
    },
    list: (path) => {
      if (path === '/proc') return [...[...this.#processes.keys()].map(String), 'net', 'self'];
      const process = this.#processes.get(Number(/^\/proc\/(\d+)\/fd$/.exec(path)?.[1]));
      return process && (process.qemu?.listens ?? []).map((_, index) => String(3 + index));
    },
    readLink: (path) => {
      const [, pid, fd] = /^\/proc\/(\d+)\/fd\/(\d+)$/.exec(path) ?? [];
      const place = this.#processes.get(Number(pid))?.qemu?.listens[Number(fd) - 3];
      if (place !== undefined) return `socket:[${this.#inodeOf(Number(pid), Number(fd))}]`;
      const exe = this.#processes.get(Number(/^\/proc\/(\d+)\/exe$/.exec(path)?.[1]));
      return exe && '/usr/bin/qemu-system-x86_64';
    },
  };

  #statLine({ life }: Process): string {
    const ticks = Math.round((life.startedAtMs * CLOCK_TICKS) / 1_000);
    return `${life.pid} (qemu-system-x86) S 1 ${Array.from({ length: 17 }, () => 0).join(' ')} ${ticks} 0 0\n`;
  }

  #inodeOf(pid: number, fd: number): number {
    return pid * 100 + fd;
  }

  #unixSockets(): string {
    const lines = [...this.#processes.values()].flatMap(({ life, qemu }) =>
      (qemu?.listens ?? []).map(
        (path, index) =>
          `0000000000000000: 00000002 00000000 00010000 0001 01 ${this.#inodeOf(life.pid, 3 + index)} ${path}`,
      ),
    );
    return `Num       RefCount Protocol Flags    Type St Inode Path\n${lines.join('\n')}\n`;
  }
}

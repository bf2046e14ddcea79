/**
 * A simulated QEMU: a process of a host with monitors, run states, disks with dirty bitmaps, and the counting guest. Its
 * migration is qemu-stream.ts's, its monitors' protocol qmp-server.ts's. What it announces to the checker is what truly runs.
 */
import type { DiskModel, Inode } from './disk-model';
import { diskOffset, Guest, type Truth } from './guest';
import type { Life } from './life';
import { IncomingStream, type MigratingQemu, OutgoingStream } from './qemu-stream';
import { QmpRefusal, QmpServer } from './qmp-server';
import type { SimScheduler } from './scheduler';
import type { ProcessFiles } from './sim-fs';
import type { ProcessSockets, SimSocket } from './sim-net';

const BLOCK_BYTES = 64 * 1024;
const RAM_BYTES = 2 * BLOCK_BYTES;

export type RunState = 'prelaunch' | 'ended' | 'inmigrate' | 'running' | 'paused' | 'finish-migrate' | 'postmigrate';

export interface QemuParts {
  readonly life: Life;
  readonly scheduler: SimScheduler;
  readonly disk: DiskModel;
  readonly files: ProcessFiles;
  readonly sockets: ProcessSockets;
  readonly command: readonly string[];
  readonly truth: Truth;
  readonly hostName: string;
  /** What the host's clock shows. */
  readonly clock: () => number;
  /** Hears of every change of its run state, before anything else happens. */
  readonly changed: (qemu: SimQemu, how: string) => void;
  /** What it says on its standard error, as it ends. */
  readonly say: (line: string) => void;
}

interface Bitmap {
  recording: boolean;
  readonly blocks: Set<number>;
}

export interface QemuDisk {
  readonly path: string;
  readonly node: Inode;
  readonly model: DiskModel;
  readonly sizeBytes: number;
  readonly blocks: number;
}

function valuesOf(command: readonly string[], flag: string): string[] {
  return command.flatMap((word, index) => (command[index - 1] === flag ? [word] : []));
}

export class SimQemu {
  readonly life: Life;
  readonly hostName: string;
  readonly guest: Guest;
  disk: QemuDisk | undefined;
  state: RunState = 'prelaunch';
  readonly command: readonly string[];
  readonly listens: string[] = [];
  /** Exports by their names. */
  readonly exports = new Map<string, { readonly bitmap: string | undefined }>();
  nbdPath: string | undefined;
  readonly #parts: QemuParts;
  readonly #monitors: QmpServer;
  readonly #bitmaps = new Map<string, Bitmap>();
  readonly #capabilities = new Map<string, boolean>(
    ['events', 'pause-before-switchover', 'auto-converge', 'return-path', 'switchover-ack', 'xbzrle'].map((name) => [
      name,
      false,
    ]),
  );
  #downtimeLimitMs = 300;
  #outgoing: OutgoingStream | undefined;
  #incomingStatus: string | undefined;
  /** Before its migration stopped it. */
  #stateBefore: RunState = 'running';
  #stopNbd: (() => void) | undefined;
  /** Told to go on before what comes in was whole. */
  #autostart: boolean;

  constructor(parts: QemuParts) {
    this.#parts = parts;
    this.life = parts.life;
    this.hostName = parts.hostName;
    this.command = parts.command;
    this.guest = new Guest(RAM_BYTES, parts.truth);
    this.#monitors = new QmpServer(parts.life, parts.clock);
    this.#autostart = !parts.command.includes('-S');
    parts.life.onEnd(() => this.#set('ended', 'its QEMU ends'));
  }

  get running(): boolean {
    return this.state === 'running' && this.life.alive;
  }

  get outgoingStatus(): string | undefined {
    return this.#outgoing?.status;
  }

  /** As its main() does it: disks, then monitors, then what comes in. */
  start(): void {
    const { command, files, sockets, say } = this.#parts;
    for (const drive of valuesOf(command, '-drive')) {
      const path = /(?:^|,)file=([^,]+)/.exec(drive)?.[1] ?? '';
      const node = files.find(path);
      if (!node) {
        say(`qemu-system-x86_64: -drive ${drive}: Could not open '${path}': No such file or directory`);
        this.life.kill();
        return;
      }
      this.disk = {
        path,
        node,
        model: this.#parts.disk,
        sizeBytes: node.now.size,
        blocks: Math.max(1, Math.floor(node.now.size / BLOCK_BYTES)),
      };
    }
    const incoming = valuesOf(command, '-incoming')[0];
    try {
      for (const place of valuesOf(command, '-qmp')) {
        const path = place.slice('unix:'.length).split(',')[0] ?? '';
        this.#monitors.listen(sockets, path, (name, parameters) => this.#execute(name, parameters));
        this.listens.push(path);
      }
      if (incoming !== undefined) {
        const path = incoming.slice('unix:'.length);
        this.#set('inmigrate', 'waits for a guest');
        sockets.listen(path, (accept) => this.#receive(accept()));
        this.listens.push(path);
        return;
      }
    } catch (error) {
      say(String(error));
      this.life.kill();
      return;
    }
    if (this.#autostart) this.#set('running', 'starts');
  }

  /** A while of the guest's own doing. */
  letGuestRun(): void {
    if (!this.running || this.life.suspended) return;
    for (let steps = Math.floor(this.#parts.scheduler.random() * 4); steps > 0; steps -= 1)
      this.guest.step(
        this.disk && { blocks: this.disk.blocks, write: (block, bytes) => this.#writeDisk(block, bytes) },
      );
  }

  /** The operator's monitor: as a command on the second socket would. */
  operator(command: 'stop' | 'cont'): void {
    this.life.post(`the operator says ${command}`, () => {
      try {
        this.#execute(command, {});
      } catch (error) {
        if (!(error instanceof QmpRefusal)) throw error;
      }
    });
  }

  /** Whether its guest is whole and of its last moment. */
  flaw(): string | undefined {
    return this.guest.flaw(this.disk);
  }

  readonly #migrating: MigratingQemu = ((qemu: SimQemu): MigratingQemu => ({
    get guest() {
      return qemu.guest;
    },
    post: (label, act, delayMs) => void qemu.life.post(label, act, delayMs),
    connect: (path) => qemu.#parts.sockets.connect(path),
    letGuestRun: () => qemu.letGuestRun(),
    stopForMigration: () => {
      const ran = qemu.state === 'running';
      qemu.#stateBefore = qemu.state;
      qemu.#set('finish-migrate', 'stands still for its migration');
      if (ran) qemu.#monitors.event('STOP');
    },
    resumeAfterMigration: () => {
      if (qemu.state !== 'finish-migrate') return;
      const before = qemu.#stateBefore;
      qemu.#set(before, 'is as it was before its migration, which has ended');
      if (before === 'running') qemu.#monitors.event('RESUME');
    },
    completed: () => qemu.#set('postmigrate', 'has sent all of its guest'),
    event: (name, data) => qemu.#monitors.event(name, data),
    random: () => qemu.#parts.scheduler.random(),
  }))(this);

  #set(state: RunState, how: string): void {
    if (this.state === state) return;
    this.state = state;
    this.#parts.changed(this, how);
  }

  #writeDisk(block: number, bytes: Buffer): void {
    if (!this.disk) return;
    this.disk.model.write(this.disk.node, bytes, diskOffset(block));
    for (const bitmap of this.#bitmaps.values()) if (bitmap.recording) bitmap.blocks.add(block);
  }

  #receive(socket: SimSocket): void {
    if (this.#incomingStatus !== undefined) {
      socket.destroy();
      return;
    }
    const stream = new IncomingStream(this.guest, (bytes) => void socket.write(bytes));
    const say = (status: string): void => {
      this.#incomingStatus = status;
      if (this.#capabilities.get('events')) this.#monitors.event('MIGRATION', { status });
    };
    const fail = (): void => {
      if (this.#incomingStatus !== 'active') return;
      say('failed');
      this.#parts.say('qemu-system-x86_64: load of migration failed: Input/output error');
      this.life.post('exits', () => this.life.kill());
    };
    say('active');
    socket.on('error', () => fail());
    socket.on('data', (chunk: Buffer) => {
      try {
        stream.feed(chunk);
      } catch {
        fail();
      }
    });
    socket.on('end', () => {
      const registers = stream.registers();
      if (!registers) {
        fail();
        return;
      }
      stream.ram.copy(this.guest.ram);
      stream.rom.copy(this.guest.rom);
      Object.assign(this.guest.registers, registers);
      say('completed');
      this.#set(this.#autostart ? 'running' : 'paused', 'has loaded its guest');
    });
    socket.on('close', () => fail());
  }

  #execute(command: string, parameters: Readonly<Record<string, unknown>>): unknown {
    this.letGuestRun();
    const act = this.#commands[command];
    if (!act) throw new QmpRefusal(`The command ${command} has not been found`);
    return act(parameters);
  }

  readonly #commands: Readonly<Record<string, (parameters: Readonly<Record<string, unknown>>) => unknown>> = {
    'query-version': () => ({ qemu: { major: 10, minor: 0, micro: 2 }, package: 'sim' }),
    'query-status': () => ({ status: this.state, running: this.running }),
    'query-migrate': () => this.#migrationInfo(),
    'query-migrate-capabilities': () => [...this.#capabilities].map(([capability, state]) => ({ capability, state })),
    'migrate-set-capabilities': ({ capabilities }) => {
      if (this.#outgoing && !this.#outgoing.isOver) throw new QmpRefusal('There’s a migration process in progress');
      for (const { capability, state } of capabilities as { capability: string; state: boolean }[])
        this.#capabilities.set(capability, state);
    },
    'migrate-set-parameters': (parameters) => {
      const limit = parameters['downtime-limit'];
      if (typeof limit !== 'number') return;
      this.#downtimeLimitMs = limit;
      if (this.#outgoing) this.#outgoing.settings.downtimeLimitMs = limit;
    },
    migrate: ({ uri }) => {
      if (this.#outgoing && !this.#outgoing.isOver) throw new QmpRefusal('There’s a migration process in progress');
      if (this.state === 'inmigrate') throw new QmpRefusal('Guest is waiting for an incoming migration');
      if (this.state === 'postmigrate')
        throw new QmpRefusal('Can’t migrate the vm that was paused due to previous migration');
      const has = (name: string): boolean => this.#capabilities.get(name) ?? false;
      this.#outgoing = new OutgoingStream(this.#migrating, String(uri).slice('unix:'.length), {
        events: has('events'),
        pauseBeforeSwitchover: has('pause-before-switchover'),
        waitsForAck: has('switchover-ack'),
        downtimeLimitMs: this.#downtimeLimitMs,
      });
    },
    'migrate-continue': () => {
      if (this.#outgoing?.status !== 'pre-switchover')
        throw new QmpRefusal(`Migration not in expected state: ${this.#outgoing?.status ?? 'none'}`);
      this.#outgoing.continue();
    },
    migrate_cancel: () => this.#outgoing?.cancel(),
    'query-block': () => (this.disk ? [this.#blockDevice(this.disk)] : []),
    'query-named-block-nodes': () => (this.disk ? [this.#blockDevice(this.disk).inserted] : []),
    'query-block-jobs': () => [],
    'query-jobs': () => [],
    'query-block-exports': () =>
      [...this.exports.keys()].map((id) => ({ id, type: 'nbd', 'node-name': 'disk0', 'shutting-down': false })),
    'qom-get': () => 'pc-q35-10.0-machine',
    'qom-list': () => [],
    'query-cpus-fast': () => [{ 'cpu-index': 0, 'qom-path': '/machine/unattached/device[0]' }],
    'query-kvm': () => ({ enabled: false, present: true }),
    'query-memory-devices': () => [],
    'human-monitor-command': () => '',
    'nbd-server-start': ({ addr }) => {
      if (this.#stopNbd) throw new QmpRefusal('NBD server already running');
      const { path } = (addr as { data: { path: string } }).data;
      this.nbdPath = path;
      this.#stopNbd = this.#parts.sockets.listen(path, (accept) => void accept().destroy());
      this.#nbdServers.set(path, this);
    },
    'nbd-server-stop': () => {
      if (!this.#stopNbd) throw new QmpRefusal('NBD server not running');
      this.#stopNbd();
      this.#stopNbd = undefined;
      if (this.nbdPath !== undefined) this.#nbdServers.delete(this.nbdPath);
      for (const name of this.exports.keys()) this.#monitors.event('BLOCK_EXPORT_DELETED', { id: name });
      this.exports.clear();
    },
    'block-export-add': ({ id, name, bitmaps }) => {
      if (!this.#stopNbd) throw new QmpRefusal('NBD server not running');
      if (this.exports.has(String(id))) throw new QmpRefusal(`Block export id '${String(id)}' is already in use`);
      this.exports.set(String(id), { bitmap: (bitmaps as string[] | undefined)?.[0] });
      this.#exportNames.set(String(name), String(id));
    },
    'block-export-del': ({ id }) => {
      if (!this.exports.delete(String(id))) throw new QmpRefusal(`Export '${String(id)}' is not found`);
      this.life.post('ends an export', () => this.#monitors.event('BLOCK_EXPORT_DELETED', { id }));
    },
    'block-dirty-bitmap-remove': ({ name }) => {
      if (!this.#bitmaps.delete(String(name))) throw new QmpRefusal(`Dirty bitmap '${String(name)}' not found`);
    },
    transaction: ({ actions }) => {
      for (const { type, data } of actions as { type: string; data: { name: string } }[]) {
        const known = this.#bitmaps.get(data.name);
        if (type === 'block-dirty-bitmap-add') {
          if (known) throw new QmpRefusal(`Bitmap already exists: ${data.name}`);
          this.#bitmaps.set(data.name, { recording: true, blocks: new Set() });
        } else if (!known) throw new QmpRefusal(`Dirty bitmap '${data.name}' not found`);
        else known.recording = false;
      }
    },
    block_set_io_throttle: () => ({}),
    'announce-self': () => ({}),
    'blockdev-set-active': () => ({}),
    stop: () => {
      if (this.state !== 'running') return;
      this.#set('paused', 'is stopped by its operator');
      this.#monitors.event('STOP');
    },
    cont: () => {
      if (this.state === 'finish-migrate') throw new QmpRefusal('Migration is not finalized yet');
      if (this.state === 'inmigrate') this.#autostart = true;
      if (this.state !== 'paused' && this.state !== 'postmigrate') return;
      this.#set('running', this.state === 'postmigrate' ? 'is let go on although it has been sent' : 'is let run');
      this.#monitors.event('RESUME');
    },
    quit: () => {
      this.#monitors.event('SHUTDOWN', { guest: false, reason: 'host-qmp-quit' });
      this.life.post('quits', () => this.life.kill(), 1);
    },
  };

  readonly #exportNames = new Map<string, string>();

  get #nbdServers(): Map<string, SimQemu> {
    return nbdServersOf(this.#parts.disk);
  }

  /** What an export says of one of its blocks. @throws where there is no such export any more */
  exported(name: string): { readonly disk: QemuDisk; readonly dirty: ReadonlySet<number> | undefined } {
    const known = this.exports.get(this.#exportNames.get(name) ?? '');
    if (!known || !this.disk || !this.life.alive) throw new Error(`no export ${name}`);
    this.letGuestRun();
    return { disk: this.disk, dirty: known.bitmap === undefined ? undefined : this.#bitmaps.get(known.bitmap)?.blocks };
  }

  #migrationInfo(): Record<string, unknown> {
    const stream = this.#outgoing;
    if (!stream) return this.#incomingStatus === undefined ? {} : { status: this.#incomingStatus };
    return {
      status: stream.status,
      ...(stream.error !== undefined && { 'error-desc': stream.error }),
      ram: {
        remaining: stream.remainingBytes,
        transferred: stream.transferred,
        total: RAM_BYTES,
        'dirty-pages-rate': 3,
        'dirty-sync-count': stream.rounds,
        mbps: 100,
      },
    };
  }

  #blockDevice({ path, sizeBytes }: QemuDisk): Readonly<Record<'device' | 'inserted', unknown>> {
    return {
      device: 'ide0-hd0',
      inserted: {
        'node-name': 'disk0',
        file: path,
        ro: false,
        drv: 'raw',
        image: { 'virtual-size': sizeBytes, filename: path, format: 'raw' },
        'dirty-bitmaps': [...this.#bitmaps].map(([name, { recording, blocks }]) => ({
          ...{ name, recording, busy: false },
          count: blocks.size * BLOCK_BYTES,
        })),
      },
    };
  }
}

const nbdServers = new WeakMap<DiskModel, Map<string, SimQemu>>();

/** Which QEMU of a host serves disks at a place. */
export function nbdServersOf(disk: DiskModel): Map<string, SimQemu> {
  const known = nbdServers.get(disk) ?? new Map<string, SimQemu>();
  nbdServers.set(disk, known);
  return known;
}

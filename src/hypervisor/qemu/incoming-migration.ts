/**
 * The destination QEMU's side: a QEMU started with `-incoming unix:PATH -S` is fed set-up, pages and device state, in any
 * order of pages, and stays paused when it has everything. Starting the guest is not done here: it comes after the point
 * of no return.
 *
 *   set-up, 08 0001 0000 (open return path, where the source has not), 08 0002 0004 u32 (ping)   ->
 *                                        <-   0002 0004 u32 (pong): every RAM block is there, and of the same size
 *
 * A source that hears its destination has opened the path and sent a ping of its own, 1, ahead of the RAM blocks.
 * Source: QEMU migration/savevm.c, loadvm_process_command; migration.c, mig_rp_message_type.
 */
import type { Socket } from 'node:net';
import { DwcpError, messageOf } from '../../model/errors';
import { connectTo } from '../../system/unix-socket';
import { until } from '../../system/wait';
import type { StartedGuest } from './guest-process';
import { SECTION } from './migration-stream-format';
import { MigrationStreamWriter } from './migration-stream-writer';
import type { QmpClient } from './qmp-client';

const LOAD_TIMEOUT_MS = 120_000;
const SET_UP_TIMEOUT_MS = 20_000;
const LOOK_EVERY_MS = 5;
const LAST_WORD_MS = 500;
const SIDE = { side: 'destination' } as const;
const OPEN_RETURN_PATH = Buffer.from([SECTION.command, 0, 1, 0, 0]);
const NUMBER = Buffer.from('DWCP');
const PING = Buffer.concat([Buffer.from([SECTION.command, 0, 2, 0, NUMBER.length]), NUMBER]);
const PONG = Buffer.concat([Buffer.from([0, 2, 0, NUMBER.length]), NUMBER]);
const RAM_SECTION = Buffer.from('\u0003ram', 'latin1');
const MAX_BACK_BYTES = 1024;

/** The QEMU that loads, and what it has printed. */
type Loading = Pick<StartedGuest, 'qmp' | 'said'>;

export class IncomingMigration {
  readonly #qmp: QmpClient;
  readonly #said: () => string;
  readonly #socket: Socket;
  readonly #writer: MigrationStreamWriter;
  #error: DwcpError | undefined;
  #section: 'none' | 'part' | 'end' = 'none';

  /**
   * QEMU has taken the set-up when this returns.
   * @param prefix the source's set-up, as it is @throws QEMU_REFUSED with QEMU's reason, QEMU_UNREACHABLE, QEMU_TIMEOUT
   */
  static async open(qemu: Loading, path: string, prefix: Buffer, sectionId: number): Promise<IncomingMigration> {
    const { qmp } = qemu;
    await qmp.execute('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] });
    const socket = connectTo(path);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', (cause) =>
        reject(
          new DwcpError('QEMU_UNREACHABLE', `QEMU takes no migration at ${path}: ${messageOf(cause)}`, {
            side: 'destination',
            cause,
          }),
        ),
      );
    });
    const incoming = new IncomingMigration(qemu, socket, sectionId);
    try {
      await incoming.#takesSetUp(prefix);
    } catch (error) {
      incoming.abort();
      throw error;
    }
    return incoming;
  }

  private constructor({ qmp, said }: Loading, socket: Socket, sectionId: number) {
    this.#qmp = qmp;
    this.#said = said;
    this.#socket = socket;
    this.#writer = new MigrationStreamWriter(sectionId, (bytes, done) => void socket.write(bytes, done));
    socket.on(
      'error',
      (cause) =>
        (this.#error = new DwcpError('QEMU_UNREACHABLE', `QEMU has stopped loading: ${messageOf(cause)}`, {
          side: 'destination',
          cause,
        })),
    );
    socket.resume();
  }

  async #takesSetUp(prefix: Buffer): Promise<void> {
    const failed = this.#hearOfFailure();
    let back = Buffer.alloc(0);
    const hear = (chunk: Buffer): void => void (back = Buffer.concat([back, chunk]).subarray(-MAX_BACK_BYTES));
    const taken = (): boolean => back.includes(PONG);
    this.#socket.on('data', hear);
    const isOpen = prefix.subarray(0, prefix.indexOf(RAM_SECTION)).includes(OPEN_RETURN_PATH);
    this.#socket.write(Buffer.concat([prefix, ...(isOpen ? [] : [OPEN_RETURN_PATH]), PING]));
    try {
      const over = await until(() => taken() || failed.heard() || this.#error !== undefined || this.#qmp.ended, {
        everyMs: LOOK_EVERY_MS,
        withinMs: SET_UP_TIMEOUT_MS,
      });
      if (taken()) return;
      if (!over) throw new DwcpError('QEMU_TIMEOUT', 'QEMU has not taken the guest’s set-up in time', SIDE);
      // It hangs up a moment before it says why.
      await until(() => failed.heard() || this.#qmp.ended, { everyMs: LOOK_EVERY_MS, withinMs: LAST_WORD_MS });
      throw failed.heard() ? this.#refused() : new DwcpError('QEMU_UNREACHABLE', 'QEMU has ended', SIDE);
    } finally {
      this.#socket.off('data', hear);
      failed.stop();
    }
  }

  #hearOfFailure(): { heard(): boolean; stop(): void } {
    let heard = false;
    const stop = this.#qmp.onEvent(({ name, data }) => (heard ||= name === 'MIGRATION' && data.status === 'failed'));
    return { heard: () => heard, stop };
  }

  #refused(): DwcpError {
    return new DwcpError(
      'QEMU_REFUSED',
      `QEMU could not load the guest: ${this.#said() || 'it gives no reason'}`,
      SIDE,
    );
  }

  page(block: string, offset: number, content: Buffer): void {
    this.#inSection('part');
    this.#writer.page(block, offset, content);
  }

  filledPage(block: string, offset: number, fill: number): void {
    this.#inSection('part');
    this.#writer.filledPage(block, offset, fill);
  }

  /** Hands on what has been given, and waits until QEMU has room for more. @throws QEMU_UNREACHABLE */
  async flush(): Promise<void> {
    this.#endSection();
    this.#throwIfBroken();
    if (!this.#socket.writableNeedDrain) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        this.#socket.off('drain', done).off('close', done);
        resolve();
      };
      this.#socket.on('drain', done).on('close', done);
    });
    this.#throwIfBroken();
  }

  /**
   * The end: no page comes any more. @param commands what the source said between sections @param deviceState as it is
   * @returns when QEMU has loaded everything; the guest is paused @throws QEMU_REFUSED with QEMU's reason, QEMU_UNREACHABLE
   */
  async finish(commands: readonly Buffer[], deviceState: readonly Buffer[]): Promise<void> {
    this.#endSection();
    for (const command of commands) this.#socket.write(command);
    this.#inSection('end');
    this.#endSection();
    const ends = this.#qmp.event(
      'the end of loading',
      ({ name, data }) => name === 'MIGRATION' && ['completed', 'failed'].includes(String(data.status)),
      LOAD_TIMEOUT_MS,
    );
    for (const piece of deviceState) this.#socket.write(piece);
    this.#socket.end();
    const { data } = await ends;
    if (data.status === 'failed') throw this.#refused();
  }

  /** Ends it: QEMU gives the guest up, which has not run here. */
  abort(): void {
    this.#socket.destroy();
  }

  #throwIfBroken(): void {
    if (this.#error) throw this.#error;
  }

  #inSection(kind: 'part' | 'end'): void {
    if (this.#section === kind) return;
    this.#endSection();
    this.#writer.beginSection(kind);
    this.#section = kind;
  }

  #endSection(): void {
    if (this.#section === 'none') return;
    this.#writer.endSection();
    this.#section = 'none';
  }
}

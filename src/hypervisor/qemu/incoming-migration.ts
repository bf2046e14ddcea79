/**
 * The destination QEMU's side: a QEMU started with `-incoming unix:PATH -S` is fed set-up, pages and device state, in any
 * order of pages, and stays paused when it has everything. Starting the guest is not done here: it comes after the point
 * of no return.
 */
import { connect, type Socket } from 'node:net';
import { DwcpError, messageOf } from '../../model/errors';
import { MigrationStreamWriter } from './migration-stream-writer';
import type { QmpClient } from './qmp-client';

const LOAD_TIMEOUT_MS = 120_000;

export class IncomingMigration {
  readonly #qmp: QmpClient;
  readonly #socket: Socket;
  readonly #writer: MigrationStreamWriter;
  #error: DwcpError | undefined;
  #section: 'none' | 'part' | 'end' = 'none';

  /** @param prefix the source's set-up, as it is @throws QEMU_UNREACHABLE */
  static async open(qmp: QmpClient, path: string, prefix: Buffer, sectionId: number): Promise<IncomingMigration> {
    await qmp.execute('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] });
    const socket = connect(path);
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
    socket.write(prefix);
    return new IncomingMigration(qmp, socket, sectionId);
  }

  private constructor(qmp: QmpClient, socket: Socket, sectionId: number) {
    this.#qmp = qmp;
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
    if (data.status === 'completed') return;
    const info = await this.#qmp.execute('query-migrate');
    throw new DwcpError(
      'QEMU_REFUSED',
      `QEMU could not load the guest: ${info['error-desc'] ?? 'it gives no reason'}`,
      { side: 'destination' },
    );
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

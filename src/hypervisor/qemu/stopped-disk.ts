/**
 * The content of a stopped guest's QCOW2 disk, read through a qemu-nbd that serves it read-only and lets nobody wait: it takes
 * no lock on the file, so the guest can be started at any time, and ends with its last reader, so with the agent too.
 */
import { spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { DwcpError, errnoOf, messageOf } from '../../model/errors';
import { wait } from '../../system/wait';
import { NbdClient, type NbdExtent, zeroExtents } from '../nbd-client';
import { type DiskLayer, nodeOfLayers } from './disk-format';
import type { GuestIds } from './guest-user';
import { harmless } from './qemu-program';

const PROGRAM = 'qemu-nbd';
const EXPORT_NAME = 'disk';
/** A reader that stays, those for parallel reads, one for a question in between. */
const READERS = 2;
const MAX_CLIENTS = 4;
const START_TIMEOUT_MS = 10_000;
const MAX_MESSAGE_CHARS = 500;

export class StoppedDisk {
  readonly sizeBytes: number;
  readonly #socketPath: string;
  readonly #readers: readonly NbdClient[];
  #turn = 0;

  /**
   * @param layers what the disk is made of: no header is asked for more
   * @param ids as whom: a guest has written what is read; undefined: as this process
   * @throws IMAGE_UNREADABLE with what qemu-nbd says of the file, or where there is no qemu-nbd
   */
  static async serve(
    layers: readonly DiskLayer[],
    socketPath: string,
    ids: GuestIds | undefined,
  ): Promise<StoppedDisk> {
    rmSync(socketPath, { force: true });
    const path = layers[0]?.path ?? '';
    const node = JSON.stringify({ ...nodeOfLayers(layers), 'force-share': true });
    const server = spawn(
      PROGRAM,
      ['-r', '-e', String(MAX_CLIENTS), '-k', socketPath, '-x', EXPORT_NAME, `json:${node}`],
      { stdio: ['ignore', 'ignore', 'pipe'], env: harmless(process.env), ...ids },
    );
    let said = '';
    let failed: Error | undefined;
    server.stderr.on('data', (chunk: Buffer) => (said = `${said}${chunk.toString('utf8')}`.slice(-MAX_MESSAGE_CHARS)));
    server.once('error', (error) => (failed = error));
    server.once('close', () => (failed ??= new Error(said.trim() || 'it ended')));
    const readers: NbdClient[] = [];
    for (const deadline = performance.now() + START_TIMEOUT_MS; readers.length < READERS; ) {
      try {
        readers.push(await NbdClient.connect(socketPath, EXPORT_NAME));
      } catch (error) {
        if (failed === undefined && performance.now() < deadline) {
          await wait(15);
          continue;
        }
        for (const reader of readers) reader.close();
        server.kill('SIGKILL');
        rmSync(socketPath, { force: true });
        throw unreadable(path, failed ?? error);
      }
    }
    return new StoppedDisk(socketPath, readers);
  }

  private constructor(socketPath: string, readers: readonly NbdClient[]) {
    this.#socketPath = socketPath;
    this.#readers = readers;
    this.sizeBytes = readers[0]?.sizeBytes ?? 0;
  }

  read(offset: number, into: Buffer): Promise<void> {
    const reader = this.#readers[(this.#turn = (this.#turn + 1) % this.#readers.length)];
    if (!reader) throw new DwcpError('INTERNAL', 'a disk without readers');
    return reader.read(offset, into);
  }

  holes(): Promise<NbdExtent[]> {
    return zeroExtents(this.#socketPath, EXPORT_NAME);
  }

  close(): void {
    for (const reader of this.#readers) reader.close();
    rmSync(this.#socketPath, { force: true });
  }
}

function unreadable(path: string, error: unknown): DwcpError {
  if (errnoOf(error) !== 'ENOENT')
    return new DwcpError('IMAGE_UNREADABLE', `${path}: ${messageOf(error)}`, { side: 'source', cause: error });
  return new DwcpError('IMAGE_UNREADABLE', `${path} is a QCOW2 file and there is no ${PROGRAM} to read it with`, {
    side: 'source',
    hint: 'Install QEMU’s tools (Debian: qemu-utils), then retry',
  });
}

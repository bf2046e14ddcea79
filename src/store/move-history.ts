/**
 * What this host has learnt of the guests that it has sent away: one row for each move, the oldest forgotten first. A file that cannot
 * be read is begun anew: it is experience, not state. What follows from it is the forecast's.
 *
 *   <data>/move-history.json   an array of rows, oldest first
 */
import { join } from 'node:path';
import { z } from 'zod';
import { type MoveRow, moveRowSchema } from '../model/move-row';
import { readIfThere, writeDurably } from './durable-file';

const MAX_ROWS = 512;

export class MoveHistory {
  readonly #path: string;
  #rows: Promise<readonly MoveRow[]> | undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(dataDir: string) {
    this.#path = join(dataDir, 'move-history.json');
  }

  /** To one host, oldest first, those of the VM last: how fast hosts are shows in the moves of others too. */
  async to(destinationHost: string, vmId: string): Promise<readonly MoveRow[]> {
    this.#rows ??= this.#read();
    const rows = (await this.#rows).filter((row) => row.destinationHost === destinationHost);
    return [...rows.filter((row) => row.vmId !== vmId), ...rows.filter((row) => row.vmId === vmId)];
  }

  /** @throws where it cannot be written: it is known to this process all the same, and the next row brings all to disk */
  async add(row: MoveRow): Promise<void> {
    this.#rows ??= this.#read();
    const rows = [...(await this.#rows), moveRowSchema.parse(row)].slice(-MAX_ROWS);
    this.#rows = Promise.resolve(rows);
    this.#writing = this.#writing
      .catch(() => undefined)
      .then(() => writeDurably(this.#path, `${JSON.stringify(rows)}\n`));
    await this.#writing;
  }

  async #read(): Promise<readonly MoveRow[]> {
    try {
      const text = await readIfThere(this.#path);
      return text
        ? z
            .array(moveRowSchema)
            .parse(JSON.parse(text.toString('utf8')))
            .slice(-MAX_ROWS)
        : [];
    } catch {
      return [];
    }
  }
}

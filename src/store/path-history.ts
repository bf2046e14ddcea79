/**
 * What this host has learnt of its paths: one row for each transfer whose stream count was confirmed, the oldest forgotten
 * first. A file that cannot be read is begun anew: it is experience, not state. What follows from it is the predictor's.
 *
 *   <data>/path-history.json   an array of rows, oldest first
 */
import { join } from 'node:path';
import { z } from 'zod';
import { type PathRow, pathRowSchema } from '../model/path-row';
import { readIfThere, writeDurably } from './durable-file';

const MAX_ROWS = 512;

export class PathHistory {
  readonly #path: string;
  #rows: Promise<PathRow[]> | undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(dataDir: string) {
    this.#path = join(dataDir, 'path-history.json');
  }

  async rows(): Promise<readonly PathRow[]> {
    this.#rows ??= this.#read();
    return this.#rows;
  }

  /**
   * Adds a row; rows of concurrent transfers are written one after the other.
   * @throws where it cannot be written: it is known to this process all the same, and the next row brings all to disk
   */
  async add(row: PathRow): Promise<void> {
    const rows = [...(await this.rows()), pathRowSchema.parse(row)].slice(-MAX_ROWS);
    this.#rows = Promise.resolve(rows);
    // Of one that failed its own caller has heard.
    this.#writing = this.#writing
      .catch(() => undefined)
      .then(() => writeDurably(this.#path, `${JSON.stringify(rows)}\n`));
    await this.#writing;
  }

  async #read(): Promise<PathRow[]> {
    try {
      const text = await readIfThere(this.#path);
      if (!text) return [];
      return z
        .array(pathRowSchema)
        .parse(JSON.parse(text.toString('utf8')))
        .slice(-MAX_ROWS);
    } catch {
      return [];
    }
  }
}

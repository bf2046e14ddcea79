/**
 * Notices that files, or names in folders, have changed: by looking every two seconds, since what a container mounts or a network file
 * system serves tells nobody.
 */
import { statSync } from 'node:fs';

const LOOK_EVERY_MS = 2_000;

function stateOf(path: string): string {
  const found = statSync(path, { throwIfNoEntry: false });
  return found ? `${found.ino} ${found.size} ${found.mtimeMs} ${found.ctimeMs}` : 'none';
}

export class FileWatch {
  readonly #paths: readonly string[];
  readonly #timer: NodeJS.Timeout;
  #seen: string;

  constructor(paths: readonly string[], changed: () => void) {
    this.#paths = paths;
    this.#seen = this.#look();
    this.#timer = setInterval(() => {
      const now = this.#look();
      if (now === this.#seen) return;
      this.#seen = now;
      changed();
    }, LOOK_EVERY_MS).unref();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #look(): string {
    return this.#paths.map(stateOf).join('\n');
  }
}

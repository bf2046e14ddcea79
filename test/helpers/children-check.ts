/**
 * Looks for processes that this test process has started and not ended: children of its own, from /proc.
 */
import { readdirSync, readFileSync } from 'node:fs';

/** Command lines of living `dwcp` and `temporal` children of this process. */
export function survivors(): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
        const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
        if (Number(parent) !== process.pid || state === 'Z') return [];
        const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
        return /cli\/main\.js|temporal server/.test(command) &&
          !command.includes(process.env.DWCP_TEST_SERVER_PID ?? 'none') &&
          pid !== process.env.DWCP_TEST_SERVER_PID
          ? [command]
          : [];
      } catch {
        return [];
      }
    });
}

const ends: (() => Promise<unknown>)[] = [];

/** What several tests of a file share and nobody else ends: ended behind the last of them, before survivors are looked for. */
export function endBehindAll(end: () => Promise<unknown>): void {
  ends.push(end);
}

export async function endAll(): Promise<void> {
  for (const end of ends.splice(0)) await end();
}

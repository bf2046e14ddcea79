/**
 * The server and the schema tool of a deployment, built from the pinned module once and cached beside the CLI.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { whichTool } from '../../src/cli/demo/tools';
import { cacheFolder } from '../../src/control/temporal-binary';

const MODULE = join(__dirname, '..', '..', '..', 'tools', 'temporal-server');
const PROGRAMS = {
  'temporal-server': 'go.temporal.io/server/cmd/server',
  'temporal-sql-tool': 'go.temporal.io/server/cmd/tools/sql',
};

export const goProgram = (): string | undefined =>
  whichTool('go') ?? (existsSync('/usr/local/go/bin/go') ? '/usr/local/go/bin/go' : undefined);

export function needsGo(): string | undefined {
  return goProgram() ? undefined : 'Go is missing, and with it the Temporal server of a deployment';
}

/** @returns the folder that holds both programs */
export function temporalPrograms(): string {
  const folder = cacheFolder();
  mkdirSync(folder, { recursive: true });
  for (const [name, source] of Object.entries(PROGRAMS)) {
    const path = join(folder, name);
    if (existsSync(path)) continue;
    process.stderr.write(`building ${name}, once, some minutes\n`);
    const built = spawnSync(
      goProgram() ?? 'go',
      ['build', '-trimpath', '-ldflags', '-s -w', '-o', `${path}.part`, source],
      { cwd: MODULE, encoding: 'utf8' },
    );
    if (built.status !== 0)
      throw new Error(`${name} could not be built: ${built.stderr.trim().split('\n').at(-1) ?? ''}`);
    renameSync(`${path}.part`, path);
  }
  return folder;
}

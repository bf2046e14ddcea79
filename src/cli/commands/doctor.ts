/**
 * `dwcp doctor`: looks at what a host needs for a fast and safe migration and says how to mend what is missing. Exit
 * code 12 where something fails; a warning alone is no failure.
 */
import { join } from 'node:path';
import type { Command } from 'commander';
import { resolveDataDir } from '../../agent/host';
import { EXIT } from '../../model/exit-codes';
import { PROCESS_OPTIONS } from '../../model/options';
import { trustFolderOf } from '../../trust/trust-folder';
import { type Finding, runChecks } from '../doctor/checks';
import { type Flags, outputOf, withGlobals } from '../flags';
import { table } from '../output';
import { addOptions, processOptions } from '../settings';

const SIGNS: Readonly<Record<Finding['state'], string>> = { ok: 'ok', warn: 'warn', fail: 'FAIL' };

export function addDoctorCommand(program: Command): void {
  addOptions(
    program
      .command('doctor')
      .description('Check this host, and the way to another one, for what migrations need')
      .option('--peer <address[:port]>', 'agent whose data plane should be reachable'),
    PROCESS_OPTIONS,
    ['hostId', 'dataDir', 'port', 'listenAddress', 'trustDir', 'tlsCert', 'guestUser'],
  ).action(async (flags: Flags, command: Command) => {
    const output = outputOf(command);
    const options = processOptions(withGlobals(flags, command));
    const findings = await runChecks({
      dataDir: resolveDataDir(options),
      port: options.port,
      certificate: options.tlsCert || join(resolveDataDir(options), 'host.pem'),
      trustDir: trustFolderOf(options),
      payloadKeyFile: options.payloadKeyFile,
      guestUser: options.guestUser,
      peer: typeof flags.peer === 'string' ? flags.peer : undefined,
    });
    if (output.json) for (const finding of findings) output.emit({ event: 'finding', ...finding }, () => '');
    else {
      output.say(table(findings.map(({ state, check, found }) => [SIGNS[state], check, found])));
      for (const { state, check, mend } of findings) if (state !== 'ok') output.say(`${check}: ${mend}`);
    }
    if (findings.some((finding) => finding.state === 'fail')) process.exitCode = EXIT.doctor;
  });
}

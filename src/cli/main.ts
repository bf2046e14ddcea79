/**
 * The `dwcp` command: parses, dispatches, and is the one place where an error becomes an exit code.
 */
import { Command, CommanderError } from 'commander';
import { EXIT } from '../model/exit-codes';
import { RELEASE } from '../transport/hello';
import { addAuditCommands } from './commands/audit';
import { addBaselineCommands } from './commands/baselines';
import { addBaseCommands } from './commands/bases';
import { addCodecServerCommand } from './commands/codec-server';
import { addDemoCommand } from './commands/demo';
import { addDictionaryCommands } from './commands/dictionaries';
import { addDoctorCommand } from './commands/doctor';
import { addHostCommands } from './commands/hosts';
import { addLocalCommands } from './commands/local';
import { addMigrationCommands } from './commands/migrations';
import { addProcessCommands } from './commands/processes';
import { fail } from './output';

async function main(): Promise<void> {
  const program = new Command('dwcp')
    .description('Moves virtual machines between sites: durable, resumable, several times faster than one TCP stream')
    .version(RELEASE)
    .option('--json', 'one JSON object a line')
    .option('--config <path>', 'configuration file (YAML); else DWCP_CONFIG, ./dwcp.yaml, /etc/dwcp/dwcp.yaml')
    .option('--payload-key-file <path>', 'keys that what Temporal keeps is encrypted with (docs/configuration.md)')
    .showHelpAfterError('(`dwcp --help` lists the commands)')
    .exitOverride();
  addDemoCommand(program);
  addProcessCommands(program);
  addCodecServerCommand(program);
  addLocalCommands(program);
  addAuditCommands(program);
  addHostCommands(program);
  addBaselineCommands(program);
  addBaseCommands(program);
  addDictionaryCommands(program);
  addMigrationCommands(program);
  addDoctorCommand(program);
  for (const command of program.commands) command.exitOverride();
  try {
    await program.parseAsync();
  } catch (error) {
    if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    else fail(error, process.argv.includes('--json'));
  }
}

void main().then(() => {
  // A client or a native runtime may keep the loop alive; everything has been awaited by now.
  setTimeout(() => process.exit(), 2000).unref();
});

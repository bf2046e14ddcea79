/** The Go client of the contract: its own tests, and a migration that it starts, steers and awaits. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { Lab } from '../helpers/lab';
import { describeWhere } from '../helpers/needs';
import { goProgram, needsGo } from '../helpers/temporal-programs';

const FOLDER = join(__dirname, '..', '..', '..', 'contract', 'go');

describeWhere([needsGo()])('the Go client', () => {
  test('has the fields and names of the contract, and moves a VM', async () => {
    const lab = await Lab.start();
    const { hashes } = await lab.defineVm('by-go', 8 * 1024 * 1024);
    const env = {
      ...process.env,
      DWCP_GO_TEMPORAL: lab.address,
      DWCP_GO_VM: 'by-go',
      DWCP_GO_SOURCE: lab.a.hostId,
      DWCP_GO_DESTINATION: lab.b.hostId,
    };
    const said = await new Promise<string>((resolve) => {
      execFile(goProgram() ?? 'go', ['test', '-count=1', './...'], { cwd: FOLDER, env }, (error, stdout, stderr) =>
        resolve(`${stdout}${stderr}${error?.message ?? ''}`),
      );
    });
    if (!/^ok /m.test(said))
      for (const { name, text } of lab.logs()) process.stderr.write(`--- ${name}\n${text.slice(-4000)}\n`);
    expect(said).toMatch(/^ok /m);
    expect(said).not.toMatch(/FAIL|Command failed/);
    expect(lab.hashesOnB('by-go')).toEqual(hashes);
  }, 600_000);
});

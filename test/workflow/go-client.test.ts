/** The Go client of the contract: its own tests, and a migration that it starts, steers and awaits, in the clear and encrypted. */
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { temporaryFolder } from '../helpers/data';
import { Lab } from '../helpers/lab';
import { describeWhere } from '../helpers/needs';
import { goProgram, needsGo } from '../helpers/temporal-programs';

const FOLDER = join(__dirname, '..', '..', '..', 'contract', 'go');

describeWhere([needsGo()])('the Go client', () => {
  test.each([
    ['in the clear', ''],
    ['with all payloads encrypted, by Go for TypeScript and the other way', 'ab'.repeat(32)],
  ])(
    'has the fields and names of the contract, and moves a VM %s',
    async (_, key) => {
      const payloadKeyFile = key && join(temporaryFolder(), 'payload-keys');
      if (payloadKeyFile) writeFileSync(payloadKeyFile, `${key}\n`, { mode: 0o600 });
      // A server of its own for a key: who comes later could not read the schedules.
      const lab = await Lab.start({ own: key !== '', payloadKeyFile });
      const vmId = key === '' ? 'by-go' : 'by-go-encrypted';
      const { hashes } = await lab.defineVm(vmId, 8 * 1024 * 1024);
      const env = {
        ...process.env,
        DWCP_TRUST_DIR: lab.trust.path,
        DWCP_GO_TEMPORAL: lab.address,
        DWCP_GO_VM: vmId,
        DWCP_GO_SOURCE: lab.a.hostId,
        DWCP_GO_DESTINATION: lab.b.hostId,
        DWCP_GO_PAYLOAD_KEY_FILE: payloadKeyFile,
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
      expect(lab.hashesOnB(vmId)).toEqual(hashes);
    },
    600_000,
  );
});

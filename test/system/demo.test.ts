/** What the README asks a new user to run first. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { describeWhere } from '../helpers/needs';
import { needsQemu } from '../helpers/qemu';

const MAIN = join(__dirname, '..', '..', 'src', 'cli', 'main.js');

describeWhere([needsQemu()])('dwcp demo', () => {
  test('moves a VM and a running guest there and back, and says that both are as they were', async () => {
    const env = { ...process.env, TEMPORAL_ADDRESS: '', DWCP_TRUST_DIR: '' };
    const said = await new Promise<string>((resolve) => {
      execFile(process.execPath, [MAIN, 'demo', '--json'], { env, maxBuffer: 1e8 }, (error, stdout, stderr) =>
        resolve(error ? `${stdout}${stderr}${error.message}` : stdout),
      );
    });
    expect(said.trim().split('\n').at(-1)).toMatch(/^\{"event":"demo","ok":true/);
    expect(said).not.toContain('NOT_AUTHORISED');
  }, 400_000);
});

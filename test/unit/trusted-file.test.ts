/** A dwcp.yaml that was found speaks for a user only where nobody else can have written it. */
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { processOptions } from '../../src/cli/settings';
import { distrustOf } from '../../src/cli/trusted-file';
import { temporaryFolder } from '../helpers/data';

const ME = 1000;
const mine = { uid: ME, gid: ME, mode: 0o644 };
const home = { uid: ME, gid: ME, mode: 0o755 };
const tmp = { uid: 0, gid: 0, mode: 0o1777 };

test.each([
  ['one’s own in one’s own folder', mine, home, true],
  ['of one’s own group', { ...mine, mode: 0o664 }, { ...home, mode: 0o775 }, true],
  ['root’s', { ...mine, uid: 0 }, { ...home, uid: 0 }, true],
  ['one’s own in /tmp', mine, tmp, true],
  ['another’s', { ...mine, uid: 1001 }, home, false],
  ['another’s in /tmp', { ...mine, uid: 1001 }, tmp, false],
  ['in another’s folder', mine, { ...home, uid: 1001 }, false],
  ['that all may write', { ...mine, mode: 0o646 }, home, false],
  ['that a shared group may write', { ...mine, gid: 50, mode: 0o664 }, home, false],
  ['in a folder that all may write', mine, { ...home, mode: 0o777 }, false],
  ['in a folder that a shared group may write', mine, { ...home, gid: 50, mode: 0o775 }, false],
])('a file %s', (_what, file, folder, trusted) => {
  expect(distrustOf(file, folder, ME) === undefined).toBe(trusted);
});

describe('in the folder where the command is run', () => {
  const before = process.cwd();
  let folder: string;

  beforeEach(() => {
    folder = temporaryFolder();
    process.chdir(folder);
    writeFileSync('dwcp.yaml', 'port: 4321\n', { mode: 0o600 });
  });

  afterEach(() => process.chdir(before));

  test('it is read where it is one’s own', () => {
    expect(processOptions({}).port).toBe(4321);
  });

  test('it is refused, in one line with the place and the mend, where others may write it', () => {
    chmodSync('dwcp.yaml', 0o666);
    expect(() => processOptions({})).toThrow(
      expect.objectContaining({
        code: 'CONFIG_INVALID',
        message: `${join(folder, 'dwcp.yaml')} is not read: others may write it`,
        hint: expect.stringContaining('chmod go-w') as string,
      }) as Error,
    );
  });

  test('it is read where it was named, with a word about it', () => {
    chmodSync('dwcp.yaml', 0o666);
    const write = jest.spyOn(process.stderr, 'write').mockReturnValue(true);
    expect(processOptions({ config: 'dwcp.yaml' }).port).toBe(4321);
    expect(write.mock.calls.map(([text]) => String(text)).join()).toContain('others may write it');
    write.mockRestore();
  });

  const asRoot = process.getuid?.() === 0 ? test : test.skip;

  asRoot('another user’s is refused, and a link that another user has put there', () => {
    chownSync('dwcp.yaml', 12_345, 12_345);
    expect(() => processOptions({})).toThrow('it belongs to user 12345');
    mkdirSync('shared');
    writeFileSync('own.yaml', 'port: 1\n', { mode: 0o600 });
    symlinkSync('../own.yaml', 'shared/dwcp.yaml');
    execFileSync('chown', ['-h', '12345', 'shared/dwcp.yaml']);
    process.chdir('shared');
    expect(() => processOptions({})).toThrow('it belongs to user 12345');
  });
});

/** The `dwcp` command: one clear line and a documented exit code for bad input, one JSON object a line with --json. */
import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePort } from '../../src/control/embedded-server';
import { EXIT } from '../../src/model/exit-codes';
import { AuditLog } from '../../src/store/audit-log';
import { temporaryFolder, writeImage } from '../helpers/data';
import { Lab } from '../helpers/lab';

/** Each command is a process of its own, and a busy machine starts them slowly. */
jest.setTimeout(300_000);

const MAIN = join(__dirname, '..', '..', 'src', 'cli', 'main.js');

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function dwcp(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ended> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [MAIN, ...args], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
    child.once('close', (code) => resolve({ code, stdout, stderr }));
  });
}

/** Every line of --json as an object. */
function objects({ stdout }: Ended): Record<string, unknown>[] {
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

function expectOneLine(ended: Ended, code: number, text: RegExp): void {
  expect(ended.stderr.trim()).toMatch(text);
  expect(ended.stderr.trim().split('\n')).toHaveLength(1);
  expect(ended.code).toBe(code);
}

/** A host’s log is held against what the history has of them; one that was written anew does not pass. */
async function expectAnchored(lab: Lab, migration: string, server: Record<string, string>): Promise<void> {
  const verify = (...args: string[]): Promise<Ended> =>
    dwcp(['audit', 'verify', '--migration', migration, '--trust-dir', lab.trust.path, ...args], server);
  const [verified] = objects(await verify('--data-dir', lab.b.dataDir, '--json'));
  expect(verified).toMatchObject({ event: 'audit-verified', tooOld: 0, keyKnown: true, refused: [] });
  expect(verified?.anchored).toBeGreaterThan(0);
  const rewritten = temporaryFolder();
  const log = await AuditLog.open(rewritten, () => undefined);
  for (let line = 0; line < 100; line += 1) log.write('warrant', { line });
  await log.close();
  expectOneLine(
    await verify('--data-dir', rewritten, '--host-id', lab.a.hostId),
    EXIT.integrity,
    /the log was written anew/,
  );
  expectOneLine(
    await verify('--data-dir', rewritten, '--host-id', 'other'),
    EXIT.notFound,
    /no signed head of host other/,
  );
}

describe('bad input', () => {
  const dataDir = temporaryFolder();

  test('a flag out of its range names the flag and the range', async () => {
    expectOneLine(
      await dwcp(['migrate', 'vm', 'a', 'b', '--max-streams', '900'], { TEMPORAL_ADDRESS: '127.0.0.1:1' }),
      EXIT.usage,
      /--max-streams: .* from 1 to 256, not 900/,
    );
  });

  test('a bad variable names the variable', async () => {
    expectOneLine(
      await dwcp(['agent', '--data-dir', dataDir], { DWCP_PORT: 'many' }),
      EXIT.usage,
      /DWCP_PORT: port takes an integer from 1 to 65535, not "many"/,
    );
  });

  test('an unknown option in the configuration file names file and option', async () => {
    const path = join(dataDir, 'dwcp.yaml');
    writeFileSync(path, 'maxStreems: 4\n');
    expectOneLine(
      await dwcp(['vm', 'list', '--config', path], {}),
      EXIT.usage,
      new RegExp(`${path}: there is no option maxStreems`),
    );
  });

  test('an image that is not there', async () => {
    expectOneLine(
      await dwcp(['vm', 'define', 'web', '--disk', '/nowhere/disk.img', '--data-dir', dataDir]),
      EXIT.failed,
      /IMAGE_UNREADABLE.*\/nowhere\/disk\.img/,
    );
  });

  test('a VM name with a slash', async () => {
    expectOneLine(
      await dwcp(['vm', 'define', '../web', '--disk', '/dev/null', '--data-dir', dataDir]),
      EXIT.usage,
      /INVALID_INPUT.*may hold letters/,
    );
  });

  test('no server', async () => {
    const ended = await dwcp(['status'], { TEMPORAL_ADDRESS: '127.0.0.1:1' });
    expectOneLine(ended, EXIT.controlPlane, /CONTROL_PLANE_UNREACHABLE.*127\.0\.0\.1:1/);
  });

  test('an unknown command or flag', async () => {
    expect((await dwcp(['migrat'])).code).toBe(EXIT.usage);
    expect((await dwcp(['status', '--colour'])).code).toBe(EXIT.usage);
  });

  test('with --json the error is an object too', async () => {
    const ended = await dwcp(['vm', 'show', 'nobody', '--data-dir', dataDir, '--json']);
    expect(objects(ended)).toEqual([expect.objectContaining({ event: 'error', ok: false, code: 'VM_UNKNOWN' })]);
    expect(ended.code).toBe(EXIT.notFound);
  });
});

describe('against a server', () => {
  let lab: Lab;
  let server: Record<string, string>;
  beforeEach(async () => {
    lab = await Lab.start();
    server = { TEMPORAL_ADDRESS: lab.address };
  });
  const hosts = (): [string, string] => [lab.a.hostId, lab.b.hostId];

  test('defines, plans, warms, migrates and shows a VM, each with one object a line', async () => {
    const disk = join(lab.folder, 'disk.img');
    writeImage(disk, 4 * 1024 * 1024, 5);
    const place = ['--data-dir', lab.a.dataDir];
    mkdirSync(lab.a.dataDir, { recursive: true });
    expect(objects(await dwcp(['vm', 'define', 'cli', '--disk', disk, ...place, '--json']))).toEqual([
      expect.objectContaining({ event: 'vm', vmId: 'cli' }),
    ]);
    expect(objects(await dwcp(['plan', 'cli', ...hosts(), '--json'], server)).at(-1)).toMatchObject({
      event: 'plan',
      vmId: 'cli',
    });
    expect(objects(await dwcp(['warm', 'cli', ...hosts(), '--json'], server)).at(-1)).toMatchObject({
      event: 'result',
      ok: true,
    });
    const migrated = await dwcp(['migrate', 'cli', ...hosts(), '--migration-id', 'by-cli', '--json'], server);
    expect(migrated.code).toBe(EXIT.ok);
    expect(objects(migrated)[0]).toMatchObject({ event: 'started', migrationId: 'by-cli' });
    expect(objects(migrated).at(-1)).toMatchObject({
      event: 'result',
      ok: true,
      outcome: 'completed',
      migrationId: 'by-cli',
    });
    expect(objects(await dwcp(['status', 'by-cli', '--json'], server)).at(-1)).toMatchObject({
      migrationId: 'by-cli',
      state: 'completed',
    });
    expect((await dwcp(['status', 'by-cli'], server)).stdout).toMatch(/by DWCP/);
    expect(objects(await dwcp(['vm', 'list', ...place, '--json']))).toEqual([
      expect.objectContaining({ vmId: 'cli', presence: 'away' }),
    ]);
    expect(objects(await dwcp(['baseline', 'list', ...place, '--json']))).toEqual([
      expect.objectContaining({ event: 'baseline', vmId: 'cli' }),
    ]);
    await expectAnchored(lab, 'by-cli', server);
    expect(objects(await dwcp(['metrics', '--json'], server)).at(-1)).toHaveProperty('dwcp_speedup');
    expect(objects(await dwcp(['connect', ...hosts(), '--json'], server)).at(-1)).toMatchObject({ event: 'connect' });
    const link = objects(await dwcp(['link', ...hosts(), '--streams', '4', '--seconds', '2', '--json'], server)).at(-1);
    expect(link).toMatchObject({ event: 'link', streams: 4, start: { tier: 'local' } });
    expect((link as { oneStreamBytesPerSecond: number }).oneStreamBytesPerSecond).toBeGreaterThan(1e6);
    expectOneLine(await dwcp(['link', ...hosts(), '--streams', 'many'], server), EXIT.usage, /INVALID_INPUT.*streams/);
    expect((await dwcp(['status', 'never-was'], server)).code).toBe(EXIT.notFound);
  });

  test('refuses a second migration of the VM and a retry of what is not parked; a cancel ends the follower with its code', async () => {
    await lab.defineVm('twice', 96 * 1024 * 1024);
    const slow = ['migrate', 'twice', ...hosts(), '--bandwidth-limit', '1MB/s'];
    const first = dwcp([...slow, '--migration-id', 'first'], server);
    await lab.until('first', 'the transfer', ({ progress }) => progress?.phase === 'transfer');
    expectOneLine(await dwcp(slow, server), EXIT.refused, /MIGRATION_IN_PROGRESS.*first/);
    expectOneLine(await dwcp(['retry', 'first'], server), EXIT.refused, /NOT_PARKED/);
    expect((await dwcp(['cancel', 'first'], server)).code).toBe(EXIT.ok);
    const followed = await first;
    expect(followed.stderr).toMatch(/CANCELLED/);
    expect(followed.code).toBe(EXIT.cancelled);
  });

  test('a data folder serves one agent: a second one says who has it', async () => {
    await lab.defineVm('locked', 1024 * 1024);
    await lab.result(await lab.migrate('locked'));
    const second = await dwcp(
      [
        'agent',
        '--host-id',
        'second',
        '--data-dir',
        lab.a.dataDir,
        '--listen-address',
        '127.0.0.1',
        '--port',
        String(await freePort()),
      ],
      server,
    );
    expectOneLine(second, EXIT.usage, new RegExp(`CONFIG_INVALID.*${lab.a.dataDir}`));
  });
});

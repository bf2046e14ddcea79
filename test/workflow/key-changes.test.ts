/**
 * Keys that change beneath a migration of machines that know each other by warrants alone, told as docs/security.md says: the agent is
 * forgotten and joins again by a new code. The migration goes on from what is there.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { MigrationStatus } from '../../src/control/migration-status';
import { invite } from '../../src/trust/invitation';
import { TrustFolder } from '../../src/trust/trust-folder';
import { temporaryFolder } from '../helpers/data';
import { Lab } from '../helpers/lab';
import { until } from '../helpers/waiting';

jest.setTimeout(300_000);

interface Moving {
  readonly lab: Lab;
  readonly control: TrustFolder;
  readonly migrationId: string;
  /** The key of the destination that the control plane knows. */
  readonly known: () => string | undefined;
  /** Waits until more has arrived. @returns how much */
  arrived(more: number): Promise<number>;
  forgetAndJoinAgain(): Promise<void>;
  arrives(): Promise<void>;
}

/** The destination on a machine of its own, that is with a trust folder of its own; the source too, or on the control plane's. */
async function moving(source: 'source elsewhere' | 'source beside the control plane'): Promise<Moving> {
  const control = TrustFolder.make(process.env.DWCP_TRUST_DIR ?? '');
  const folder = temporaryFolder();
  const joining = async (machine: string): Promise<readonly string[]> => {
    const { code } = await invite(control, ['127.0.0.1'], { address: '127.0.0.1', port: 0 });
    return ['--trust-dir', join(folder, machine), '--join', code];
  };
  const lab = await Lab.start({
    agentArgs: source === 'source elsewhere' ? await joining('a') : [],
    bArgs: await joining('b'),
  });
  let { b } = lab;
  const known = (): string | undefined => control.host(b.hostId)?.keys.at(-1);
  await until(60_000, 'both are known', () => known() !== undefined && control.host(lab.a.hostId) !== undefined);
  const { hashes } = await lab.defineVm('keys', 48 * 1024 * 1024);
  const migrationId = await lab.migrate('keys', { bandwidthLimit: 300_000 });
  const doneOf = ({ live }: MigrationStatus): number => live.find(({ imageId }) => imageId === 'vda')?.doneBytes ?? 0;
  return {
    lab,
    control,
    migrationId,
    known,
    arrived: async (more) =>
      doneOf(await lab.until(migrationId, `${more} bytes`, (status) => doneOf(status) > more, 90_000)),
    forgetAndJoinAgain: async () => {
      b.agent?.process.kill('SIGKILL');
      await b.agent?.ended;
      control.forget(b.hostId);
      b = { ...b, args: await joining('b') };
      lab.startAgent(b);
      await until(60_000, 'b has joined again', () => known() !== undefined);
    },
    arrives: async () => {
      await lab.orchestrator.setBandwidthLimit(migrationId, 0);
      expect(await lab.result(migrationId)).toMatchObject({ outcome: 'completed', path: 'dwcp' });
      expect(lab.hashesOnB('keys')).toEqual(hashes);
    },
  };
}

test('the destination has a new key and joins again: the source learns it by a new warrant, without an operator', async () => {
  const { lab, known, arrived, forgetAndJoinAgain, arrives } = await moving('source elsewhere');
  const before = await arrived(1024 * 1024);
  const former = known();
  for (const name of ['host.key', 'host.pem']) rmSync(join(lab.b.dataDir, name));
  await forgetAndJoinAgain();
  expect(known()).not.toBe(former);
  await arrived(before + 65_536);
  await arrives();
});

test('the destination is revoked: the migration waits, and goes on behind a retry once it has joined again', async () => {
  const { lab, control, migrationId, arrived, forgetAndJoinAgain, arrives } = await moving(
    'source beside the control plane',
  );
  const before = await arrived(1024 * 1024);
  control.revoke(lab.b.hostId);
  const waits = (): Promise<MigrationStatus> =>
    lab.until(migrationId, 'parking', ({ progress }) => progress?.parked?.error.code === 'PEER_UNTRUSTED');
  await waits();
  await lab.orchestrator.retryMigration(migrationId);
  await waits();
  await forgetAndJoinAgain();
  await lab.orchestrator.retryMigration(migrationId);
  await arrived(before);
  await arrives();
});

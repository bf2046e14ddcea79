/**
 * What a closed migration has left, settled for the one who needs the VM: also while a sweep hangs that looked before it was
 * closed. Temporal's answers are forced: the real server cannot be made to give one late.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Client, WorkflowNotFoundError } from '@temporalio/client';
import { Sweeper } from '../../src/agent/sweeper';
import { createLogger } from '../../src/telemetry/logger';
import { temporaryFolder, writeImage } from '../helpers/data';
import { startHost, type TestHost } from '../helpers/hosts';
import { until } from '../helpers/waiting';

/** A host with two VMs, each in the hands of a migration of its own; the sweep's question for the first is answered by `answer`. */
async function claimed(answer: (asked: string) => Promise<unknown>): Promise<{ host: TestHost; sweeper: Sweeper }> {
  const folder = temporaryFolder();
  mkdirSync(join(folder, 'vms'));
  const host = await startHost('a', join(folder, 'a'));
  for (const vmId of ['vm-1', 'vm-2']) {
    const path = join(folder, 'vms', `${vmId}.img`);
    writeImage(path, 65_536, 1);
    await host.registry.put({
      vmId,
      images: [{ imageId: 'vda', kind: 'disk', path }],
      presence: 'here',
      generation: 0,
    });
    await host.sourceOwnership.claim(vmId, `m-${vmId}`);
  }
  const client = { workflow: { getHandle: (id: string) => ({ describe: () => answer(id) }) } } as unknown as Client;
  const sweeper = new Sweeper({
    host,
    sources: host.sources,
    ownership: host.sourceOwnership,
    client,
    log: createLogger('test', false).child({}, { level: 'silent' }),
  });
  return { host, sweeper };
}

const closed = (id: string): Promise<never> => Promise.reject(new WorkflowNotFoundError('not found', id, undefined));

test('a VM is settled at once where a sweep that looked earlier still waits for an answer', async () => {
  const asked: string[] = [];
  let answer = (): void => undefined;
  const late = new Promise<void>((resolve) => (answer = resolve));
  const { host, sweeper } = await claimed(async (id) => {
    asked.push(id);
    if (asked.length === 1) await late;
    return closed(id);
  });
  const sweep = sweeper.sweep();
  await until(5_000, 'the sweep has asked', () => asked.length === 1);
  await sweeper.settle('vm-1');
  expect((await host.ownership.last('vm-1'))?.state).toBe('rolled_back');
  expect((await host.sourceOwnership.claim('vm-1', 'm-next')).fence).toBe(2);
  answer();
  await sweep;
  // The late answer of the one before takes nothing from the next.
  expect(await host.ownership.last('vm-1')).toMatchObject({ migrationId: 'm-next', state: 'claimed' });
});

test('of the other VMs nothing is asked', async () => {
  const asked: string[] = [];
  const { host, sweeper } = await claimed((id) => {
    asked.push(id);
    return closed(id);
  });
  await sweeper.settle('vm-2');
  expect(asked).toEqual(['migrate-vm:vm-2']);
  expect((await host.ownership.last('vm-1'))?.state).toBe('claimed');
});

/** With payloadKeyFile Temporal keeps nothing that it can read but names and search attributes; without the key a worker says so. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { temporal } from '@temporalio/proto';
import { createOrchestrator } from '../../src/control/orchestrator';
import { temporaryFolder } from '../helpers/data';
import { Lab } from '../helpers/lab';

function keyFile(...keys: readonly string[]): string {
  const path = join(temporaryFolder(), 'payload-keys');
  writeFileSync(path, keys.join('\n'), { mode: 0o600 });
  return path;
}

const KEY = 'c5'.repeat(32);

/** All that the server has of a workflow, as it keeps it. */
async function historyOf(lab: Lab, workflowId: string): Promise<temporal.api.history.v1.IHistoryEvent[]> {
  const events: temporal.api.history.v1.IHistoryEvent[] = [];
  let nextPageToken: Uint8Array | undefined;
  do {
    const page = await lab.client.workflowService.getWorkflowExecutionHistory({
      namespace: 'default',
      execution: { workflowId },
      ...(nextPageToken && { nextPageToken }),
    });
    events.push(...(page.history?.events ?? []));
    nextPageToken = page.nextPageToken;
  } while (nextPageToken.length > 0);
  return events;
}

function walk(value: unknown, seen: (key: string, value: Readonly<Record<string, unknown>>) => void, key = ''): void {
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return;
  seen(key, value as Record<string, unknown>);
  for (const [name, inner] of Object.entries(value)) if (name !== 'searchAttributes') walk(inner, seen, name);
}

/** What of a history is a payload in the clear, and what text its failures have. */
function plainIn(events: readonly unknown[]): { payloads: string[]; failures: string[]; encrypted: number } {
  const found = { payloads: [] as string[], failures: [] as string[], encrypted: 0 };
  walk(events, (key, value) => {
    const metadata = value.metadata as Readonly<Record<string, Uint8Array>> | undefined;
    if (metadata?.encoding instanceof Uint8Array) {
      const encoding = Buffer.from(metadata.encoding).toString();
      if (encoding === 'binary/encrypted') found.encrypted += 1;
      else found.payloads.push(`${key}: ${encoding} ${Buffer.from((value.data as Uint8Array) ?? []).toString()}`);
    }
    if (/^(failure|cause)$/.test(key)) found.failures.push(`${String(value.message)} ${String(value.stackTrace)}`);
  });
  return found;
}

test('nothing of a migration lies in Temporal in the clear, its failure neither, and a client with a later key reads both', async () => {
  const payloadKeyFile = keyFile(KEY);
  const lab = await Lab.start({ own: true, payloadKeyFile });
  const { hashes, disk } = await lab.defineVm('sealed', 24 * 1024 * 1024);
  const migrationId = await lab.migrate('sealed', { bandwidthLimit: 8e6 });
  await lab.untilShare(migrationId, 0.2);
  expect((await lab.result(migrationId)).outcome).toBe('completed');
  expect(lab.hashesOnB('sealed')).toEqual(hashes);
  await expect(lab.result(await lab.migrate('unheard-of'))).rejects.toMatchObject({ code: 'VM_UNKNOWN' });

  for (const workflowId of ['migrate-vm:sealed', 'migrate-vm:unheard-of']) {
    const events = await historyOf(lab, workflowId);
    const { payloads, failures, encrypted } = plainIn(events);
    // The name of a patch is the SDK's own, in a marker.
    expect(payloads.filter((text) => !text.endsWith('{"id":"warrants","deprecated":false}'))).toEqual([]);
    expect(encrypted).toBeGreaterThan(3);
    for (const failure of failures)
      expect(failure).toMatch(/^(Encoded failure|activity error|Activity task failed) *$/i);
    if (workflowId.endsWith('unheard-of')) expect(failures.length).toBeGreaterThan(1);
    const kept = Buffer.concat(
      events.map((event) => Buffer.from(temporal.api.history.v1.HistoryEvent.encode(event).finish())),
    );
    expect(kept.includes(disk)).toBe(false);
  }

  const rotated = keyFile('d6'.repeat(32), KEY);
  const before = process.env.TEMPORAL_ADDRESS;
  process.env.TEMPORAL_ADDRESS = lab.address;
  try {
    const later = await createOrchestrator({ payloadKeyFile: rotated });
    expect((await later.getMigrationStatus(migrationId)).result?.outcome).toBe('completed');
    await later.close();
    const without = await createOrchestrator();
    await expect(without.getMigrationStatus(migrationId)).rejects.toMatchObject({ code: 'PAYLOAD_UNREADABLE' });
    await without.close();
  } finally {
    if (before === undefined) delete process.env.TEMPORAL_ADDRESS;
    else process.env.TEMPORAL_ADDRESS = before;
  }
}, 240_000);

test('an agent without the key says so in one line, and its migration waits for an operator', async () => {
  const lab = await Lab.start({ own: true, payloadKeyFile: keyFile(KEY), bArgs: ['--payload-key-file', ''] });
  await lab.defineVm('one-sided', 4 * 1024 * 1024);
  const migrationId = await lab.migrate('one-sided');
  const { progress } = await lab.until(migrationId, 'parking', (status) => status.progress?.parked !== undefined);
  expect(progress?.parked).toMatchObject({ error: { code: 'PAYLOAD_UNREADABLE' } });
  const log = lab.logs().find(({ name }) => name.startsWith(lab.b.hostId));
  const lines = (log?.text ?? '').split('\n').filter((line) => line.includes('PAYLOAD_UNREADABLE'));
  expect(lines).toHaveLength(1);
  expect(JSON.parse(lines[0]!)).toMatchObject({ code: 'PAYLOAD_UNREADABLE', msg: 'a payload cannot be read' });
  await lab.orchestrator.abortMigration(migrationId);
  await expect(lab.result(migrationId)).rejects.toMatchObject({ code: 'CANCELLED' });
}, 120_000);

/**
 * The flow on a real server with real agents: what operators and programs see of it.
 */
import { hasCode } from '../../src/model/errors';
import { changeImage, sha256 } from '../helpers/data';
import { Lab, sharedLab } from '../helpers/lab';
import { HELD_PHASES, heldIn } from '../helpers/stepping';
import { until } from '../helpers/waiting';

const SIZE = 16 * 1024 * 1024;

const shared = sharedLab();
const withoutDwcp = sharedLab({ bArgs: ['--accept-dwcp', 'false'] });

describe('migrateVm', () => {
  it('moves a VM, says every node by name, and moves it back for next to nothing', async () => {
    const lab = await shared();
    const { hashes, disk } = await lab.defineVm('round-trip', SIZE);
    const id = await lab.migrate('round-trip');
    const result = await lab.result(id);
    expect(result).toMatchObject({
      outcome: 'completed',
      path: 'dwcp',
      tier: 'local',
      images: [
        { imageId: 'vda', verified: true },
        { imageId: 'memory', verified: true },
      ],
    });
    expect(lab.hashesOnB('round-trip')).toEqual(hashes);
    const history = await lab.client.workflow.getHandle('migrate-vm:round-trip').fetchHistory();
    const activities = (history.events ?? []).flatMap(
      (event) => event.activityTaskScheduledEventAttributes?.activityType?.name ?? [],
    );
    expect(activities).toEqual([
      'authorise',
      'prepareSource',
      'authorise',
      'prepareDestination',
      'establishStreams',
      'detectTier',
      'checkBaseline',
      'checkBaseline',
      'computePlan',
      'transferImage',
      'transferImage',
      'switchover',
      'recordOutcome',
    ]);
    expect((history.events ?? []).length).toBeLessThan(120);
    const back = await lab.result(await lab.orchestrator.migrateVm('round-trip', lab.b.hostId, lab.a.hostId));
    expect(back.linkBytes).toBeLessThan(SIZE * 0.002);
    expect(sha256(disk)).toBe(hashes[0]);
    await lab.untilClean();
  });

  it('refuses a second migration of the same VM at the same time, and answers the same request again as the first time', async () => {
    const lab = await shared();
    await lab.defineVm('twice', SIZE);
    const id = await lab.migrate('twice', { bandwidthLimit: 2e6, migrationId: 'the-same' });
    await expect(lab.migrate('twice')).rejects.toMatchObject({ code: 'MIGRATION_IN_PROGRESS' });
    expect(await lab.migrate('twice', { migrationId: 'the-same' })).toBe(id);
    await lab.orchestrator.cancelMigration(id);
    await expect(lab.result(id)).rejects.toMatchObject({ code: 'CANCELLED' });
  });

  it('takes the standard transfer from the start where DWCP is off, and verifies it as strictly', async () => {
    const lab = await shared();
    const { hashes } = await lab.defineVm('standard', SIZE);
    const result = await lab.result(await lab.migrate('standard', { enableDwcp: false }));
    expect(result).toMatchObject({ path: 'standard', images: [{ streams: 1, verified: true }, { streams: 1 }] });
    expect(lab.hashesOnB('standard')).toEqual(hashes);
    await lab.untilClean();
  });

  it('falls back to the standard transfer when the destination refuses DWCP’s hello, and says why', async () => {
    const lab = await withoutDwcp();
    const { hashes } = await lab.defineVm('fallback', SIZE);
    const result = await lab.result(await lab.migrate('fallback'));
    expect(result).toMatchObject({ path: 'fallback', fallbackReason: { code: 'HELLO_REFUSED' } });
    expect(lab.hashesOnB('fallback')).toEqual(hashes);
    const metrics = await lab.orchestrator.getMetrics();
    expect(metrics.fallback_rate).toBeGreaterThan(0);
    expect(metrics.fallback_reasons.HELLO_REFUSED).toBeGreaterThan(0);
  });

  it('fails with the reason, VM where it was, where fallback is off', async () => {
    const lab = await withoutDwcp();
    const { hashes, disk } = await lab.defineVm('no-fallback', SIZE);
    await expect(lab.result(await lab.migrate('no-fallback', { enableFallback: false }))).rejects.toMatchObject({
      code: 'HELLO_REFUSED',
    });
    expect(sha256(disk)).toBe(hashes[0]);
    await lab.untilClean();
    const retry = await lab.migrate('no-fallback', { enableDwcp: false });
    expect((await lab.result(retry)).outcome).toBe('completed');
  });

  it('names what is wrong with a request, before any host is asked', async () => {
    const lab = await shared();
    await expect(lab.migrate('no such name!')).rejects.toMatchObject({ code: 'INVALID_INPUT' });
    await expect(lab.migrate('x', { minStreams: 300 })).rejects.toMatchObject({ code: 'INVALID_INPUT' });
    await expect(lab.result(await lab.migrate('unknown-vm'))).rejects.toMatchObject({
      code: 'VM_UNKNOWN',
      side: 'source',
    });
    const handle = await lab.client.workflow.start('migrateVm', {
      workflowId: 'migrate-vm:from-go',
      taskQueue: 'dwcp.control',
      args: [{ vmId: 'from-go', options: { speed: 3 } }],
    });
    await expect(handle.result()).rejects.toMatchObject({ cause: { type: 'INVALID_INPUT' } });
  });

  it('takes a new bandwidth limit while it runs', async () => {
    const lab = await shared();
    const { hashes } = await lab.defineVm('limit', SIZE);
    // At this rate it would take longer than the test may.
    const id = await lab.migrate('limit', { bandwidthLimit: 2e4 });
    await lab.until(id, 'a transfer', ({ live }) => live.length > 0);
    await lab.orchestrator.setBandwidthLimit(id, 0);
    await lab.result(id);
    expect(lab.hashesOnB('limit')).toEqual(hashes);
    await expect(lab.orchestrator.setBandwidthLimit(id, 1)).rejects.toThrow('has ended');
  });

  it('refuses whatever is asked of a migration that has ended by one code', async () => {
    const lab = await shared();
    await lab.defineVm('ended', 1024 * 1024);
    const id = await lab.migrate('ended');
    await lab.result(id);
    const { orchestrator } = lab;
    for (const ask of [
      () => orchestrator.cancelMigration(id),
      () => orchestrator.setBandwidthLimit(id, 1),
      () => orchestrator.retryMigration(id),
      () => orchestrator.abortMigration(id),
    ])
      await expect(ask()).rejects.toMatchObject({
        code: 'MIGRATION_UNKNOWN',
        message: expect.stringContaining('has ended') as string,
      });
  });

  it('shows its phase, progress and plan to whoever asks', async () => {
    const lab = await shared();
    await lab.defineVm('progress', SIZE);
    const id = await lab.migrate('progress', { bandwidthLimit: 2e6 });
    const status = await lab.until(id, 'half', ({ live }) =>
      live.some((image) => image.doneBytes > image.totalBytes / 2),
    );
    expect(status.progress).toMatchObject({
      phase: 'transfer',
      tier: 'local',
      pastReturn: false,
      plan: { images: [{ imageId: 'vda' }, { imageId: 'memory' }] },
    });
    expect(status.live[0]).toMatchObject({ imageId: 'vda', streams: expect.any(Number) as number });
    expect(JSON.stringify(status.live[0]).length).toBeLessThan(2048);
    const { typedSearchAttributes } = await lab.client.workflow.getHandle('migrate-vm:progress').describe();
    const attributes = Object.fromEntries(typedSearchAttributes.getAll().map((pair) => [pair.key.name, pair.value]));
    expect(attributes).toMatchObject({
      VmId: 'progress',
      MigrationPhase: 'transfer',
      NeedsOperator: false,
      SourceHost: lab.a.hostId,
    });
    await lab.result(id);
  });
});

describe('cancel', () => {
  it.each(HELD_PHASES)('in phase %s rolls back: VM at the source, what had arrived kept as baseline', async (phase) => {
    const lab = await shared();
    const vmId = `cancel-${phase.replaceAll('_', '-')}`;
    const { hashes, disk } = await lab.defineVm(vmId, SIZE);
    const transfers = phase.endsWith('transfer');
    const { id, letGo } = await heldIn(lab, vmId, phase, {
      bandwidthLimit: 2e6,
      enableDwcp: phase !== 'standard_transfer',
    });
    try {
      if (transfers) {
        letGo();
        await lab.untilShare(id, 0.3);
      }
      expect((await lab.orchestrator.getMigrationStatus(id)).progress?.phase).toBe(phase);
      await lab.orchestrator.cancelMigration(id);
    } finally {
      letGo();
    }
    await expect(lab.result(id)).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(sha256(disk)).toBe(hashes[0]);
    await lab.untilClean();
    const again = await lab.result(await lab.migrate(vmId));
    if (transfers) expect(again.images[0]!.began).toBe('baseline');
    expect(lab.hashesOnB(vmId)).toEqual(hashes);
  });

  it('while the link is away and streams are being established does the same', async () => {
    const lab = await Lab.start({ bArgs: ['--advertise-address', '127.0.0.2'] });
    const { hashes, disk } = await lab.defineVm('cancel-no-link', SIZE);
    const id = await lab.migrate('cancel-no-link');
    await until(30_000, 'an attempt at the link', async () => {
      const { raw } = await lab.client.workflow.getHandle('migrate-vm:cancel-no-link').describe();
      return (raw.pendingActivities ?? []).some(
        ({ activityId, lastHeartbeatTime }) => activityId === 'establish-streams' && lastHeartbeatTime,
      );
    });
    await lab.orchestrator.cancelMigration(id);
    await expect(lab.result(id)).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(sha256(disk)).toBe(hashes[0]);
    await lab.untilClean();
  });

  it('by Temporal’s own cancel does the same', async () => {
    const lab = await shared();
    const { hashes, disk } = await lab.defineVm('native-cancel', SIZE);
    const id = await lab.migrate('native-cancel', { bandwidthLimit: 2e6 });
    await lab.untilShare(id, 0.3);
    await lab.client.workflow.getHandle('migrate-vm:native-cancel').cancel();
    const error: unknown = await lab.result(id).catch((reason: unknown) => reason);
    expect(hasCode(error, 'CANCELLED')).toBe(true);
    expect(sha256(disk)).toBe(hashes[0]);
    await lab.untilClean();
  });
});

describe('operators', () => {
  it('terminate: the agents sweep up by themselves, and the VM can move again', async () => {
    const lab = await shared();
    const { hashes, disk } = await lab.defineVm('terminated', SIZE);
    const id = await lab.migrate('terminated', { bandwidthLimit: 2e6 });
    await lab.untilShare(id, 0.3);
    await lab.client.workflow.getHandle('migrate-vm:terminated').terminate('by the test');
    await lab.untilClean();
    expect(sha256(disk)).toBe(hashes[0]);
    const again = await lab.result(await lab.migrate('terminated'));
    expect(again.images[0]!.began).toBe('baseline');
    expect(lab.hashesOnB('terminated')).toEqual(hashes);
  });

  it('terminate and start again at once: the new one need not wait for the next sweep', async () => {
    const lab = await Lab.start({ agentArgs: ['--sweep-interval', '10min'] });
    const { hashes } = await lab.defineVm('restarted', SIZE);
    const id = await lab.migrate('restarted', { bandwidthLimit: 2e6 });
    await lab.untilShare(id, 0.3);
    await lab.client.workflow.getHandle('migrate-vm:restarted').terminate('by the test');
    await lab.result(await lab.migrate('restarted'));
    expect(lab.hashesOnB('restarted')).toEqual(hashes);
  });

  it('reset to an earlier event: every step gives its answer again, the VM moves once', async () => {
    const lab = await shared();
    const { hashes } = await lab.defineVm('reset', SIZE);
    const id = await lab.migrate('reset', { bandwidthLimit: 2e6 });
    await lab.untilShare(id, 0.4);
    const handle = lab.client.workflow.getHandle('migrate-vm:reset');
    const { events } = await handle.fetchHistory();
    const firstTask = (events ?? []).find((event) => event.workflowTaskCompletedEventAttributes);
    const { runId } = await handle.describe();
    await lab.client.workflowService.resetWorkflowExecution({
      namespace: 'default',
      workflowExecution: { workflowId: 'migrate-vm:reset', runId },
      workflowTaskFinishEventId: firstTask!.eventId!,
      requestId: 'reset-1',
      reason: 'test',
    });
    const result = (await lab.client.workflow.getHandle('migrate-vm:reset').result()) as { outcome: string };
    expect(result.outcome).toBe('completed');
    expect(lab.hashesOnB('reset')).toEqual(hashes);
    await lab.untilClean();
  });

  it('reset behind the point of no return: finds the VM moved, and says so', async () => {
    const lab = await shared();
    const { hashes } = await lab.defineVm('late-reset', SIZE);
    await lab.result(await lab.migrate('late-reset'));
    const handle = lab.client.workflow.getHandle('migrate-vm:late-reset');
    const { events } = await handle.fetchHistory();
    const firstTask = (events ?? []).find((event) => event.workflowTaskCompletedEventAttributes);
    const { runId } = await handle.describe();
    await lab.client.workflowService.resetWorkflowExecution({
      namespace: 'default',
      workflowExecution: { workflowId: 'migrate-vm:late-reset', runId },
      workflowTaskFinishEventId: firstTask!.eventId!,
      requestId: 'reset-2',
      reason: 'test',
    });
    const result = (await lab.client.workflow.getHandle('migrate-vm:late-reset').result()) as { outcome: string };
    expect(result.outcome).toBe('completed');
    expect(lab.hashesOnB('late-reset')).toEqual(hashes);
  });
});

describe('warm-up', () => {
  it('brings the baseline up to date while the VM stays, so that the move sends only what changed since', async () => {
    const lab = await shared();
    const { disk } = await lab.defineVm('warm', SIZE);
    const warm = await lab.result(await lab.orchestrator.warmBaseline('warm', lab.a.hostId, lab.b.hostId));
    expect(warm.images[0]!.began).toBe('empty');
    changeImage(disk, SIZE, 9);
    const content = sha256(disk);
    const moved = await lab.result(await lab.migrate('warm'));
    expect(moved.images[0]!.began).toBe('baseline');
    expect(moved.images[0]!.linkBytes).toBeLessThan(warm.images[0]!.linkBytes / 2);
    expect(lab.hashesOnB('warm')[0]).toBe(content);
    await lab.untilClean();
  });
});

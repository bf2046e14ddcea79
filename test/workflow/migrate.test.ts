/**
 * The flow on a real server with real agents: what operators and programs see of it.
 */
import { hasCode } from '../../src/model/errors';
import { MIGRATION_OPTIONS } from '../../src/model/options';
import { changeImage, sha256 } from '../helpers/data';
import { Lab, type LabHost, sharedLab } from '../helpers/lab';
import { Relay } from '../helpers/proxy';

const SIZE = 16 * 1024 * 1024;

const shared = sharedLab();
const withoutDwcp = sharedLab({ bArgs: ['--accept-dwcp', 'false'] });
const behindRelay = sharedLab({ bArgs: ['--advertise-address', '127.0.0.2'] });

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
      'prepareSource',
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
    const id = await lab.migrate('limit', { bandwidthLimit: 2e5 });
    await lab.until(id, 'a transfer', ({ live }) => live.length > 0);
    await lab.orchestrator.setBandwidthLimit(id, 0);
    await lab.result(id);
    expect(lab.hashesOnB('limit')).toEqual(hashes);
    await expect(lab.orchestrator.setBandwidthLimit(id, 1)).rejects.toBeDefined();
    expect(MIGRATION_OPTIONS.bandwidthLimit.min).toBe(0);
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
  /** What holds the flow in a phase until it is let go. */
  const HOLDS: Readonly<Record<string, (lab: Lab, relay: Relay) => Promise<() => Promise<void> | void>>> = {
    start: (lab) => frozen(lab.a),
    initialise_amst: (lab) => frozen(lab.b),
    establish_streams: async (_, relay) => {
      await relay.close();
      return () => relay.listen();
    },
    transfer: () => Promise.resolve(() => undefined),
    standard_transfer: () => Promise.resolve(() => undefined),
  };

  function frozen({ agent }: LabHost): Promise<() => void> {
    agent!.process.kill('SIGSTOP');
    return Promise.resolve(() => void agent!.process.kill('SIGCONT'));
  }

  it.each(Object.keys(HOLDS))(
    'in phase %s rolls back: VM at the source, what had arrived kept as baseline',
    async (phase) => {
      const lab = await behindRelay();
      const relay = new Relay({ host: '127.0.0.2', port: lab.b.port }, { host: '127.0.0.1', port: lab.b.port });
      await relay.listen();
      const vmId = `cancel-${phase.replaceAll('_', '-')}`;
      const { hashes, disk } = await lab.defineVm(vmId, SIZE);
      const letGo = await HOLDS[phase]!(lab, relay);
      const id = await lab.migrate(vmId, { bandwidthLimit: 2e6, enableDwcp: phase !== 'standard_transfer' });
      await lab.until(
        id,
        phase,
        ({ progress, live }) =>
          progress?.phase === phase &&
          (!phase.endsWith('transfer') || live.some((image) => image.doneBytes > 0.3 * image.totalBytes)),
      );
      await lab.orchestrator.cancelMigration(id);
      await letGo();
      await expect(lab.result(id)).rejects.toMatchObject({ code: 'CANCELLED' });
      expect(sha256(disk)).toBe(hashes[0]);
      await lab.untilClean();
      const again = await lab.result(await lab.migrate(vmId));
      if (phase.endsWith('transfer')) expect(again.images[0]!.began).toBe('baseline');
      expect(lab.hashesOnB(vmId)).toEqual(hashes);
    },
  );

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

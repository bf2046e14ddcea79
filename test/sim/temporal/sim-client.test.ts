/** What a client of the simulated Temporal is told, and that a workflow comes to its end whatever goes wrong, seed after seed. */
import { Lab } from './lab';

test('a client is told what a run is, by whom it is asked and whether it reaches Temporal', async () => {
  const lab = new Lab(76);
  const told: unknown[] = [];
  const host = lab.hosts.get('a')!;
  const { workflow } = lab.temporal.clientOf(host);
  const note = (promise: Promise<unknown>): void =>
    void promise.then(
      (value) => told.push(value),
      (error: unknown) => told.push(error),
    );
  note(workflow.getHandle('migrate-vm:other').describe());
  lab.migrate();
  await lab.closed();
  note(
    workflow
      .getHandle('migrate-vm:vm')
      .describe()
      .then(({ status, typedSearchAttributes }) => [
        status.name,
        typedSearchAttributes.getAll().find(({ key }) => key.name === 'MigrationId')?.value,
      ]),
  );
  note(workflow.getHandle('migrate-vm:vm').signal('request_cancel'));
  await lab.until(() => told.length === 3);
  lab.temporal.setReachable(host, false);
  note(workflow.getHandle('migrate-vm:vm').describe());
  await lab.until(() => told.length === 4);
  expect(told).toEqual(
    expect.arrayContaining([
      expect.objectContaining({ name: 'WorkflowNotFoundError', message: 'workflow not found' }),
      ['COMPLETED', 'm1'],
      expect.objectContaining({ name: 'WorkflowNotFoundError' }),
      expect.objectContaining({ message: expect.stringContaining('UNAVAILABLE') as string }),
    ]),
  );
});

test.each(Array.from({ length: 60 }, (_, seed) => seed + 1000))(
  'seed %d: whatever goes wrong, the workflow comes to an end',
  async (seed) => {
    const lab = new Lab(seed, { stallsPerHundred: 2 });
    const { faults, problems } = lab.temporal;
    faults.rate = 0.15;
    Object.assign(faults.budget, {
      heartbeatsLost: 2,
      lateResults: 2,
      lateCancels: 2,
      unreachable: 1,
      evictions: 4,
      lostTasks: 2,
      activityPauses: 1,
      activityResets: 2,
      terminations: seed % 2,
      resets: 2,
      cancels: 1,
    });
    lab.guest = seed % 3 === 0;
    lab.behaviours.set(
      lab.scheduler.pick(['transferImage', 'guestRounds', 'prepareDestination', 'switchover', 'guestSwitchover']),
      (attempt) => {
        if (lab.scheduler.random() < 0.3 && attempt < 5)
          lab.failing(
            lab.scheduler.pick([
              'PEER_UNREACHABLE',
              'GUEST_RUNS_ON',
              'DISK_FULL',
              'HANDOVER_IN_DOUBT',
              'ENCODER_FAILED',
              'GRANT_INVALID',
            ]),
          );
        return lab.wait('a', Math.floor(lab.scheduler.random() * 30_000));
      },
    );
    lab.migrate();
    const operator = (): void =>
      void lab.scheduler.post(
        undefined,
        'operator',
        () => {
          if (lab.run.parked) void lab.run.update('retry_step');
          operator();
        },
        30_000,
      );
    operator();
    await lab.closed();
    await lab.pass(400_000);
    await lab.closed();
    expect(problems).toEqual([]);
  },
);

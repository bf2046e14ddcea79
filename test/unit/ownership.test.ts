/** Who owns a VM: the tables, the journal that is never believed when something of it is missing, and what works one at a time. */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isAlive, killProcess, startTicksOf } from '../../src/hypervisor/qemu/process-table';
import {
  DESTINATION_EVENTS,
  DESTINATION_STATES,
  DESTINATION_TABLE,
  isRefused,
  SOURCE_EVENTS,
  SOURCE_STATES,
  SOURCE_TABLE,
} from '../../src/model/ownership-machine';
import { beginInstance, epochsOf } from '../../src/store/instance';
import { OwnershipJournal } from '../../src/store/ownership-journal';
import { SessionWork } from '../../src/sync/destination/session-work';
import { PauseBudget } from '../../src/sync/guest/guest-pause';
import { GuestPauses } from '../../src/sync/guest/guest-pauses';
import { temporaryFolder } from '../helpers/data';
import { describeWhere, needsProgram, needsRoot } from '../helpers/needs';

const write = (
  journal: OwnershipJournal,
  ...args: Parameters<Parameters<Parameters<OwnershipJournal['exclusively']>[1]>[0]['append']>
): Promise<unknown> => journal.exclusively('vm', (vm) => vm.append(...args));

describe('the tables of ownership', () => {
  it('let no source run what it has handed over, and lead back from there only with a promise', () => {
    const mayRun = SOURCE_STATES.filter((state) => SOURCE_TABLE[state].mayRun);
    expect(mayRun).toEqual(['claimed', 'rolling_back']);
    const leadsBack = SOURCE_EVENTS.filter((event) => {
      const step = SOURCE_TABLE.handed_over.on[event];
      return !isRefused(step) && SOURCE_TABLE[step.to].mayRun;
    });
    expect(leadsBack).toEqual(['roll_back_promised']);
    for (const state of ['releasing', 'released'] as const)
      for (const event of SOURCE_EVENTS) {
        const step = SOURCE_TABLE[state].on[event];
        expect(isRefused(step) || ['releasing', 'released'].includes(step.to)).toBe(true);
      }
  });

  it('keep a destination to its promise, and let it take in data while it is promised alone', () => {
    for (const state of ['abandoned', 'given_back'] as const)
      for (const event of DESTINATION_EVENTS) {
        const step = DESTINATION_TABLE[state].on[event];
        expect(isRefused(step) || step.to === state).toBe(true);
      }
    expect(DESTINATION_STATES.filter((state) => DESTINATION_TABLE[state].takesData)).toEqual(['promised']);
    expect(DESTINATION_STATES.filter((state) => DESTINATION_TABLE[state].mayRun)).toEqual(['mine']);
  });
});

describe('ownership journal', () => {
  it('remembers the last state of a VM and of each migration, and the highest fence', async () => {
    const journal = new OwnershipJournal(temporaryFolder());
    await write(journal, 'claimed', 'm1', 1);
    await write(journal, 'rolled_back', 'm1', 1);
    await write(journal, 'promised', 'm2', 5);
    expect((await journal.last('vm'))?.state).toBe('promised');
    expect((await journal.last('vm', 'm1'))?.state).toBe('rolled_back');
    expect(await journal.fence('vm')).toBe(5);
    expect(await journal.last('other')).toBeUndefined();
  });

  it('loses no line where many are written at once', async () => {
    const journal = new OwnershipJournal(temporaryFolder());
    await Promise.all(Array.from({ length: 20 }, (_, index) => write(journal, 'claimed', `m${index}`, index)));
    expect((await journal.entries('vm')).map(({ migrationId }) => migrationId)).toEqual(
      Array.from({ length: 20 }, (_, index) => `m${index}`),
    );
  });

  it('is an error, not an empty past, where it is cut off at whatever byte, damaged, or gone', async () => {
    const folder = temporaryFolder();
    const journal = new OwnershipJournal(folder);
    await write(journal, 'claimed', 'm1', 1);
    await write(journal, 'handed_over', 'm1', 1);
    const path = join(folder, 'ownership', 'vm.journal');
    const whole = readFileSync(path);
    // The line feed at its end says nothing.
    for (let length = 0; length < whole.length - 1; length += 7) {
      writeFileSync(path, whole.subarray(0, length));
      await expect(journal.last('vm')).rejects.toMatchObject({ code: 'JOURNAL_CORRUPT' });
    }
    // Whole lines are missing at the end: the checks of those that are left still hold.
    writeFileSync(path, `${whole.toString('utf8').split('\n')[0] ?? ''}\n`);
    await expect(journal.last('vm')).rejects.toMatchObject({ code: 'JOURNAL_CORRUPT' });
    writeFileSync(path, whole.toString('utf8').replace('handed_over', 'rolled_back'));
    await expect(journal.last('vm')).rejects.toMatchObject({ code: 'JOURNAL_CORRUPT' });
    rmSync(path);
    await expect(journal.last('vm')).rejects.toMatchObject({ code: 'JOURNAL_CORRUPT' });
  });

  it('keeps what was handed over until another migration writes', async () => {
    const journal = new OwnershipJournal(temporaryFolder());
    const handOver = {
      destinationHost: 'b',
      destination: {
        hostId: 'b',
        address: 'x',
        port: 1,
        grant: { purpose: 'session' as const, subject: 'm1', holder: 'a', expiresAtMs: 1, token: 't' },
      },
      roots: { vda: 'r' },
    };
    await write(journal, 'claimed', 'm1', 1, { workflowId: 'w' });
    await write(journal, 'handed_over', 'm1', 1, { handOver });
    await write(journal, 'releasing', 'm1', 1);
    expect(await journal.handOver('vm', 'm1')).toEqual(handOver);
    expect(await journal.workflowOf('vm', 'm1')).toBe('w');
    await write(journal, 'released', 'm1', 1);
    await write(journal, 'promised', 'm2', 2);
    expect(await journal.handOver('vm', 'm1')).toBeUndefined();
  });

  it('lets a promise about a migration that has never been here hide nothing of the one that is', async () => {
    const folder = temporaryFolder();
    const journal = new OwnershipJournal(folder);
    const handOver = {
      destinationHost: 'b',
      destination: {
        hostId: 'b',
        address: 'x',
        port: 1,
        grant: { purpose: 'session' as const, subject: 'm1', holder: 'a', expiresAtMs: 1, token: 't' },
      },
      roots: {},
    };
    await write(journal, 'claimed', 'm1', 1);
    await write(journal, 'handed_over', 'm1', 1, { handOver });
    await write(journal, 'abandoned', 'm2', 7);
    expect((await journal.last('vm'))?.state).toBe('handed_over');
    expect((await journal.last('vm', 'm2'))?.state).toBe('abandoned');
    expect(await journal.fence('vm')).toBe(1);
    expect(await journal.handOver('vm', 'm1')).toEqual(handOver);
    expect(readdirSync(join(folder, 'ownership')).filter((name) => name.includes('spare'))).not.toEqual([]);
    await write(journal, 'promised', 'm3', 3);
    await write(journal, 'abandoned', 'm3', 3);
    expect((await journal.last('vm'))?.migrationId).toBe('m3');
  });

  it('leaves no space set aside once a migration is over', async () => {
    const folder = temporaryFolder();
    const journal = new OwnershipJournal(folder);
    await write(journal, 'claimed', 'm1', 1);
    const spares = (): string[] => readdirSync(join(folder, 'ownership')).filter((name) => name.includes('spare'));
    expect(spares()).toHaveLength(3);
    await write(journal, 'rolling_back', 'm1', 1);
    await write(journal, 'rolled_back', 'm1', 1);
    expect(spares()).toEqual([]);
  });
});

describeWhere([needsRoot(), needsProgram('mount', 'mount')])('ownership journal on a full disk', () => {
  it('writes what follows on a claim into the space that was set aside, and refuses the claim where there is none', async () => {
    const folder = temporaryFolder();
    const ownership = join(folder, 'ownership');
    mkdirSync(ownership);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=600k', 'tmpfs', ownership]);
    try {
      const journal = new OwnershipJournal(folder);
      await write(journal, 'claimed', 'm1', 1);
      expect(() => writeFileSync(join(ownership, 'filler'), Buffer.alloc(1024 * 1024))).toThrow('ENOSPC');
      for (const state of ['handed_over', 'rolling_back', 'rolled_back'] as const) await write(journal, state, 'm1', 1);
      expect((await journal.last('vm'))?.state).toBe('rolled_back');
      expect(() => writeFileSync(join(ownership, 'more'), Buffer.alloc(1024 * 1024))).toThrow('ENOSPC');
      await expect(write(journal, 'claimed', 'm2', 2)).rejects.toMatchObject({ code: 'ENOSPC' });
      expect((await journal.last('vm'))?.migrationId).toBe('m1');
    } finally {
      execFileSync('umount', ['-l', ownership]);
    }
  });
});

describe('one agent', () => {
  it('keeps its id with its folder, and numbers its sessions higher after each start', async () => {
    const folder = temporaryFolder();
    const first = await beginInstance(folder);
    const before = epochsOf(first);
    const numbers = [before(), before()];
    const second = await beginInstance(folder);
    expect(second.instanceId).toBe(first.instanceId);
    expect(epochsOf(second)()).toBeGreaterThan(numbers[1]!);
    expect(numbers[1]).toBeGreaterThan(numbers[0]!);
    expect((await beginInstance(temporaryFolder())).instanceId).not.toBe(first.instanceId);
  });
});

describe('a process', () => {
  it('is ended only where it is the one that was meant, not another with its number', async () => {
    const child = spawn('sleep', ['60']);
    const pid = child.pid!;
    const startTicks = startTicksOf(pid)!;
    killProcess({ pid, startTicks: startTicks - 1 });
    expect(isAlive({ pid, startTicks })).toBe(true);
    const ended = new Promise((resolve) => child.once('exit', resolve));
    killProcess({ pid, startTicks });
    await ended;
    expect(isAlive({ pid, startTicks })).toBe(false);
    expect(existsSync(`/proc/${pid}`)).toBe(false);
  });
});

describe('the pause of a guest', () => {
  const never = new Promise<never>(() => undefined);

  it('counts from its stop, however late that is heard of', async () => {
    const budget = new PauseBudget(1_000, new GuestPauses());
    budget.begin(Date.now() - 5_000);
    await expect(budget.within(never, new AbortController().signal)).rejects.toMatchObject({ code: 'REQUEST_TIMEOUT' });
  });

  it('ends at once where it is broken off, also before it is waited for', async () => {
    await expect(
      new PauseBudget(60_000, new GuestPauses()).within(never, AbortSignal.abort(new Error('stop'))),
    ).rejects.toMatchObject({
      message: 'stop',
    });
  });
});

describe('what an older attempt has under way', () => {
  it('has ended before a newer one begins, and nothing of it begins afterwards', async () => {
    const story: string[] = [];
    const older = new SessionWork(undefined);
    let finish: () => void = () => undefined;
    const running = older.run(async () => {
      await new Promise<void>((resolve) => (finish = resolve));
      story.push('older ended');
    });
    await Promise.resolve();
    const newer = new SessionWork(older);
    const next = newer.run(() => Promise.resolve(story.push('newer began')));
    expect(older.signal.aborted).toBe(true);
    await expect(older.run(() => Promise.resolve(story.push('too late')))).rejects.toMatchObject({
      code: 'SUPERSEDED',
    });
    finish();
    await Promise.all([running, next]);
    expect(story).toEqual(['older ended', 'newer began']);
  });
});

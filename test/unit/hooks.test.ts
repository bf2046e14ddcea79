/**
 * A host's hooks by themselves: real programs, in order, with what they are told, ended with all that they have started. Where in a
 * migration they run is test/system/hooks.test.ts's.
 */
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { HostHooks } from '../../src/agent/hooks';
import type { HookCall } from '../../src/model/hooks';
import { until } from '../../src/system/wait';
import { temporaryFolder } from '../helpers/data';
import { describeWhere, needsRoot } from '../helpers/needs';

const CALL: HookCall = { vmId: 'web-7', migrationId: 'm-1', side: 'source', happened: 'it is about to leave' };
const NEVER = new AbortController().signal;

let folder = '';
let lines: string[] = [];
let open: HostHooks[] = [];
beforeEach(() => {
  folder = temporaryFolder();
  lines = [];
});
afterEach(async () => {
  for (const hooks of open.splice(0)) await hooks.close();
});

const at = (name: string): string => join(folder, name);
const said = (name: string): string => (existsSync(at(name)) ? readFileSync(at(name), 'utf8') : '');

function host(withinMs = 20_000): HostHooks {
  const hooks = new HostHooks({
    ...{ hostId: 'zrh-12', dataDir: folder, folder: at('hooks'), withinMs },
    log: (_migrationId, line) => lines.push(line),
  });
  open = [...open, hooks];
  return hooks;
}

/** @param script of a shell; `$OUT` is where it writes what the test reads */
function hook(name: string, script: string, mode = 0o755): string {
  const path = join(at('hooks'), name);
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, `#!/bin/sh\nOUT=${folder}\n${script}\n`);
  chmodSync(path, mode);
  return path;
}

describe('hooks that are asked', () => {
  it('run in the order of their names, each with all of it on its stdin; what is no program is passed over', async () => {
    hook('prepare.d/20-second', 'echo second >> $OUT/ran');
    hook('prepare.d/10-first', 'cat > $OUT/told; echo first >> $OUT/ran; env > $OUT/env');
    hook('prepare.d/README', 'echo readme >> $OUT/ran', 0o644);
    hook('prepare.d/30-old.dpkg-old', 'echo old >> $OUT/ran');
    process.env.DWCP_SECRET_OF_THE_AGENT = 'x';
    const networks = [{ mac: '52:54:00:12:34:56', kind: 'tap', interface: 'tap7' }];
    await host().ask('prepare', { ...CALL, destinationHost: 'fra-03', fence: 3, networks }, NEVER);
    delete process.env.DWCP_SECRET_OF_THE_AGENT;
    expect(said('ran')).toBe('first\nsecond\n');
    expect(JSON.parse(said('told'))).toEqual({
      ...{ v: 1, event: 'prepare', vm: 'web-7', migration: 'm-1', side: 'source', host: 'zrh-12', attempt: 1 },
      ...{ destinationHost: 'fra-03', fence: 3, networks, happened: 'it is about to leave' },
    });
    expect(said('env')).not.toContain('DWCP_SECRET');
  });

  it('no folder, or an empty one, asks nobody', async () => {
    await host().ask('prepare', CALL, NEVER);
    mkdirSync(at('hooks'));
    await host().ask('before-pause', CALL, NEVER);
    expect(lines).toEqual([]);
  });

  it.each([
    [
      'says why on stderr',
      'echo "busy" ; echo "the window is closed until 22:00" >&2; exit 1',
      'the window is closed until 22:00',
    ],
    ['says why on stdout', 'echo "not now"; exit 3', 'not now'],
    ['says nothing', 'exit 7', 'it ended with 7'],
    ['cannot be started', 'exit 0', /failed to run command|No such file|exited|ended/],
  ])('one that %s: HOOK_VETO with its line, and those behind it are not run', async (what, script, words) => {
    const path = hook('before-pause.d/10-no', script);
    if (what === 'cannot be started') writeFileSync(path, '#!/no/such/interpreter\n');
    hook('before-pause.d/20-next', 'echo next > $OUT/ran');
    const failed = await host()
      .ask('before-pause', CALL, NEVER)
      .catch((error: unknown) => error);
    expect(failed).toMatchObject({ code: 'HOOK_VETO', side: 'source' });
    expect((failed as Error).message).toMatch(/^The hook before-pause\.d\/10-no of host zrh-12 says no: /);
    expect((failed as Error).message).toMatch(typeof words === 'string' ? new RegExp(`${words}$`) : words);
    expect(said('ran')).toBe('');
  });

  it('one that hangs is ended at its time, with all that it has started, and has said no', async () => {
    hook('prepare.d/10-hangs', 'sleep 1000 & echo $! > $OUT/child; echo $$ > $OUT/itself; wait');
    await expect(host(600).ask('prepare', CALL, NEVER)).rejects.toMatchObject({
      code: 'HOOK_VETO',
      message: expect.stringMatching(/10-hangs .* did not end within \d+ ms/) as string,
    });
    const pids = [said('child'), said('itself')].map((text) => Number(text));
    await until(() => pids.every((pid) => !isThere(pid)), { everyMs: 20, withinMs: 10_000 });
    expect(pids.map(isThere)).toEqual([false, false]);
  });

  it('one that has ended leaves nothing of its group, and holds nobody up by it', async () => {
    hook('prepare.d/10-leaves', 'sleep 1000 & echo $! > $OUT/child; exit 0');
    await host().ask('prepare', CALL, NEVER);
    const pid = Number(said('child'));
    expect(await until(() => !isThere(pid), { everyMs: 20, withinMs: 10_000 })).toBe(true);
  });

  it('one whose migration is cancelled ends', async () => {
    hook('prepare.d/10-waits', 'echo $$ > $OUT/itself; sleep 1000');
    const cancel = new AbortController();
    const asked = host().ask('prepare', CALL, cancel.signal);
    asked.catch(() => undefined);
    await until(() => said('itself') !== '', { everyMs: 10, withinMs: 20_000 });
    cancel.abort(new Error('cancelled'));
    await expect(asked).rejects.toThrow('cancelled');
    expect(await until(() => !isThere(Number(said('itself'))), { everyMs: 20, withinMs: 10_000 })).toBe(true);
  });

  it('a flood of output is read and not kept', async () => {
    hook('prepare.d/10-loud', 'head -c 3000000 /dev/zero | tr "\\0" x; echo; echo last');
    await host().ask('prepare', CALL, NEVER);
    expect(lines).toHaveLength(1);
    expect(lines[0]!.length).toBeLessThan(2_200);
  });

  it('each time it is asked again says so, also to the agent that comes after', async () => {
    hook('prepare.d/10-counts', 'cat >> $OUT/told');
    await host().ask('prepare', { ...CALL, destinationHost: 'fra-03' }, NEVER);
    await host().ask('prepare', CALL, NEVER);
    await host().ask('prepare', { ...CALL, migrationId: 'm-2' }, NEVER);
    const told = said('told')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { attempt: number; destinationHost?: string });
    expect(told.map(({ attempt }) => attempt)).toEqual([1, 2, 1]);
    expect(told.map(({ destinationHost }) => destinationHost)).toEqual(['fra-03', 'fra-03', undefined]);
  });
});

describeWhere([needsRoot()])('a hook that another user could have written', () => {
  it.each<[string, (path: string) => void, RegExp]>([
    ['is another’s', (path) => chownSync(path, 61_001, 61_001), /10-hook belongs to user 61001 \(chown root\)/],
    ['may be written by all', (path) => chmodSync(path, 0o757), /others may write .*10-hook \(chmod go-w\)/],
    [
      'may be written by a group',
      (path) => {
        chownSync(path, 0, 61_001);
        chmodSync(path, 0o775);
      },
      /others may write .*10-hook/,
    ],
    [
      'lies in a folder that all may write',
      (path) => chmodSync(join(path, '..'), 0o777),
      /others may write .*prepare\.d/,
    ],
    [
      'lies in a folder of another’s',
      (path) => chownSync(join(path, '..'), 61_001, 61_001),
      /prepare\.d belongs to user 61001/,
    ],
    [
      'lies below a folder of another’s',
      (path) => chownSync(join(path, '../..'), 61_001, 61_001),
      /hooks belongs to user 61001/,
    ],
  ])('%s: not run, and the migration is refused', async (_what, spoil, words) => {
    spoil(hook('prepare.d/10-hook', 'echo ran > $OUT/ran'));
    await expect(host().ask('prepare', CALL, NEVER)).rejects.toMatchObject({
      code: 'HOOK_VETO',
      message: expect.stringMatching(words) as string,
    });
    expect(said('ran')).toBe('');
  });

  it('a link is as good as what it leads to', async () => {
    const [ours, theirs] = [hook('lib/ours', 'echo ours >> $OUT/ran'), hook('lib/theirs', 'echo theirs >> $OUT/ran')];
    mkdirSync(join(at('hooks'), 'prepare.d'));
    symlinkSync(ours, join(at('hooks'), 'prepare.d/10-ours'));
    symlinkSync(theirs, join(at('hooks'), 'prepare.d/20-theirs'));
    chownSync(theirs, 61_001, 61_001);
    await expect(host().ask('prepare', CALL, NEVER)).rejects.toMatchObject({ code: 'HOOK_VETO' });
    expect(said('ran')).toBe('ours\n');
  });
});

describe('hooks that are told', () => {
  it('nothing waits for them, and what they say changes nothing; what is asked of the VM comes behind', async () => {
    hook('released.d/10-slow', 'sleep 0.3; cat > $OUT/told; echo released >> $OUT/ran; exit 1');
    hook('released.d/20-next', 'echo next >> $OUT/ran');
    hook('prepare.d/10-hook', 'echo prepare >> $OUT/ran');
    const hooks = host();
    hooks.tell('released', { ...CALL, happened: 'it is away', details: { note: 'n' } });
    expect(said('ran')).toBe('');
    await hooks.ask('prepare', { ...CALL, migrationId: 'm-2' }, NEVER);
    expect(said('ran')).toBe('released\nnext\nprepare\n');
    expect(JSON.parse(said('told'))).toMatchObject({
      event: 'released',
      happened: 'it is away',
      details: { note: 'n' },
    });
    expect(lines.join('\n')).toMatch(/released\.d\/10-slow: it ended with 1/);
  });

  it('what an agent could not tell to its end is told by the next', async () => {
    hook('rolled-back.d/10-hook', '[ -e $OUT/twice ] || { touch $OUT/twice; sleep 1000; }; cat > $OUT/told');
    const first = host();
    first.tell('rolled-back', CALL);
    await until(() => existsSync(at('twice')), { everyMs: 10, withinMs: 20_000 });
    await first.close();
    expect(said('told')).toBe('');
    const second = host();
    await second.tellAgain();
    await until(() => said('told') !== '', { everyMs: 10, withinMs: 20_000 });
    expect(JSON.parse(said('told'))).toMatchObject({ event: 'rolled-back', attempt: 2, vm: 'web-7' });
    await second.ask('prepare', CALL, NEVER);
    writeFileSync(at('told'), '');
    await host().tellAgain();
    await host().ask('prepare', CALL, NEVER);
    expect(said('told')).toBe('');
  });
});

function isThere(pid: number): boolean {
  try {
    // A dead one that nobody has waited for yet has no command line.
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8') !== '';
  } catch {
    return false;
  }
}

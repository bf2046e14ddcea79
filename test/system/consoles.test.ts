/**
 * Consoles and firmware of guests that move, on one machine, where every port and path of the source is taken: free ports and places of
 * the destination's are given and told, each is reached there, and the variables of a guest's firmware come along byte for byte.
 */
import { copyFileSync, existsSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { resultText } from '../../src/cli/follow';
import { whyTaken } from '../../src/hypervisor/qemu/host-ports';
import type { MigrationResult } from '../../src/model/migration';
import { VmRegistry } from '../../src/store/vm-registry';
import { until } from '../../src/system/wait';
import { sha256, writeImage } from '../helpers/data';
import { ask, expectCounting, isRunning, lookAt, rememberFolder } from '../helpers/guest-lab';
import { type Lab, type LabHost, sharedLab } from '../helpers/lab';
import { describeWhere } from '../helpers/needs';
import { buildCountingGuest, type CountingGuest, needsAssembler, needsQemu } from '../helpers/qemu';

const PAGES = 512;
const CODE = '/usr/share/seabios/bios-256k.bin';
/** As large as the variables of OVMF are: no whole number of blocks. */
const VARIABLES_BYTES = 528 * 1024;
const BASE = '-accel tcg -M q35 -m 64 -vga none -nic none'.split(' ');

describeWhere([needsQemu(), needsAssembler()])('a guest that others look at', () => {
  let guest: CountingGuest;
  const shared = sharedLab({ own: true, bArgs: ['--console-ports', '127.0.0.1:5900-6100'] });
  beforeAll(() => (guest = buildCountingGuest(PAGES, { idleTurns: 200 })));

  /** Defined and started as an operator does it. @param args of its command, by its folder */
  async function start(lab: Lab, vmId: string, args: (folder: string) => readonly string[]): Promise<void> {
    const folder = await define(lab, vmId, args);
    await dwcp(lab, ['vm', 'start', vmId, '--data-dir', lab.a.dataDir]);
    await counts(lab.a, vmId);
    expect(existsSync(folder)).toBe(true);
  }

  async function define(lab: Lab, vmId: string, args: (folder: string) => readonly string[]): Promise<string> {
    rememberFolder(lab.folder, lab.a.dataDir, lab.b.dataDir);
    const folder = lab.vmFolder(vmId);
    mkdirSync(folder, { recursive: true });
    copyFileSync(guest.image, join(folder, 'disk.img'));
    const disk = ['-drive', `file=${join(folder, 'disk.img')},format=raw,if=ide`];
    const command = ['qemu-system-x86_64', ...BASE, ...args(folder), ...disk];
    await dwcp(lab, ['vm', 'define', vmId, '--data-dir', lab.a.dataDir, '--', ...command]);
    return folder;
  }

  /** It boots, and then counts on. */
  async function counts(host: LabHost, vmId: string): Promise<void> {
    const begun = async (): Promise<boolean> => {
      const { counts: seen } = await lookAt(host, vmId, { pages: PAGES, writesDisk: false });
      return Math.min(...seen) > 0;
    };
    expect(await until(begun, { everyMs: 100, withinMs: 60_000 })).toBe(true);
    await expectCounting(host, vmId, PAGES, 1);
  }

  async function freeFrom(first: number): Promise<number> {
    for (let port = first; ; port += 1)
      if ((await whyTaken({ protocol: 'tcp', address: '127.0.0.1', port })) === undefined) return port;
  }

  function placesOf(result: MigrationResult): Record<string, string> {
    return Object.fromEntries((result.consoles ?? []).map(({ option, id, at }) => [id ?? option, at]));
  }

  test('on ports that its source has: it arrives on others, which are told, and lead to it; and back', async () => {
    const lab = await shared();
    const vnc = await freeFrom(5950);
    const [serial, telnet] = [await freeFrom(vnc + 1), await freeFrom(vnc + 20)];
    await start(lab, 'ports', () => [
      ...['-vnc', `127.0.0.1:${vnc - 5900}`, '-serial', `telnet:127.0.0.1:${serial},server=on,wait=off`],
      ...[
        '-chardev',
        `socket,id=t,host=127.0.0.1,port=${telnet},server=on,wait=off`,
        '-device',
        'isa-serial,chardev=t',
      ],
    ]);
    const result = await lab.result(await lab.migrate('ports'));
    expect(result.guest).toMatchObject({ responds: true });
    const there = placesOf(result);
    expect(Object.keys(there).sort()).toEqual(['serial', 't', 'vnc']);
    const ports = Object.values(there).map((at) => Number(/^127\.0\.0\.1:(\d+)$/.exec(at)?.[1]));
    expect(new Set([...ports, vnc, serial, telnet]).size).toBe(6);
    for (const port of ports) expect(port).toBeGreaterThanOrEqual(5900);
    expect(await firstBytes(there.vnc!)).toMatch(/^RFB 003/);
    expect(resultText(result)).toContain(
      `console there: vnc ${there.vnc} (display ${Number(there.vnc!.split(':')[1]) - 5900}; it was 127.0.0.1:${vnc - 5900})`,
    );
    await ask(lab.b, 'ports', async (qmp) => expect((await qmp.execute('query-status')).running).toBe(true));
    const back = placesOf(await lab.result(await lab.orchestrator.migrateVm('ports', lab.b.hostId, lab.a.hostId)));
    expect(await firstBytes(back.vnc!)).toMatch(/^RFB 003/);
    await expectCounting(lab.a, 'ports', PAGES, 2);
    await lab.untilClean();
  }, 180_000);

  test('by sockets and files of the source’s: each has a place of its own, waits for nobody, and is told', async () => {
    const lab = await shared();
    await start(lab, 'places', (folder) => {
      for (const name of ['serial', 'qga', 'only-here']) mkdirSync(join(folder, name));
      const at = (name: string): string => join(folder, name);
      return [
        ...[
          '-vnc',
          `unix:${at('web.vnc')}`,
          '-serial',
          `unix:${at('serial/sock')},server=on,wait=off,logfile=${at('only-here/s.log')}`,
        ],
        ...['-chardev', `socket,id=q,path=${at('qga/sock')},server=on,wait=off,logfile=${at('only-here/q.log')}`],
        ...['-chardev', `socket,id=m,path=${at('monitor.sock')},server=on,wait=off`],
        ...['-device', 'isa-serial,chardev=m', '-device', 'virtio-serial', '-device', 'virtserialport,chardev=q'],
      ];
    });
    const run = new VmRegistry(lab.b.dataDir).runFolder('places');
    const result = await lab.result(await lab.migrate('places'));
    expect(placesOf(result)).toEqual({
      ...{
        vnc: join(run, 'vnc.sock'),
        serial: join(run, 'sock'),
        q: join(run, '2-sock'),
        m: join(run, 'guest-monitor.sock'),
      },
    });
    for (const at of Object.values(placesOf(result))) expect(statSync(at).isSocket()).toBe(true);
    expect([existsSync(join(run, 's.log')), existsSync(join(run, 'q.log'))]).toEqual([true, true]);
    expect(await firstBytes(join(run, 'vnc.sock'))).toMatch(/^RFB 003/);
    await expectCounting(lab.b, 'places', PAGES, 2);
    await lab.untilClean();
  }, 180_000);

  test.each(['-serial mon:stdio -display none', '-nographic'])(
    'with %s: its console is written down there',
    async (words) => {
      const lab = await shared();
      const vmId = words.replace(/\W+/g, '-').slice(1);
      await define(lab, vmId, () => words.split(' '));
      const result = await lab.result(await lab.migrate(vmId));
      const at = join(new VmRegistry(lab.b.dataDir).runFolder(vmId), 'serial.log');
      expect(placesOf(result)).toEqual({ serial: at });
      await dwcp(lab, ['vm', 'start', vmId, '--data-dir', lab.b.dataDir]);
      await counts(lab.b, vmId);
      expect(existsSync(at)).toBe(true);
    },
    180_000,
  );

  test('that waits for somebody on its socket, and has no screen named: it starts where it has come to', async () => {
    const lab = await shared();
    await define(lab, 'waits', (folder) => ['-serial', `unix:${join(folder, 'x.sock')},server=on`]);
    await lab.result(await lab.migrate('waits'));
    await dwcp(lab, ['vm', 'start', 'waits', '--data-dir', lab.b.dataDir]);
    await counts(lab.b, 'waits');
  }, 180_000);

  function variablesAt(host: LabHost, vmId: string): Promise<string> {
    return new VmRegistry(host.dataDir).get(vmId).then(({ images }) => images[1]!.path);
  }

  const SHAPES: readonly (readonly [string, (variables: string) => string[]])[] = [
    [
      'drives',
      (variables) => [
        ...['-drive', `if=pflash,format=raw,unit=0,readonly=on,file=${CODE}`],
        ...['-drive', `if=pflash,format=raw,unit=1,file=${variables}`],
      ],
    ],
    [
      'nodes',
      (variables) => [
        ...['-machine', 'pflash0=code,pflash1=vars'],
        ...['-blockdev', `{"driver":"file","filename":"${CODE}","node-name":"code-file","auto-read-only":true}`],
        ...['-blockdev', '{"node-name":"code","read-only":true,"driver":"raw","file":"code-file"}'],
        ...['-blockdev', `{"driver":"file","filename":"${variables}","node-name":"vars-file","auto-read-only":true}`],
        ...['-blockdev', '{"node-name":"vars","read-only":false,"driver":"raw","file":"vars-file"}'],
      ],
    ],
  ];

  test.each(SHAPES)(
    'with variables of its firmware, as %s: they come byte for byte, running, and stopped on the way back',
    async (shape, args) => {
      const lab = await shared();
      const vmId = `firmware-${shape}`;
      let original = '';
      await start(lab, vmId, (folder) => {
        original = join(folder, 'VARS.fd');
        writeImage(original, VARIABLES_BYTES, 7);
        return ['-display', 'none', ...args(original)];
      });
      const hash = sha256(original);
      const images = (await new VmRegistry(lab.a.dataDir).get(vmId)).images.map(({ imageId, path }) => [imageId, path]);
      expect(images).toEqual([
        ['vda', expect.stringMatching(/disk\.img$/)],
        ['vdb', original],
      ]);
      const result = await lab.result(await lab.migrate(vmId));
      expect(result).toMatchObject({ path: 'dwcp', guest: { responds: true } });
      expect(result.images.find(({ imageId }) => imageId === 'vdb')).toMatchObject({
        totalBytes: VARIABLES_BYTES,
        verified: true,
      });
      await expectCounting(lab.b, vmId, PAGES, 2);
      const there = await variablesAt(lab.b, vmId);
      expect([sha256(there), statSync(there).size]).toEqual([hash, VARIABLES_BYTES]);
      const guestThere = (await new VmRegistry(lab.b.dataDir).get(vmId)).guest!;
      expect(guestThere.command.join(' ')).toContain(there);
      expect(guestThere.command.join(' ')).not.toContain(original);
      await dwcp(lab, ['vm', 'stop', vmId, '--now', '--data-dir', lab.b.dataDir]);
      await lab.result(await lab.orchestrator.migrateVm(vmId, lab.b.hostId, lab.a.hostId));
      expect(sha256(await variablesAt(lab.a, vmId))).toBe(hash);
      await dwcp(lab, ['vm', 'start', vmId, '--data-dir', lab.a.dataDir]);
      await counts(lab.a, vmId);
      expect(await isRunning(lab.b, vmId)).toBe(false);
      expect(await lab.result(await lab.migrate(vmId, { enableDwcp: false }))).toMatchObject({ path: 'standard' });
      expect(sha256(await variablesAt(lab.b, vmId))).toBe(hash);
      await lab.untilClean();
    },
    180_000,
  );
});

/** What a server says first. @param at `address:port`, or a socket's path */
function firstBytes(at: string): Promise<string> {
  const [, host, port] = /^([\d.]+):(\d+)$/.exec(at) ?? [];
  const socket = port === undefined ? connect(at) : connect(Number(port), host);
  return new Promise((resolve, reject) => {
    socket.once('data', (data) => {
      socket.destroy();
      resolve(data.toString('latin1'));
    });
    socket.once('error', reject);
    socket.setTimeout(20_000, () => socket.destroy(new Error(`nothing is said at ${at}`)));
  });
}

async function dwcp(lab: Lab, args: readonly string[]): Promise<void> {
  const child = lab.children.startDwcp(`vm-${args[1] ?? ''}`, args, {});
  if ((await child.ended) !== 0) throw new Error(`dwcp ${args.join(' ')}: ${readFileSync(child.logFile, 'utf8')}`);
}

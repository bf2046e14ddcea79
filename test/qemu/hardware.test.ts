/**
 * The machine of a running guest against the one that its command makes at the destination: what was plugged in or out is named before
 * anything is sent, and a machine that nobody has touched is never taken for another.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { GuestSetUp, InspectedGuest } from '../../src/hypervisor/contract';
import { HostDriver } from '../../src/hypervisor/host-driver';
import { startFedQemu } from '../../src/hypervisor/qemu/fed-qemu';
import { startGuestProcess } from '../../src/hypervisor/qemu/guest-process';
import { prepareGuest } from '../../src/hypervisor/qemu/prepare-guest';
import { QmpClient } from '../../src/hypervisor/qemu/qmp-client';
import type { QmpCommand } from '../../src/hypervisor/qemu/qmp-schemas';
import { runPlaces } from '../../src/hypervisor/qemu/run-places';
import { hardwareOf } from '../../src/hypervisor/qemu/running-hardware';
import type { GuestDevice } from '../../src/model/guest-hardware';
import { MIB } from '../../src/model/units';
import { temporaryFolder } from '../helpers/data';
import { AS_OWN, countingCommand, rememberFolder } from '../helpers/guest-lab';
import { describeWhere } from '../helpers/needs';
import { buildCountingGuest, needsAssembler, needsQemu } from '../helpers/qemu';

/** Monitor commands that a test says and the driver never does. */
type Said = readonly (readonly [command: string, parameters: Readonly<Record<string, unknown>>])[];

describeWhere([needsQemu(), needsAssembler()])('the machine of a running guest', () => {
  let [image, firmware] = ['', ''];
  beforeAll(() => {
    image = buildCountingGuest(64, { idleTurns: 200 }).image;
    firmware = temporaryFolder();
  });

  /** @param said by its operator, to the running guest */
  async function inspected(command: (disk: string) => string[], said: Said = []) {
    const folder = temporaryFolder();
    rememberFolder(folder);
    const [run, disk] = [join(folder, 'a'), join(folder, 'disk.img')];
    mkdirSync(run);
    copyFileSync(image, disk);
    const { qmp, places } = await startGuestProcess(command(disk), run, AS_OWN);
    qmp.close();
    await say(runPlaces(run).monitorPath, said);
    const driver = new HostDriver(() => run, AS_OWN.policy);
    const images = [{ imageId: 'vda', kind: 'disk' as const, path: disk }];
    const guest = await driver.inspectGuest(
      'vm',
      { command: command(disk), qmpPath: places.qmpPath },
      images.map((one) => ({ ...one, sizeBytes: statSync(disk).size })),
      false,
    );
    return { guest, folder };
  }

  async function say(path: string, said: Said): Promise<void> {
    const monitor = await QmpClient.connect(path);
    for (const [command, parameters] of said) {
      const gone = command === 'device_del' && monitor.event('', ({ name }) => name === 'DEVICE_DELETED', 20_000);
      // None of the driver's own: what they give is not looked at.
      await monitor.execute(command as QmpCommand, parameters).catch((error: unknown) => {
        if (!String(error).includes('malformed') && !(error instanceof TypeError)) throw error;
      });
      await gone;
    }
    monitor.close();
  }

  interface How {
    readonly force?: boolean;
    readonly qemuFolder?: string;
  }

  async function prepared({ spec }: InspectedGuest, folder: string, { force = false, qemuFolder = '' }: How = {}) {
    const [runFolder, disk] = [join(folder, 'b'), join(folder, 'there.img')];
    mkdirSync(runFolder, { recursive: true });
    copyFileSync(image, disk);
    const policy = { qemuFolder, folders: [folder, firmware], networks: [] };
    const images = [{ imageId: 'vda', kind: 'disk' as const, path: disk }];
    const { guest } = await prepareGuest({ ...spec, needsFiles: [] }, { vmId: 'vm', images, runFolder, policy }, force);
    return { ...guest, runFolder, rules: { ...AS_OWN, policy } };
  }

  /** As its destination does before anything is sent. */
  async function rehearsed(guest: InspectedGuest, folder: string, how?: How): Promise<void> {
    const { prefix, sectionId } = guest.spec.setUp!;
    const setUp: GuestSetUp = { prefix: Buffer.from(prefix, 'base64'), sectionId };
    (await startFedQemu(await prepared(guest, folder, how), setUp, () => undefined)).qmp.close();
  }

  const q35 =
    (...more: readonly string[]) =>
    (disk: string) => [...countingCommand(disk), ...more];
  const hotPlug = ['-device', 'pcie-root-port,id=rp1,chassis=1', '-device', 'pcie-root-port,id=rp2,chassis=2'];
  const plugsNic: Said = [
    ['netdev_add', { type: 'user', id: 'n1' }],
    ['device_add', { driver: 'virtio-net-pci', netdev: 'n1', id: 'nic1', bus: 'rp2' }],
  ];

  test.each<[string, (disk: string) => string[], Said, RegExp]>([
    [
      'a NIC plugged in on a network of its own making',
      q35(...hotPlug),
      [['netdev_add', { type: 'user', id: 'n1', net: '192.168.9.0/24' }], plugsNic[1]!],
      /device nic1 \(virtio-net-pci\) was plugged in.*unplug it/,
    ],
    [
      'a device without a name plugged in',
      q35(...hotPlug),
      [['device_add', { driver: 'virtio-rng-pci', bus: 'rp1' }]],
      /device virtio-rng-pci at .*rp1.* was plugged in/,
    ],
    [
      'a keyboard plugged in on USB',
      q35('-device', 'qemu-xhci,id=usb'),
      [['device_add', { driver: 'usb-kbd', id: 'kbd' }]],
      /device kbd \(usb-kbd\) was plugged in/,
    ],
    [
      'a USB device without a name unplugged',
      q35('-device', 'qemu-xhci,id=usb', '-device', 'usb-tablet'),
      [['device_del', { id: '/machine/peripheral-anon/device[0]' }]],
      /device usb-tablet at usb\.0 was unplugged.*plug it in again/,
    ],
    [
      'a drive plugged in again elsewhere',
      q35('-device', 'virtio-scsi-pci,id=s', '-device', 'scsi-cd,id=cd,bus=s.0,lun=1'),
      [
        ['device_del', { id: 'cd' }],
        ['device_add', { driver: 'scsi-cd', id: 'cd', bus: 's.0', lun: 2 }],
      ],
      /device cd \(scsi-cd\) is at s\.0:0:2, and its command puts it at s\.0:0:1/,
    ],
    [
      'a processor without a name plugged in',
      q35('-smp', '1,maxcpus=2,sockets=2'),
      [['device_add', { driver: 'qemu64-x86_64-cpu', 'socket-id': 1, 'core-id': 0, 'thread-id': 0 }]],
      /has 2 processors, and its command makes 1: .*-smp 2/,
    ],
  ])('%s: refused by its name; --force leaves that to QEMU', async (_what, command, said, words) => {
    const { guest, folder } = await inspected(command, said);
    await expect(rehearsed(guest, folder)).rejects.toMatchObject({
      code: 'GUEST_REFUSED',
      message: expect.stringMatching(words) as string,
    });
    expect((await prepared(guest, folder, { force: true })).hardware).toBeUndefined();
  });

  const onPc =
    (...more: readonly string[]) =>
    (disk: string) =>
      `qemu-system-x86_64 -accel tcg -M pc -m 64 -display none -nic none -drive file=${disk},format=raw,if=ide`
        .split(' ')
        .concat(more);
  const plugsCpu: Said = [
    ['device_add', { driver: 'qemu64-x86_64-cpu', 'socket-id': 1, 'core-id': 0, 'thread-id': 0, id: 'cpu1' }],
  ];
  const plugs = (driver: string, more: Readonly<Record<string, unknown>> = {}): Said => [
    ['netdev_add', { type: 'user', id: 'n1', restrict: true }],
    ['device_add', { driver, netdev: 'n1', id: 'nic1', ...more }],
  ];

  it.each<[string, (disk: string) => string[], Said]>([
    ['a NIC plugged in behind a port', q35(...hotPlug), plugsNic],
    [
      'a NIC plugged in that is set otherwise',
      q35(...hotPlug),
      plugs('virtio-net-pci', { bus: 'rp1', rx_queue_size: 512, mrg_rxbuf: false, bootindex: 3 }),
    ],
    ...['virtio-net-pci', 'e1000', 'rtl8139', 'vmxnet3'].map((type): [string, (disk: string) => string[], Said] => [
      `a card ${type} plugged in on PCI`,
      onPc(),
      plugs(type),
    ]),
    ['a card e1000e plugged in behind a port', q35(...hotPlug), plugs('e1000e', { bus: 'rp1' })],
    ['a processor plugged in', q35('-smp', '1,maxcpus=2,sockets=2'), plugsCpu],
    [
      'a processor, and a NIC on the network of a card that is there',
      q35('-smp', '1,maxcpus=4,sockets=4', ...hotPlug, '-netdev', 'user,id=n1'),
      [...plugsCpu, plugsNic[1]!],
    ],
    [
      'a USB device unplugged',
      q35('-device', 'qemu-xhci,id=usb', '-device', 'usb-tablet,id=tablet', '-device', 'usb-kbd,id=kbd,port=2'),
      [['device_del', { id: 'tablet' }]],
    ],
  ])('%s: its destination has it too, set as it is', async (_what, command, said) => {
    const { guest, folder } = await inspected(command, said);
    const { prefix, sectionId } = guest.spec.setUp!;
    const there = await prepared(guest, folder);
    const setUp: GuestSetUp = { prefix: Buffer.from(prefix, 'base64'), sectionId };
    const { qmp } = await startFedQemu(there, setUp, () => undefined);
    const { features: _features, ...machine } = await hardwareOf(qmp);
    qmp.close();
    const { features: _there, devices, ...asked } = guest.spec.hardware;
    const place = ({ id, type, at, mac }: GuestDevice) => JSON.stringify({ id, type, at, mac });
    expect({ ...machine, devices: machine.devices.map(place).sort() }).toEqual({
      ...asked,
      devices: devices.map(place).sort(),
    });
  });

  it('a NIC plugged in that would be set otherwise there: refused with what', async () => {
    const { guest, folder } = await inspected(q35(...hotPlug), plugsNic);
    const qemuFolder = join(folder, 'programs');
    mkdirSync(qemuFolder);
    const real = execFileSync('sh', ['-c', 'command -v qemu-system-x86_64'], { encoding: 'utf8' }).trim();
    const program = join(qemuFolder, 'qemu-system-x86_64');
    writeFileSync(program, `#!/bin/sh\nexec ${real} "$@" -global virtio-net-pci.mrg_rxbuf=off\n`, { mode: 0o755 });
    await expect(rehearsed(guest, folder, { qemuFolder })).rejects.toMatchObject({
      code: 'GUEST_REFUSED',
      message: expect.stringMatching(
        /device nic1 \(virtio-net-pci\).* has mrg_rxbuf=on, and would have off here/,
      ) as string,
    });
  });

  const slots = ['-m', '64,slots=2,maxmem=256M'];
  const dimm = (size: string) => [
    ...['-object', `memory-backend-ram,id=m1,size=${size}`],
    ...['-device', 'pc-dimm,memdev=m1,id=d1'],
  ];
  const plugsDimm: Said = [
    ['object-add', { 'qom-type': 'memory-backend-ram', id: 'm1', size: 128 * MIB }],
    ['device_add', { driver: 'pc-dimm', memdev: 'm1', id: 'd1' }],
  ];

  it.each<[string, (disk: string) => string[], Said, RegExp]>([
    ['a DIMM plugged in that is larger than the rest', q35(...slots), plugsDimm, /memory device d1 .*unplug it/],
    ['a DIMM that was made before the rest, and is smaller', q35(...slots, ...dimm('32M')), [], /largest memory first/],
    [
      'a second node that is larger than the first',
      q35(
        ...['-object', 'memory-backend-ram,id=n0,size=16M', '-object', 'memory-backend-memfd,id=n1,size=48M'],
        ...['-numa', 'node,memdev=n0', '-numa', 'node,memdev=n1'],
      ),
      [],
      /its memory n1, 48/,
    ],
  ])(
    'has %s, by which QEMU would end itself: refused at the source before a look at its stream',
    async (_what, command, said, words) => {
      await expect(inspected(command, said)).rejects.toMatchObject({
        code: 'GUEST_REFUSED',
        message: expect.stringMatching(words) as string,
      });
    },
  );

  it('has features that its destination’s QEMU has not: refused with their names', async () => {
    const { guest, folder } = await inspected(q35('-cpu', 'max'));
    const qemuFolder = join(folder, 'programs');
    mkdirSync(qemuFolder);
    writeFileSync(
      join(qemuFolder, 'qemu-system-x86_64'),
      '#!/bin/bash\nargs=("$@"); for i in "${!args[@]}"; do [ "${args[$i]}" != max ] || args[$i]=max,-avx2,-bmi1; done\n' +
        `exec ${execFileSync('sh', ['-c', 'command -v qemu-system-x86_64'], { encoding: 'utf8' }).trim()} "\${args[@]}"\n`,
      { mode: 0o755 },
    );
    await expect(rehearsed(guest, folder, { qemuFolder })).rejects.toMatchObject({
      code: 'GUEST_REFUSED',
      message: expect.stringMatching(/processor has bmi1, avx2, and would not here/) as string,
    });
    await expect(rehearsed(guest, folder, { qemuFolder, force: true })).resolves.toBeUndefined();
  });

  it.each<[string, (disk: string, firmware: string) => string]>([
    ['pc, with all that it has by itself', (disk) => `pc -m 64 -nic user -drive file=${disk},format=raw,if=virtio`],
    [
      'pc with two NICs, two processors, USB and an empty CD drive',
      (disk) =>
        `pc -m 64 -smp 2 -display none -usb -device usb-tablet -nic user -nic user,model=virtio-net-pci -drive if=none,id=cd
         -device ide-cd,drive=cd,bus=ide.1 -drive file=${disk},format=raw,if=ide`,
    ],
    [
      'pc with a DIMM in its command',
      (disk) =>
        `pc -m 64,slots=2,maxmem=256M -object memory-backend-ram,id=m1,size=64M -device pc-dimm,memdev=m1,id=d1 -display none
         -drive file=${disk},format=raw,if=ide`,
    ],
    [
      'q35 with pflash, virtio-serial, a disk on virtio-scsi behind a port',
      (disk, code) =>
        `q35 -m 64 -smp 1,maxcpus=4 -cpu max -display none -nodefaults -device VGA -device ich9-usb-ehci1
         -drive if=pflash,format=raw,readonly=on,file=${code} -device pcie-root-port,id=rp -device virtio-scsi-pci,id=s,bus=rp
         -blockdev driver=file,filename=${disk},node-name=f -blockdev driver=raw,file=f,node-name=d -device scsi-hd,drive=d,bus=s.0
         -device virtio-serial -chardev null,id=c -device virtserialport,chardev=c,name=agent -device virtio-balloon
         -object iothread,id=io -device virtio-rng-pci -serial null`,
    ],
    [
      'q35 with pflash from -machine, memory in two nodes, a watchdog, sound',
      (disk, code) =>
        `q35,pflash0=fw -m 64 -smp 2 -display none -blockdev driver=file,filename=${code},node-name=fw,read-only=on
         -object memory-backend-memfd,id=m0,size=32M -object memory-backend-ram,id=m1,size=32M
         -numa node,memdev=m0,cpus=0 -numa node,memdev=m1,cpus=1 -device i6300esb -audiodev none,id=a -device intel-hda
         -device hda-duplex,audiodev=a -drive file=${disk},format=raw,if=ide -nic user`,
    ],
  ])('%s: as nobody has touched it, it is itself at the destination', async (_what, words) => {
    const code = join(firmware, 'code.fd');
    copyFileSync('/usr/share/seabios/bios-256k.bin', code);
    const { guest, folder } = await inspected((disk) =>
      `qemu-system-x86_64 -accel tcg -M ${words(disk, code)}`.split(/\s+/),
    );
    await expect(rehearsed(guest, folder)).resolves.toBeUndefined();
  });
});

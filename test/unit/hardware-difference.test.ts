/** Two looks at a machine: the first thing that is not the same is named with its mend, and what differs by chance is nothing. */
import { flagsOf } from '../../src/hypervisor/qemu/cpu-flags';
import { hardwareDifference } from '../../src/hypervisor/qemu/hardware-difference';
import { assertKvm, needsKvm } from '../../src/hypervisor/qemu/kvm-use';
import { parseRamBlocks, tooLarge } from '../../src/hypervisor/qemu/ram-blocks';
import type { CpuidWord, GuestHardware } from '../../src/model/guest-hardware';
import { NO_HARDWARE } from '../helpers/hardware';

const word = (bits: number, leaf = 7): CpuidWord => ({ leaf, index: 0, register: 'EBX', bits });
const nic = { id: 'nic1', type: 'virtio-net-pci', at: '/machine/q35/pcie.0:24' };
const unnamed = { type: 'virtio-rng-pci', at: '/machine/q35/pcie.0:32' };
const here: GuestHardware = {
  qemuVersion: '10.0',
  kvm: false,
  devices: [nic, unnamed],
  parts: { e1000: 1, 'isa-serial': 2 },
  processors: ['core-id=0', 'core-id=1'],
  ramBlocks: ['pc.bios', 'pc.ram'],
  features: [word(0b10_0000)],
  addressBits: 40,
};

describe('the machine at the source and the one here', () => {
  it.each<[string, Partial<GuestHardware>, RegExp]>([
    [
      'a device more',
      { devices: [...here.devices, { ...nic, id: 'nic2' }] },
      /nic2 \(virtio-net-pci\) was plugged in .*unplug it/,
    ],
    ['a device less', { devices: [unnamed] }, /nic1 \(virtio-net-pci\) was unplugged .*without it/],
    ['another device of that name', { devices: [{ ...nic, type: 'e1000' }, unnamed] }, /nic1 \(e1000\) was plugged in/],
    [
      'a device elsewhere',
      { devices: [{ ...nic, at: '/machine/q35/pcie.0:40' }, unnamed] },
      /at pcie\.0:40, .* at pcie\.0:24/,
    ],
    ['one more without a name', { devices: [nic, unnamed, unnamed] }, /virtio-rng-pci at pcie\.0:32 was plugged in/],
    ['one less without a name', { devices: [nic] }, /virtio-rng-pci at pcie\.0:32 was unplugged/],
    ['a part of the machine less', { parts: { 'isa-serial': 2 } }, /e1000 was unplugged/],
    ['more of a part', { parts: { e1000: 1, 'isa-serial': 3 } }, /isa-serial was plugged in/],
    ['a processor more', { processors: ['core-id=0', 'core-id=1', 'core-id=2'] }, /3 processors, .* makes 2: .*-smp 3/],
    ['a processor less', { processors: ['core-id=0'] }, /1 processors, .* makes 2: plug in/],
    ['a processor elsewhere', { processors: ['core-id=0', 'core-id=3'] }, /core-id=3/],
    ['less memory', { ramBlocks: ['pc.bios'] }, /memory pc\.ram was unplugged/],
    ['a flag more', { features: [word(0b10_1000)] }, /has bmi1, and would not here: .*-cpu/],
    ['a flag less', { features: [] }, /would have avx2 here, and has not: .*-cpu/],
    ['longer addresses', { addressBits: 46 }, /46 bits, .* 40 here: .*phys-bits=40/],
    ['KVM', { kvm: true }, /\/dev\/kvm/],
  ])('%s is named', (_what, source, words) => {
    expect(hardwareDifference({ ...here, ...source }, here)).toMatch(words);
  });

  it.each<[string, Partial<GuestHardware>]>([
    ['nothing', {}],
    ['the order of its devices', { devices: here.devices.toReversed() }],
    ['words that are zero', { features: [word(0, 24), ...here.features] }],
    [
      'what another release of QEMU makes of itself',
      { qemuVersion: '9.2', parts: {}, ramBlocks: [], processors: ['cpu=0', 'cpu=1'] },
    ],
    ['what is not said', { addressBits: 0 }],
  ])('%s is no difference', (_what, source) => {
    expect(hardwareDifference({ ...here, ...source }, here)).toBeUndefined();
  });

  it('names ten flags at most, and counts the rest', () => {
    expect(hardwareDifference({ ...NO_HARDWARE, features: [word(0xffff_ffff, 1)] }, NO_HARDWARE)).toMatch(
      / and 22 more, /,
    );
  });

  it('calls a flag that has no name by its place, the highest bit too', () => {
    expect(flagsOf([word(0x8000_0000, 1)], [])).toEqual(['CPUID 1.0.EBX bit 31']);
  });
});

describe('a command that asks for KVM', () => {
  it.each([
    [['-enable-kvm'], true],
    [['-accel', 'kvm'], true],
    [['-accel', 'accel=kvm,dirty-ring-size=4096'], true],
    [['-machine', 'q35,accel=kvm'], true],
    [['-M', 'accel=kvm:tcg,type=q35'], false],
    [['-accel', 'kvm', '-accel', 'tcg'], false],
    [['-M', 'q35'], false],
    [['-name', 'kvm'], false],
  ])('%j: has to have it: %s', (words, needs) => {
    const command = ['qemu-system-x86_64', ...words];
    expect(needsKvm(command)).toBe(needs);
    const judge = (): void => assertKvm(command, {}, '/nowhere/kvm');
    if (needs) expect(judge).toThrow(/needs KVM, and this host has no \/nowhere\/kvm: .*-accel tcg/);
    else expect(judge).not.toThrow();
  });
});

describe('the RAM blocks of a QEMU', () => {
  const line = (id: string, offset: number, used: number): string =>
    [
      id.padStart(24),
      '   4 KiB ',
      ...[offset, used, used].map((size) => `0x${size.toString(16).padStart(16, '0')}`),
      ' 0x00 rw',
    ].join(' ');

  it('are read by their columns, one without a name too', () => {
    const text = [
      '  Block Name    PSize              Offset',
      line('', 0, 4096),
      line('/rom@etc/acpi/tables', 8192, 4096),
      '',
    ];
    expect(parseRamBlocks(text.join('\n'))).toEqual([
      { id: '', offset: 0, usedBytes: 4096, mostBytes: 4096 },
      { id: '/rom@etc/acpi/tables', offset: 8192, usedBytes: 4096, mostBytes: 4096 },
    ]);
  });

  it.each([
    [[line('pc.ram', 0, 64), line('vga', 64, 64)], undefined],
    [[line('pc.ram', 0, 64), line('vga', 64, 65)], 'vga'],
    [[line('', 0, 64), line('pc.ram', 64, 128)], 'pc.ram'],
    [[line('pc.ram', 0, 64), line('', 64, 128)], undefined],
    [[], undefined],
  ])('one of the guest’s that is larger than the first is found (%#)', (lines, id) => {
    expect(tooLarge(parseRamBlocks(lines.join('\n')))?.id).toBe(id);
  });
});

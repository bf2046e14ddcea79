/**
 * The devices and objects that a guest may have: those that are QEMU's own work. What hands a device, a file system, a socket or a
 * key of the host to the guest is refused, and what is not known here too.
 */
import { ownValue } from '../../model/own-value';
import { quoted } from './allowance';
import { all, checkPairs, keyed, oneOf, propertyRule, type Rule, refused, unreadable, word } from './allowed-keys';
import { parseOptionText, valueIn } from './option-text';

const VIRTIO =
  /^virtio-(blk|net|scsi|rng|balloon|serial|mem|gpu|vga|keyboard|mouse|tablet|iommu)(-pci|-device|-ccw)?((-non)?-transitional)?$/;
const KNOWN = new Set(
  `
  virtserialport virtconsole ide-hd ide-cd scsi-hd scsi-cd usb-storage floppy isa-fdc nvme nvme-ns nvme-subsys sdhci-pci sd-card
  ahci ich9-ahci piix3-ide piix4-ide lsi lsi53c810 lsi53c895a megasas megasas-gen2 mptsas1068 pvscsi am53c974 dc390
  e1000 e1000-82544gc e1000-82545em e1000e igb rtl8139 pcnet ne2k_pci ne2k_isa vmxnet3 i82550 i82551 i82557a i82557b i82557c
  i82559a i82559b i82559c i82559er tulip usb-net pcie-root-port pcie-pci-bridge pci-bridge ioh3420 x3130-upstream
  xio3130-downstream pxb pxb-pcie i82801b11-bridge qemu-xhci nec-usb-xhci usb-ehci ich9-usb-ehci1 ich9-usb-ehci2 ich9-usb-uhci1
  ich9-usb-uhci2 ich9-usb-uhci3 ich9-usb-uhci4 ich9-usb-uhci5 ich9-usb-uhci6 piix3-usb-uhci piix4-usb-uhci pci-ohci usb-hub
  usb-kbd usb-mouse usb-tablet usb-wacom-tablet usb-audio VGA cirrus-vga qxl qxl-vga bochs-display vmware-svga ramfb
  secondary-vga virtio-vga intel-hda ich9-intel-hda hda-duplex hda-output hda-micro AC97 ES1370 sb16 isa-serial isa-parallel
  pci-serial pci-serial-2x pci-serial-4x usb-serial isa-debugcon isa-debug-exit pvpanic pvpanic-pci i6300esb ib700 vmgenid vmcoreinfo
  isa-applesmc intel-iommu amd-iommu pc-dimm virtio-mem-pci tpm-tis tpm-crb tpm-tis-device tpm-spapr
  `
    .trim()
    .split(/\s+/),
);
const PROCESSOR = /^[\w.-]+-(x86_64|i386|arm|riscv(32|64)|s390x?|powerpc64|loongarch)-cpu$/;

const WHY_NOT: readonly (readonly [RegExp, string])[] = [
  [/^vhost-user/, 'is the work of another program (virtiofsd, vhost-user), whose state stays behind'],
  [
    /^(vfio|usb-host|scsi-block|scsi-generic|virtio-input-host|vhost|ivshmem|u2f|ccid|usb-ccid)/,
    'hands something of its host to the guest',
  ],
  [/^(virtio-9p|usb-mtp)/, 'hands a folder of its host to the guest'],
  [/^(loader|guest-loader)$/, 'loads a file of its host'],
  [/-gl(-pci|-device)?$/, 'draws with a processor of its host'],
];

export const device: Rule = (text, allowance) => {
  const parsed = parseOptionText(text, 'driver');
  if (!parsed) return unreadable(text);
  const driver = valueIn(parsed, 'driver') ?? '';
  if (!VIRTIO.test(driver) && !KNOWN.has(driver) && !PROCESSOR.test(driver)) {
    const why =
      WHY_NOT.find(([pattern]) => pattern.test(driver))?.[1] ?? 'is not among the devices that a guest may have';
    return `${quoted(driver)} ${why}; leave it out`;
  }
  return checkPairs(parsed, PROCESSOR.test(driver) ? ofProcessor : propertyRule, allowance);
};

/** The socket that it sits in, and no other. */
function ofProcessor(key: string): Rule | undefined {
  return key === 'socket-id' ? word : propertyRule(key);
}

/** `driver.property=value`, or the same with three keys. */
export const global: Rule = (text, allowance) => {
  const short = /^([\w-]+)\.([\w.-]+)=(.*)$/s.exec(text);
  const parsed = parseOptionText(text);
  const [driver, property, value] = short
    ? [short[1], short[2], short[3]]
    : ['driver', 'property', 'value'].map((key) => parsed && valueIn(parsed, key));
  if (driver === undefined || property === undefined || value === undefined || (!short && parsed?.pairs.length !== 3))
    return unreadable(text);
  if (driver === 'migration') return 'migration properties are DWCP’s to set; leave it out';
  const rule = propertyRule(property);
  const objection = (rule ?? refused('cannot be read'))(value, allowance) ?? word(driver, allowance);
  return objection === undefined ? undefined : `${quoted(property)} ${objection}`;
};

const MEMORY = all(
  word,
  'qom-type id size share merge dump prealloc prealloc-threads policy host-nodes reserve hugetlb hugetlbsize seal',
);
const OBJECTS: Readonly<Record<string, Rule>> = {
  'memory-backend-ram': keyed(MEMORY, 'qom-type'),
  'memory-backend-memfd': keyed(MEMORY, 'qom-type'),
  iothread: keyed(
    all(word, 'qom-type id poll-max-ns poll-grow poll-shrink aio-max-batch thread-pool-min thread-pool-max'),
    'qom-type',
  ),
  'rng-builtin': keyed(all(word, 'qom-type id'), 'qom-type'),
  'rng-random': keyed({ ...all(word, 'qom-type id'), filename: oneOf('/dev/urandom', '/dev/random') }, 'qom-type'),
};

export const object: Rule = (text, allowance) => {
  const parsed = parseOptionText(text, 'qom-type');
  if (!parsed) return unreadable(text);
  const type = valueIn(parsed, 'qom-type') ?? '';
  const rule = ownValue(OBJECTS, type);
  if (rule) return rule(text, allowance);
  if (type === 'memory-backend-file') return `${quoted(type)} is a file of its host; use memory-backend-ram or -memfd`;
  if (type === 'secret')
    return `${quoted(type)} is a key of its host, which does not travel; leave it out (a guest of libvirt’s is moved with virsh)`;
  return `${quoted(type)} is not among the objects that a guest may have; leave it out`;
};

const AUDIO = keyed({ driver: oneOf('none'), id: word }, 'driver');
export const audiodev: Rule = (text, allowance) =>
  AUDIO(text, allowance) === undefined ? undefined : 'plays on its host; use -audiodev none,id=NAME';

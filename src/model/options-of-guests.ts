/**
 * Rows of the table of options (options.ts) that say as what guests run on a host, where their disks may lie, what else of it they may
 * read, and what its operator runs beside their migrations.
 */
import type { OptionSpec } from './option-spec';

export const GUEST_OPTIONS = {
  qemuFolder: {
    type: 'text',
    default: '',
    help:
      'Folder of the QEMU programs that run guests here; a guest’s command says only which, qemu-system-ARCH. ' +
      'Empty: looked for in PATH',
  },
  guestUser: {
    type: 'text',
    default: '',
    help:
      'User as whom guests’ QEMUs run where the agent is root (docs/security.md). Empty: dwcp-guest where there ' +
      'is one; root says that they run as root',
  },
  hooksDir: {
    type: 'text',
    default: '',
    help:
      'Folder of the programs that run beside migrations (docs/runbook.md, hooks), in prepare.d, before-pause.d, after-start.d, ' +
      'released.d and rolled-back.d. Empty: hooks in dataDir',
  },
  hookTimeout: {
    type: 'duration',
    unit: 'ms',
    min: 100,
    max: 120_000,
    default: 4_000,
    help: 'How long all hooks of one event may take together; what runs then is ended, and has said no where it may',
  },
  imageRoots: {
    type: 'text',
    default: '',
    help:
      'Folders, separated by commas, below which images of VMs may lie, besides those in dataDir; any other ' +
      'path is refused. Folders of devices (/dev/vg0) and devices are such too; only what is named here may a migration put a disk on ' +
      '(diskMap, diskPlaces). Empty: wherever `dwcp vm define` and `adopt` say on this host',
  },
  diskPlaces: {
    type: 'text',
    default: '',
    help:
      'Where disks of VMs come to lie that have not been here before, such as /dev/vg0/{vm}-{disk}: a block device that is there, or ' +
      'a file. Empty: in dataDir',
  },
  guestFolders: {
    type: 'text',
    default: '',
    help:
      'Folders, separated by commas, whose files a guest from another host may read (kernels, ISO images, bases ' +
      'of QCOW2 disks), besides the firmware below /usr/share; never those of dataDir',
  },
} as const satisfies Record<string, OptionSpec>;

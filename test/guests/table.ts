/**
 * The table of guests: every shape of the field cases that can be played on one machine, each with what has to come of it. An entry that
 * does not come out so today stays as it has to be: `npm run bench -- guests` says so. `npm test` walks those marked `quick`.
 */

import type { GuestShape } from './shape';
import { DISK_SHAPES } from './shapes-of-disks';
import { FILE_SHAPES } from './shapes-of-files';
import { HOST_SHAPES } from './shapes-of-hosts';
import { MACHINE_SHAPES } from './shapes-of-machines';
import { MOMENT_SHAPES } from './shapes-of-moments';

export const SHAPES: readonly GuestShape[] = [
  ...MACHINE_SHAPES,
  ...DISK_SHAPES,
  ...FILE_SHAPES,
  ...HOST_SHAPES,
  ...MOMENT_SHAPES,
];

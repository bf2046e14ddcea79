/**
 * Where a guest's consoles are on the host that it has come to: its screens and streams are made anew there, on that host's own ports and
 * in its run folder. What makes them is src/hypervisor/qemu/relocate-consoles.ts.
 */
import { z } from 'zod';

/** What is shown as it is: nothing of it moves a cursor. */
const printable = z
  .string()
  .max(1000)
  // oxlint-disable-next-line no-control-regex -- these are what is looked for
  .regex(/^[^\u0000-\u001f\u007f-\u009f]*$/);

export const MAX_CONSOLES = 64;

export const guestConsoleSchema = z.object({
  /** Of the guest's command, without its dash. */
  option: z.enum(['vnc', 'spice', 'serial', 'parallel', 'debugcon', 'chardev']),
  /** Of a chardev. */
  id: printable.optional(),
  /** As the source had it. */
  was: printable,
  /** `127.0.0.1:5907`, or the path of a socket or file. */
  at: printable,
});
export type GuestConsole = z.infer<typeof guestConsoleSchema>;

export const guestConsolesSchema = z.array(guestConsoleSchema).max(MAX_CONSOLES);

/** Display 0 of VNC. */
export const FIRST_DISPLAY_PORT = 5900;

/** `vnc 127.0.0.1:5907 (display 7; it was 127.0.0.1:1)` */
export function consoleText({ option, id, was, at }: GuestConsole): string {
  const port = option === 'vnc' ? Number(/:(\d+)$/.exec(at)?.[1]) - FIRST_DISPLAY_PORT : Number.NaN;
  const display = Number.isNaN(port) ? '' : `display ${port}; `;
  return `${option}${id === undefined ? '' : ` ${id}`} ${at} (${display}it was ${was})`;
}

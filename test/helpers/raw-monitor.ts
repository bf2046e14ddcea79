/** One command to a QEMU's monitor as somebody else gives it: any that QEMU has, by no code of ours. */
import { connect } from 'node:net';
import { createInterface } from 'node:readline';

interface Line {
  readonly QMP?: unknown;
  readonly event?: string;
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
}

/** @throws QEMU's own refusal */
export async function sayTo(
  path: string,
  command: string,
  parameters: Readonly<Record<string, unknown>> = {},
): Promise<unknown> {
  const socket = connect(path);
  const ask = (execute: string, given: object): void =>
    void socket.write(`${JSON.stringify({ execute, arguments: given })}\n`);
  try {
    let negotiated = false;
    for await (const text of createInterface(socket)) {
      const line = JSON.parse(text) as Line;
      if (line.error) throw new Error(line.error.desc);
      if (line.QMP) ask('qmp_capabilities', {});
      else if (!('return' in line)) continue;
      else if (negotiated) return line.return;
      else {
        negotiated = true;
        ask(command, parameters);
      }
    }
    throw new Error(`the monitor at ${path} was closed`);
  } finally {
    socket.destroy();
  }
}

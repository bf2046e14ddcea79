/**
 * A process of a test's whose networks are its own (unshare): makes a guest ready there, or names the taps of one, and says what came of
 * it, as JSON. Its argument: {running?, guest, place} or {command, pid}.
 */
import { bridgesOf, nameTaps } from '../../src/hypervisor/qemu/guest-taps';
import { prepareGuest, prepareStoppedGuest, type StoppedPlace } from '../../src/hypervisor/qemu/prepare-guest';
import { toDwcpError } from '../../src/model/errors';
import type { GuestSpec, StoppedGuest } from '../../src/model/guest';

export interface ChildTask {
  readonly running?: GuestSpec;
  readonly stopped?: StoppedGuest;
  readonly place?: StoppedPlace;
  readonly command?: readonly string[];
  readonly pid?: number;
}

export interface ChildAnswer {
  readonly command?: readonly string[];
  readonly bridges?: Readonly<Record<string, string>>;
  readonly code?: string;
  readonly message?: string;
}

async function answer({ running, stopped, place, command, pid }: ChildTask): Promise<ChildAnswer> {
  if (running && place) return { command: (await prepareGuest(running, place, false)).guest.command };
  if (stopped && place) return { command: (await prepareStoppedGuest(stopped, place, false)).definition.command };
  const named = nameTaps(command ?? [], pid ?? 0);
  return { command: named, bridges: bridgesOf(named) };
}

if (require.main === module)
  answer(JSON.parse(process.argv[2] ?? '') as ChildTask)
    .catch((error: unknown): ChildAnswer => {
      const { code, message } = toDwcpError(error, 'INTERNAL');
      return { code, message };
    })
    .then((said) => process.stdout.write(JSON.stringify(said)))
    .catch(() => process.exit(1));

/**
 * What a host remembers of the hooks of its migrations, on disk: what they are about, how often each moment has come, and what has not
 * been told to its end, for an agent that dies in between. Running them is hooks.ts's.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { toDwcpError } from '../model/errors';
import { forgetOldest } from '../model/forget-oldest';
import { HOOK_EVENTS, type HookCall, type HookEvent, type HookSubject, type TellingEvent } from '../model/hooks';
import { readIfThere, writeDurably } from '../store/durable-file';

const MOST_MIGRATIONS = 256;

/** Written by this host alone: what does not fit has been damaged, and only tells less. */
const runsSchema = z.array(
  z.tuple([
    z.string(),
    z.object({
      subject: z.custom<HookSubject>((value) => typeof value === 'object' && value !== null),
      attempts: z.partialRecord(z.enum(HOOK_EVENTS), z.int()),
      untold: z.partialRecord(
        z.enum(HOOK_EVENTS),
        z.custom<HookCall>((value) => typeof value === 'object' && value !== null),
      ),
    }),
  ]),
);
type Run = z.infer<typeof runsSchema>[number][1];

export class HookRuns {
  readonly #path: string;
  readonly #warn: (line: string) => void;
  #runs: Promise<Map<string, Run>> | undefined;
  #written: Promise<unknown> = Promise.resolve();

  constructor(dataDir: string, warn: (line: string) => void) {
    this.#path = join(dataDir, 'hook-runs.json');
    this.#warn = warn;
  }

  /** @returns the call with what earlier ones have said, and how often this moment has come, this time included */
  async begin(
    event: HookEvent,
    call: HookCall,
    isTold: 'asked' | 'told',
  ): Promise<HookCall & { readonly attempt: number }> {
    const runs = await this.#all();
    const known = runs.get(call.migrationId) ?? {
      subject: { vmId: call.vmId, migrationId: call.migrationId },
      attempts: {},
      untold: {},
    };
    const whole: HookCall = { ...known.subject, ...call };
    const { happened: _happened, details: _details, ...subject } = whole;
    const attempt = (known.attempts[event] ?? 0) + 1;
    runs.delete(call.migrationId);
    runs.set(call.migrationId, {
      subject,
      attempts: { ...known.attempts, [event]: attempt },
      untold: isTold === 'told' ? { ...known.untold, [event]: whole } : known.untold,
    });
    forgetOldest(runs, MOST_MIGRATIONS);
    await this.#write(runs);
    return { ...whole, attempt };
  }

  /** It need not be told again. */
  async told(event: TellingEvent, migrationId: string): Promise<void> {
    const runs = await this.#all();
    const known = runs.get(migrationId);
    if (!known?.untold[event]) return;
    const { [event]: _told, ...untold } = known.untold;
    runs.set(migrationId, { ...known, untold });
    await this.#write(runs);
  }

  /** What an earlier agent has not told to its end. */
  async untold(): Promise<readonly (readonly [event: TellingEvent, call: HookCall])[]> {
    return [...(await this.#all()).values()].flatMap(({ untold }) =>
      Object.entries(untold).map(([event, call]) => [event as TellingEvent, call] as const),
    );
  }

  #all(): Promise<Map<string, Run>> {
    return (this.#runs ??= this.#read());
  }

  async #read(): Promise<Map<string, Run>> {
    try {
      const text = await readIfThere(this.#path);
      return new Map(text ? runsSchema.parse(JSON.parse(text.toString('utf8'))) : []);
    } catch (error) {
      this.#warn(`${this.#path} cannot be read, and is begun anew: ${toDwcpError(error, 'INTERNAL').message}`);
      return new Map();
    }
  }

  /** What cannot be remembered is told all the same. */
  async #write(runs: ReadonlyMap<string, Run>): Promise<void> {
    const text = JSON.stringify([...runs]);
    const writing = this.#written.then(() => writeDurably(this.#path, text));
    this.#written = writing.catch((error: unknown) =>
      this.#warn(`${this.#path} cannot be written: ${toDwcpError(error, 'INTERNAL').message}`),
    );
    await this.#written;
  }
}

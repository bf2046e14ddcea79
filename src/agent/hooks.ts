/**
 * The programs that a host's operator has put beside its migrations (`<hooks>/<event>.d/`): which there are, in which order, what they
 * are told, and what becomes of what they say. Where a moment lies in a migration is its callers'; docs/runbook.md has the operator's side.
 */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { DwcpError, toDwcpError } from '../model/errors';
import type { AskingEvent, HookCall, HookEvent, Hooks, TellingEvent } from '../model/hooks';
import { type ProgramEnd, runBounded } from '../system/bounded-program';
import { type OwnProgram, ownPrograms } from '../system/own-programs';
import { HookRuns } from './hook-runs';

const KEEP_BYTES = 16 * 1024;
/** Of a hook's own words in a line of ours. */
const MAX_SAID = 500;
const MAX_LOGGED = 2000;

export interface HookParts {
  readonly hostId: string;
  readonly dataDir: string;
  /** Where the folders of events are. */
  readonly folder: string;
  /** For all hooks of one event together. */
  readonly withinMs: number;
  readonly log: (migrationId: string, line: string) => void;
}

type Told = HookCall & { readonly attempt: number };
type Said = (name: string, end: ProgramEnd) => void;

interface Running {
  readonly input: string;
  readonly env: Readonly<Record<string, string>>;
  /** By performance.now(). */
  readonly endBy: number;
  readonly signal: AbortSignal;
}

export class HostHooks implements Hooks {
  readonly #parts: HookParts;
  readonly #runs: HookRuns;
  readonly #closing = new AbortController();
  /** What is being told of each VM: one behind the other, and what is asked comes after it. */
  readonly #telling = new Map<string, Promise<void>>();

  constructor(parts: HookParts) {
    this.#parts = parts;
    this.#runs = new HookRuns(parts.dataDir, (line) => parts.log('', line));
  }

  async ask(event: AskingEvent, call: HookCall, signal: AbortSignal): Promise<void> {
    if (!this.#areThere) return;
    await this.#telling.get(call.vmId);
    const told = await this.#runs.begin(event, call, 'asked');
    const either = AbortSignal.any([signal, this.#closing.signal]);
    await this.#runAll(event, told, either, (name, end) => {
      if (end.code === 0) return;
      either.throwIfAborted();
      const own = lastLine(end.errors) || lastLine(end.output) || `it ended with ${end.code ?? '?'}`;
      throw this.#veto(event, name, end.ended ?? own, call);
    });
  }

  tell(event: TellingEvent, call: HookCall): void {
    if (!this.#areThere) return;
    const { vmId, migrationId } = call;
    const before = this.#telling.get(vmId) ?? Promise.resolve();
    const telling = before
      .then(() => this.#tell(event, call))
      .catch((error: unknown) =>
        this.#parts.log(migrationId, `the hooks ${event}.d: ${toDwcpError(error, 'INTERNAL').message}`),
      );
    this.#telling.set(vmId, telling);
    void telling.then(() => {
      if (this.#telling.get(vmId) === telling) this.#telling.delete(vmId);
    });
  }

  /** What an earlier agent has not told to its end is told again. */
  async tellAgain(): Promise<void> {
    if (this.#areThere) for (const [event, call] of await this.#runs.untold()) this.tell(event, call);
  }

  /** Ends what runs; what has not been told to its end is told by the next agent. */
  async close(): Promise<void> {
    this.#closing.abort(new DwcpError('CANCELLED', 'The agent stops'));
    await Promise.all(this.#telling.values());
  }

  #isEnding(): boolean {
    return this.#closing.signal.aborted;
  }

  get #areThere(): boolean {
    return existsSync(this.#parts.folder);
  }

  async #tell(event: TellingEvent, call: HookCall): Promise<void> {
    const told = await this.#runs.begin(event, call, 'told');
    if (this.#isEnding()) return;
    await this.#runAll(event, told, this.#closing.signal, () => undefined);
    if (!this.#isEnding()) await this.#runs.told(event, call.migrationId);
  }

  /** In the order of their names; what one throws ends it. */
  async #runAll(event: HookEvent, call: Told, signal: AbortSignal, said: Said): Promise<void> {
    const { folder, withinMs, log } = this.#parts;
    const endBy = performance.now() + withinMs;
    for (const program of await ownPrograms(join(folder, `${event}.d`))) {
      const name = `${event}.d/${program.name}`;
      const beganAt = performance.now();
      const end = await this.#run(program, { ...this.#textOf(event, call), endBy, signal });
      const what = end.ended ?? `it ended with ${end.code ?? '?'}`;
      const words = oneLine(`${end.errors}\n${end.output}`);
      const tookMs = Math.round(performance.now() - beganAt);
      log(call.migrationId, `hook ${name}: ${what}, after ${tookMs} ms${words === '' ? '' : `: ${words}`}`);
      said(name, end);
    }
  }

  async #run(program: OwnProgram, { input, env, endBy, signal }: Running): Promise<ProgramEnd> {
    const notRun = (ended: string): ProgramEnd => ({ code: undefined, ended, output: '', errors: '' });
    if (program.distrust !== undefined) return notRun(`it is not run: ${program.distrust}`);
    const leftMs = Math.floor(endBy - performance.now());
    if (signal.aborted) return notRun('it is not run: nobody waits for it any more');
    if (leftMs <= 0) return notRun('it is not run: those before it have taken all the time there was');
    return runBounded(program.path, { input, env, withinMs: leftMs, keepBytes: KEEP_BYTES, signal });
  }

  #textOf(event: HookEvent, call: Told): Pick<Running, 'input' | 'env'> {
    const { vmId, migrationId, ...rest } = call;
    const told = { v: 1, event, vm: vmId, migration: migrationId, host: this.#parts.hostId, ...rest };
    return {
      input: `${JSON.stringify(told)}\n`,
      // Nothing of the agent's own: it has keys and addresses in its environment.
      env: {
        PATH: `${process.env.PATH ?? '/usr/sbin:/usr/bin:/sbin:/bin'}:${dirname(process.execPath)}`,
        LANG: 'C.UTF-8',
      },
    };
  }

  #veto(event: AskingEvent, name: string, line: string, { side }: HookCall): DwcpError {
    return new DwcpError('HOOK_VETO', `The hook ${name} of host ${this.#parts.hostId} says no: ${line}`, {
      phase: event === 'before-pause' ? 'transfer' : side === 'source' ? 'start' : 'initialise_amst',
      side,
    });
  }
}

function oneLine(text: string): string {
  const lines = text.split('\n').map((line) => printable(line).trim());
  return lines
    .filter((line) => line !== '')
    .join(' | ')
    .slice(0, MAX_LOGGED);
}

function lastLine(text: string): string {
  const lines = text.split('\n').map((line) => printable(line).trim());
  return (lines.findLast((line) => line !== '') ?? '').slice(0, MAX_SAID);
}

function printable(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, ' ');
}

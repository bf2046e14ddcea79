/**
 * The processes that a demo or a bench starts: each has a log file, none outlives its parent, all end by their id.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { DwcpError } from '../../model/errors';

const MAIN = join(__dirname, '..', 'main.js');
const STOP_TIMEOUT_MS = 8_000;

export interface Child {
  readonly name: string;
  readonly logFile: string;
  readonly process: ChildProcess;
  readonly ended: Promise<number>;
}

export class Children {
  readonly #logFolder: string;
  readonly #env: Readonly<Record<string, string>>;
  readonly #all = new Set<Child>();
  #closing = false;
  readonly #atExit = (): void => this.killAll();

  /** @param env for all of them, beside this process's own */
  constructor(logFolder: string, env: Readonly<Record<string, string>> = {}) {
    this.#logFolder = logFolder;
    this.#env = env;
    mkdirSync(logFolder, { recursive: true, mode: 0o700 });
    process.once('exit', this.#atExit);
  }

  /** Starts a `dwcp` command as a process of its own. @param prefix what it is run through, such as a namespace */
  startDwcp(
    name: string,
    args: readonly string[],
    env: Readonly<Record<string, string>>,
    prefix: readonly string[] = [],
  ): Child {
    const [command, ...rest] = [...prefix, process.execPath, MAIN, ...args];
    return this.start(name, command ?? process.execPath, rest, env);
  }

  start(name: string, command: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): Child {
    if (this.#closing) throw new DwcpError('CANCELLED', 'Interrupted');
    const logFile = join(this.#logFolder, `${name}.log`);
    mkdirSync(dirname(logFile), { recursive: true });
    const log = openSync(logFile, 'a');
    const child = spawn(command, [...args], {
      stdio: ['ignore', log, log],
      env: { ...process.env, ...this.#env, ...env },
    });
    closeSync(log);
    return this.adopt(name, child, logFile);
  }

  /** Takes over a process started elsewhere. */
  adopt(name: string, child: ChildProcess, logFile: string): Child {
    const ended = new Promise<number>((resolve) => {
      child.once('close', (code) => resolve(code ?? 1));
      child.once('error', () => resolve(1));
    });
    const entry: Child = { name, logFile, process: child, ended };
    this.#all.add(entry);
    void ended.then(() => this.#all.delete(entry));
    return entry;
  }

  /** Runs a program to its end. @throws with the last line of what it said */
  async run(name: string, command: string, args: readonly string[]): Promise<void> {
    const child = this.start(name, command, args);
    const code = await child.ended;
    if (code !== 0) throw new DwcpError('INTERNAL', `${command} ended with ${code}: ${lastLine(child.logFile)}`);
  }

  /** Ends all: politely, then not. */
  async stopAll(): Promise<void> {
    this.#closing = true;
    const all = [...this.#all];
    for (const { process: child } of all) child.kill('SIGTERM');
    const timer = setTimeout(() => this.killAll(), STOP_TIMEOUT_MS);
    await Promise.all(all.map((child) => child.ended));
    clearTimeout(timer);
    process.off('exit', this.#atExit);
  }

  killAll(): void {
    for (const { process: child } of this.#all) child.kill('SIGKILL');
  }
}

export function lastLine(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim().split('\n').at(-1) ?? '';
  } catch {
    return '';
  }
}

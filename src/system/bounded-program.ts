/**
 * A program of this host's operator that is given a text, has some time, and says something: it runs in a process group of its own, all of
 * which ends with it, and no more of its output is kept than is asked for.
 */
import { spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import { onAbort } from '../model/abort';
import { messageOf } from '../model/errors';

/** For output that is still in the pipes of a group that has ended. */
const DRAIN_MS = 500;
const BACKSTOP_MS = 1_000;

export interface ProgramLimits {
  readonly input: string;
  readonly env: Readonly<Record<string, string>>;
  readonly withinMs: number;
  /** Of each of its two outputs; the rest is read and thrown away. */
  readonly keepBytes: number;
  readonly signal?: AbortSignal | undefined;
}

export interface ProgramEnd {
  /** Undefined where it was ended, or has not begun. */
  readonly code: number | undefined;
  /** Why there is no code. */
  readonly ended?: string;
  readonly output: string;
  readonly errors: string;
}

export function runBounded(program: string, limits: ProgramLimits): Promise<ProgramEnd> {
  const { input, env, withinMs, keepBytes, signal } = limits;
  // Also where this process ends before it does: then nobody else looks at the clock.
  const [timeout, last] = ['timeout', String((withinMs + BACKSTOP_MS) / 1000)];
  const child = spawn(timeout, ['-s', 'KILL', last, program], {
    cwd: '/',
    detached: true,
    stdio: 'pipe',
    env: { ...env },
  });
  const [output, errors] = [kept(child.stdout, keepBytes), kept(child.stderr, keepBytes)];
  let ended: string | undefined;
  const endGroup = (why?: string): void => {
    ended ??= why;
    if (child.pid === undefined) return;
    try {
      process.kill(-child.pid, 'SIGKILL');
    } catch {
      // Nobody of it is left.
    }
  };
  // Not every program reads what it is given.
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  return new Promise((resolve) => {
    const timer = setTimeout(() => endGroup(`it did not end within ${withinMs} ms`), withinMs);
    const stopListening = signal ? onAbort(signal, () => endGroup('nobody waits for it any more')) : () => undefined;
    let drained: NodeJS.Timeout | undefined;
    const over = (code: number | undefined): void => {
      for (const stream of [child.stdout, child.stderr]) stream.destroy();
      for (const each of [timer, drained]) clearTimeout(each);
      stopListening();
      resolve({ code, output: output(), errors: errors(), ...(ended !== undefined && { ended }) });
    };
    let code: number | undefined;
    child.once('error', (error) => {
      ended ??= messageOf(error);
      over(undefined);
    });
    child.once('exit', (status, by) => {
      clearTimeout(timer);
      code = ended === undefined ? (status ?? undefined) : undefined;
      if (code === undefined) ended ??= `it was ended by ${by ?? 'nobody knows what'}`;
      // What it has left behind in its group holds its pipes, and would go on.
      endGroup();
      drained = setTimeout(() => over(code), DRAIN_MS);
    });
    child.once('close', () => over(code));
  });
}

function kept(stream: Readable, mostBytes: number): () => string {
  const chunks: Buffer[] = [];
  let bytes = 0;
  stream.on('data', (chunk: Buffer) => {
    const part = chunk.subarray(0, mostBytes - bytes);
    bytes += part.length;
    if (part.length > 0) chunks.push(part);
  });
  stream.on('error', () => undefined);
  return () => Buffer.concat(chunks).toString('utf8');
}

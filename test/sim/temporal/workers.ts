/**
 * The workers that take from task queues, which of them Temporal reaches, and what waits in the queues. What a task is and
 * how long it may wait is its owner's business.
 */
import type { SimProcess, SimWorker, Surroundings } from './types';

export interface QueuedTask {
  readonly label: string;
  /** Taken by this worker, which is alive now; not asked again. */
  take(worker: SimWorker): void;
}

export class Workers {
  readonly #surroundings: Surroundings;
  #workers: SimWorker[] = [];
  readonly #waiting = new Map<string, QueuedTask[]>();
  readonly #unreachable = new Set<SimProcess>();

  constructor(surroundings: Surroundings) {
    this.#surroundings = surroundings;
  }

  register(worker: SimWorker): void {
    this.#workers = [
      ...this.#workers.filter(
        ({ process, taskQueue }) => process.alive && (process !== worker.process || taskQueue !== worker.taskQueue),
      ),
      worker,
    ];
    this.#poll(worker.taskQueue);
  }

  isReachable(process: SimProcess): boolean {
    return process.alive && !this.#unreachable.has(process);
  }

  setReachable(process: SimProcess, reachable: boolean): void {
    this.#surroundings.scheduler.trace(
      `temporal: ${process.name} ${reachable ? 'is reached again' : 'is not reached any more'}`,
    );
    if (!reachable) this.#unreachable.add(process);
    else if (this.#unreachable.delete(process))
      for (const { taskQueue } of this.#workers.filter((worker) => worker.process === process)) this.#poll(taskQueue);
  }

  offer(taskQueue: string, task: QueuedTask): void {
    const waiting = this.#waiting.get(taskQueue) ?? [];
    this.#waiting.set(taskQueue, [...waiting, task]);
    this.#poll(taskQueue);
  }

  /** It takes nothing any more. */
  remove(process: SimProcess): void {
    this.#workers = this.#workers.filter((worker) => worker.process !== process);
  }

  withdraw(taskQueue: string, task: QueuedTask): void {
    this.#waiting.set(
      taskQueue,
      (this.#waiting.get(taskQueue) ?? []).filter((other) => other !== task),
    );
  }

  /** Who could take work from that queue now. */
  polling(taskQueue: string): SimWorker[] {
    return this.#workers.filter((worker) => worker.taskQueue === taskQueue && this.isReachable(worker.process));
  }

  #poll(taskQueue: string): void {
    const { scheduler, hop } = this.#surroundings;
    scheduler.post(
      undefined,
      `poll ${taskQueue}`,
      () => {
        for (;;) {
          const workers = this.polling(taskQueue);
          const [task, ...rest] = this.#waiting.get(taskQueue) ?? [];
          if (workers.length === 0 || !task) return;
          this.#waiting.set(taskQueue, rest);
          task.take(workers.length === 1 ? (workers[0] as SimWorker) : scheduler.pick(workers));
        }
      },
      hop(),
    );
  }
}

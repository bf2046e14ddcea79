/**
 * Questions for the page hashes of blocks that the destination holds in another version: so many blocks at once, so many at a time.
 * What comes of an answer is batch-source.ts's.
 */
import { type DwcpError, toDwcpError } from '../../model/errors';
import type { BatchSourceContext, LaneState, Work } from './batch-lane';

/** Blocks whose page hashes are asked for in one request. */
const BLOCKS_A_QUESTION = 64;
const MOST_QUESTIONS = 8;

export class PageQuestions {
  readonly #ask: BatchSourceContext['askPageHashes'];
  #open = 0;

  constructor(ask: BatchSourceContext['askPageHashes']) {
    this.#ask = ask;
  }

  get some(): boolean {
    return this.#open > 0;
  }

  /**
   * Asks for what a lane waits for, where it is worth a question by now.
   * @param idle nothing is being read that might add to it
   */
  askFor(lane: LaneState, idle: boolean, answered: (work: Work) => void, failed: (error: DwcpError) => void): void {
    const { needPages, feed, imageNumber } = lane;
    const isWorth =
      needPages.length >= BLOCKS_A_QUESTION || (feed.remaining === 0 && idle) || feed.confirmed !== undefined;
    while (isWorth && needPages.length > 0 && this.#open < MOST_QUESTIONS) {
      const list = needPages.splice(0, BLOCKS_A_QUESTION).sort((a, b) => a - b);
      this.#open += 1;
      this.#ask(imageNumber, list).then(
        (pages) => {
          this.#open -= 1;
          answered({ lane, blocks: { list }, plain: false, pages, again: true });
        },
        (error: unknown) => {
          this.#open -= 1;
          failed(toDwcpError(error, 'SESSION_LOST'));
        },
      );
    }
  }
}

/**
 * A mutant of the product: edits of its compiled text, and what they leave out. Which there are: mutants.ts.
 */
import type { Edit } from './loader';

export interface Mutant {
  readonly name: string;
  readonly edits: readonly Edit[];
}

export const edit = (file: string, find: string, replace: string, count = 1): Edit => ({ file, find, replace, count });

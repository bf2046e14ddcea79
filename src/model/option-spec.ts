/** A row of a table of options: what kind of value it takes, within which range, and what it means. The tables: options.ts. */
export type OptionType = 'boolean' | 'integer' | 'number' | 'bytes' | 'rate' | 'duration' | 'text';

export interface OptionSpec {
  readonly type: OptionType;
  readonly unit?: string;
  readonly min?: number;
  readonly max?: number;
  readonly default: boolean | number | string;
  readonly help: string;
}

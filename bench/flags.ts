/** What a bench is told behind its name: `--name value`. */

/** @returns undefined where it is not there; NaN where no number follows */
export function numberOf(args: readonly string[], name: string): number | undefined {
  const at = args.indexOf(name);
  return at < 0 ? undefined : Number(args[at + 1]);
}

/** @returns an empty text where it is not there */
export function textOf(args: readonly string[], name: string): string {
  const at = args.indexOf(name);
  return at < 0 ? '' : (args[at + 1] ?? '');
}

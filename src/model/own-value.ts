/**
 * What a table holds under a name that comes from elsewhere: its own rows only. Every object answers to `constructor` and
 * `toString` too, and these are as good a name of an image or a suffix as any; a plain `table[name]` would find them.
 */
export function ownValue<T>(table: Readonly<Record<string, T>>, name: string): T | undefined {
  return Object.hasOwn(table, name) ? table[name] : undefined;
}

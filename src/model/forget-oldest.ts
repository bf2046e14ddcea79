/** Keeps what is remembered bounded: in a Map or a Set, what was put in first goes first. */
export function forgetOldest<K>(kept: Pick<Map<K, unknown>, 'size' | 'keys' | 'delete'> | Set<K>, most: number): void {
  for (const oldest of kept.keys()) {
    if (kept.size <= most) return;
    kept.delete(oldest);
  }
}

/**
 * Registers the search attributes that migrations use. Done by the control worker before it takes work, since a start
 * that names an unknown attribute fails.
 */
import type { Client } from '@temporalio/client';
import type { TypedSearchAttributes } from '@temporalio/common';
import { temporal } from '@temporalio/proto';
import { SEARCH_ATTRIBUTES } from '../model/names';
import { until } from '../system/wait';

const { IndexedValueType } = temporal.api.enums.v1;

const TYPES = {
  KEYWORD: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
  BOOL: IndexedValueType.INDEXED_VALUE_TYPE_BOOL,
  INT: IndexedValueType.INDEXED_VALUE_TYPE_INT,
} as const;

const VISIBLE_WITHIN_MS = 90_000;

/** @returns the names that had to be added */
export async function ensureSearchAttributes(client: Client): Promise<string[]> {
  const { operatorService } = client.connection;
  const namespace = client.options.namespace;
  const known = async (): Promise<Set<string>> => {
    const { customAttributes } = await operatorService.listSearchAttributes({ namespace });
    return new Set(Object.keys(customAttributes));
  };
  const before = await known();
  const missing = Object.entries(SEARCH_ATTRIBUTES).filter(([name]) => !before.has(name));
  if (missing.length === 0) return [];
  const searchAttributes = Object.fromEntries(missing.map(([name, type]) => [name, TYPES[type]]));
  await operatorService.addSearchAttributes({ namespace, searchAttributes });
  const allThere = async (): Promise<boolean> => {
    const now = await known();
    return missing.every(([name]) => now.has(name));
  };
  await until(allThere, { everyMs: 500, withinMs: VISIBLE_WITHIN_MS });
  return missing.map(([name]) => name);
}

/** The value of one of our attributes, as text; undefined where it is not set. */
export function readAttribute(
  attributes: TypedSearchAttributes,
  name: keyof typeof SEARCH_ATTRIBUTES,
): string | undefined {
  const value: unknown = attributes.getAll().find((pair) => pair.key.name === name)?.value;
  return typeof value === 'string' ? value : undefined;
}

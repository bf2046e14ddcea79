/**
 * Which operator may ask for what: `policy.yaml` in the control plane's trust folder, read anew for each decision. Without that file
 * whoever's key lies in operators/ may all. A file that cannot be read, or holds what is not understood, lets nobody do anything.
 *
 *   roles:
 *     movers:
 *       may: [plan, move]                       # plan; move: migrate and warm; override: take the risk of two copies
 *       tenants: [acme]                         # without it all; "*" stands for any text
 *       between: ["site-a-* -> site-b-*"]       # source -> destination; without it all
 *   operators:
 *     alice: [movers]                           # the key is operators/alice.pub
 */
import { join } from 'node:path';
import { parse } from 'yaml';
import { z } from 'zod';
import { messageOf } from '../model/errors';
import type { SignedRequest } from '../model/warrant';
import { assertPrivate, OTHERS_MAY_WRITE, readText } from './trust-files';

export const POLICY_FILE = 'policy.yaml';
const MOST_ENTRIES = 1000;

const ACTIONS = ['plan', 'move', 'override'] as const;
type Action = (typeof ACTIONS)[number];
const ACTION_OF: Readonly<Record<SignedRequest['mode'], Action>> = {
  plan: 'plan',
  warm: 'move',
  migrate: 'move',
  'accept-two-copies': 'override',
};

const patternSchema = z
  .string()
  .max(200)
  .regex(/^[\w.:*-]+$/, 'a name, in which * stands for any text');
const pairSchema = z
  .string()
  .max(400)
  .regex(/^[\w.:*-]+ *-> *[\w.:*-]+$/, 'two hosts, as "source -> destination"');
const roleSchema = z.strictObject({
  may: z.array(z.enum(ACTIONS)).min(1),
  tenants: z.array(patternSchema).min(1).max(MOST_ENTRIES).optional(),
  between: z.array(pairSchema).min(1).max(MOST_ENTRIES).optional(),
});
type Role = z.infer<typeof roleSchema>;
const policySchema = z.strictObject({
  roles: z.record(z.string().min(1).max(60), roleSchema),
  operators: z.record(z.string().min(1).max(120), z.array(z.string()).max(MOST_ENTRIES)),
});
export type Policy = z.infer<typeof policySchema>;

/** What somebody asks for. A tenant that is not known yet is not judged; a VM of no tenant has ''. */
export interface Asked {
  readonly mode: SignedRequest['mode'];
  readonly sourceHost?: string | undefined;
  readonly destinationHost?: string | undefined;
  readonly tenant?: string | undefined;
}

/** @throws Error that says in one line what of the file is not understood */
export function parsePolicy(text: string): Policy {
  let value: unknown;
  try {
    value = parse(text, { maxAliasCount: 0 });
  } catch (error) {
    throw new Error(messageOf(error).split('\n')[0], { cause: error });
  }
  const parsed = policySchema.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new Error(`${issue?.path.map(String).join('.') || 'the file'}: ${issue?.message ?? ''}`);
  }
  for (const [operator, roles] of Object.entries(parsed.data.operators))
    for (const role of roles)
      if (!Object.hasOwn(parsed.data.roles, role)) throw new Error(`operators.${operator}: there is no role ${role}`);
  return parsed.data;
}

/** Why this operator may not, in words; undefined where they may. */
export function objectionOf(trustFolder: string, operator: string, asked: Asked): string | undefined {
  const path = join(trustFolder, POLICY_FILE);
  const text = readText(path);
  if (text === undefined) return undefined;
  try {
    assertPrivate(path, OTHERS_MAY_WRITE);
    return objection(parsePolicy(text), operator, asked);
  } catch (error) {
    return `${path} cannot be followed: ${messageOf(error)}`;
  }
}

function objection({ roles, operators }: Policy, operator: string, asked: Asked): string | undefined {
  const held = Object.hasOwn(operators, operator) ? (operators[operator] ?? []) : [];
  if (held.length === 0) return `operator ${operator} has no role in ${POLICY_FILE}`;
  const action = ACTION_OF[asked.mode];
  const able = held.flatMap((name) => roles[name] ?? []).filter(({ may }) => may.includes(action));
  if (able.length === 0) return `operator ${operator} may not ${action}`;
  const doubts = able.map((role) => doubtOf(role, asked));
  return doubts.includes(undefined) ? undefined : `operator ${operator} may ${action} ${doubts[0]}`;
}

/** What it is that a role does not reach. */
function doubtOf({ tenants, between }: Role, { sourceHost, destinationHost, tenant }: Asked): string | undefined {
  if (tenant !== undefined && tenants && !tenants.some((pattern) => fits(pattern, tenant)))
    return tenant === '' ? 'no VM without a tenant' : `no VM of tenant ${tenant}`;
  const within = ([source = '', destination = '']: readonly string[]): boolean =>
    fits(source, sourceHost ?? '') && fits(destination, destinationHost ?? '');
  if (between && !between.some((pair) => within(pair.split(/ *-> */))))
    return `nothing from ${sourceHost ?? 'nowhere'} to ${destinationHost ?? 'nowhere'}`;
  return undefined;
}

/** Linear in the text for each star: no pattern takes long. */
function fits(pattern: string, text: string): boolean {
  const [first = '', ...rest] = pattern.split('*');
  if (rest.length === 0) return text === pattern;
  const last = rest.pop() ?? '';
  if (!text.startsWith(first) || text.length < first.length + last.length || !text.endsWith(last)) return false;
  let at = first.length;
  for (const part of rest) {
    const found = text.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return at <= text.length - last.length;
}

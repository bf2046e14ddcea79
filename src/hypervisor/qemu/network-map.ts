/**
 * What guests from other hosts get here for the taps and bridges that they had there, as this host's configuration says it
 * (guestNetworks). A name of another host's is looked for here and never used. Pure: whether what the map names is there is
 * network-checks.ts's.
 */
import { DwcpError } from '../../model/errors';
import { quoted } from './allowance';

/** What a network of a guest's is here. */
export type NetworkTarget =
  | { readonly kind: 'bridge'; readonly name: string }
  | { readonly kind: 'tap'; readonly name: string; readonly isolated: boolean }
  | { readonly kind: 'script'; readonly up: string; readonly down: string | undefined }
  | { readonly kind: 'helper'; readonly program: string; readonly bridge: string | undefined }
  | { readonly kind: 'user' };

/** A target, or a name of what the guest's network is itself: a tap's or a bridge's. */
type Entry = { readonly from: string } & ({ readonly to: NetworkTarget } | { readonly named: string });

/** What a guest's network was called where it comes from. */
export interface GuestNetwork {
  readonly tap?: string | undefined;
  readonly bridge?: string | undefined;
}

export type NetworkMap = readonly Entry[];

const ANY_OTHER = '*';
/** Linux: 15 bytes, and neither a slash nor space; a comma, a colon and an equals sign would be ours. */
const INTERFACE = /^[\w.@+-]{1,15}$/;
const PATH = /^\/[^:,=]+$/;

/** @param entries of guestNetworks @throws CONFIG_INVALID */
export function parseNetworkMap(entries: readonly string[]): NetworkMap {
  return entries.map((text) => {
    const [from = '', to = from, ...more] = text.split('=').map((part) => part.trim());
    const parsed = more.length > 0 ? undefined : parseTarget(to);
    if (!parsed || (from === ANY_OTHER ? to === from : !INTERFACE.test(from)))
      throw new DwcpError(
        'CONFIG_INVALID',
        `guestNetworks: ${JSON.stringify(text)} cannot be read; write NAME, NAME=OTHER, or NAME= with bridge:NAME, tap:NAME, ` +
          'tap:NAME:isolated, script:/UP[:/DOWN], helper:/PROGRAM[:BRIDGE] or user',
      );
    return { from, ...parsed };
  });
}

function parseTarget(text: string): { readonly to: NetworkTarget } | { readonly named: string } | undefined {
  const [kind = '', first = '', second, ...more] = text.split(':');
  if (more.length > 0) return undefined;
  if (text === 'user') return { to: { kind: 'user' } };
  if (text === kind) return INTERFACE.test(text) ? { named: text } : undefined;
  if (kind === 'bridge' && second === undefined && INTERFACE.test(first)) return { to: { kind, name: first } };
  if (kind === 'tap' && (second ?? 'isolated') === 'isolated' && INTERFACE.test(first))
    return { to: { kind, name: first, isolated: second !== undefined } };
  if (kind === 'script' && PATH.test(first) && PATH.test(second ?? first))
    return { to: { kind, up: first, down: second } };
  if (kind === 'helper' && PATH.test(first) && INTERFACE.test(second ?? 'any'))
    return { to: { kind, program: first, bridge: second } };
  return undefined;
}

/** By the tap's own name, else by its bridge's, else as any other. */
export function targetFor(map: NetworkMap, { tap, bridge }: GuestNetwork): NetworkTarget | undefined {
  const ofTap = tap === undefined ? undefined : map.find(({ from }) => from === tap);
  const entry =
    ofTap ??
    (bridge === undefined ? undefined : map.find(({ from }) => from === bridge)) ??
    map.find(({ from }) => from === ANY_OTHER);
  if (!entry) return undefined;
  if ('to' in entry) return entry.to;
  return entry === ofTap ? { kind: 'tap', name: entry.named, isolated: false } : { kind: 'bridge', name: entry.named };
}

/** Taps and bridges of this host that a guest from elsewhere may be given. */
export function namesIn(map: NetworkMap): string[] {
  return map.flatMap((entry) => {
    if ('named' in entry) return [entry.named];
    const { to } = entry;
    if (to.kind === 'bridge' || to.kind === 'tap') return [to.name];
    return to.kind === 'helper' && to.bridge !== undefined ? [to.bridge] : [];
  });
}

/** Programs of this host that QEMU may start for such a network. */
export function programsIn(map: NetworkMap): string[] {
  return map.flatMap((entry) => {
    if ('named' in entry) return [];
    const { to } = entry;
    if (to.kind === 'script') return [to.up, ...(to.down === undefined ? [] : [to.down])];
    return to.kind === 'helper' ? [to.program] : [];
  });
}

/** What is said of a network that this host has nothing for. */
export function noNetwork(name: string): string {
  return (
    `${quoted(name)} is none of the networks that guests may use here; name it in this host’s guestNetworks ` +
    `(${INTERFACE.test(name) ? name : '*'}=bridge:BRIDGE, or what it is here)`
  );
}

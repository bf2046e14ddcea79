/**
 * A guest's taps and bridges made another host's, as that host's configuration says: what of an option is the guest's (its id, its card,
 * its queues) stays, what is the host's is written anew. One that the configuration says nothing of stays as it is and is refused.
 */
import { ownValue } from '../../model/own-value';
import { KEYS_OF_A_CARD } from './allowed-networks';
import { type NetworkMap, type NetworkTarget, noNetwork, targetFor } from './network-map';
import { type Pair, parseOptionText, printOptionText, valueIn } from './option-text';
import type { OptionWord } from './option-words';

const FLAGS = ['-netdev', '-nic', '-net'];
/** Kept, beside what a card has, by what the network is here. */
const KEPT: Readonly<Record<NetworkTarget['kind'], readonly string[]>> = {
  tap: 'id name vhost vhostforce queues sndbuf vnet_hdr poll-us'.split(' '),
  script: 'id name vhost vhostforce sndbuf vnet_hdr poll-us'.split(' '),
  helper: 'id name vhost vhostforce sndbuf poll-us'.split(' '),
  bridge: ['id', 'name'],
  user: ['id', 'name'],
};
const CARD = KEYS_OF_A_CARD.split(' ');

/** A network of a guest's, and what it is here. */
export interface MappedNetwork {
  /** `-netdev n0`, for messages. */
  readonly what: string;
  readonly id: string | undefined;
  /** What it was called. */
  readonly name: string;
  readonly queues: number;
  /** Undefined where nothing is said of it here. */
  readonly target: NetworkTarget | undefined;
  readonly pairs: readonly Pair[];
}

export interface NetworkPlaces {
  readonly map: NetworkMap;
  /** In which bridge a tap is where the guest comes from. */
  readonly bridges: Readonly<Record<string, string>>;
}

/** @returns undefined where it is no network of a host's */
export function mappedNetwork({ flag, value }: OptionWord, { map, bridges }: NetworkPlaces): MappedNetwork | undefined {
  const parsed = FLAGS.includes(flag) && value !== undefined ? parseOptionText(value, 'type') : undefined;
  const type = parsed && valueIn(parsed, 'type');
  if (!parsed || (type !== 'tap' && type !== 'bridge')) return undefined;
  const tap = valueIn(parsed, 'ifname');
  const bridge = valueIn(parsed, 'br') ?? (tap === undefined ? undefined : ownValue(bridges, tap));
  const id = valueIn(parsed, 'id');
  return {
    what: id === undefined ? flag : `${flag} ${id}`,
    id,
    name: tap ?? bridge ?? (type === 'bridge' ? 'br0' : ''),
    queues: Number(valueIn(parsed, 'queues') ?? 1),
    target: targetFor(map, { tap, bridge: bridge ?? (type === 'bridge' ? 'br0' : undefined) }),
    pairs: parsed.pairs,
  };
}

export function relocateNetwork(option: OptionWord, places: NetworkPlaces): OptionWord {
  const { target, pairs } = mappedNetwork(option, places) ?? {};
  if (!target || !pairs) return option;
  const kept = [...KEPT[target.kind], ...(option.flag === '-nic' ? CARD : [])];
  const type = target.kind === 'script' || target.kind === 'helper' ? 'tap' : target.kind;
  return {
    flag: option.flag,
    value: printOptionText({
      pairs: [{ key: 'type', value: type }, ...pairs.filter(({ key }) => kept.includes(key)), ...pairsOf(target)],
      unsaid: 'type',
    }),
  };
}

function pairsOf(target: NetworkTarget): Pair[] {
  const said = (pairs: Readonly<Record<string, string>>): Pair[] =>
    Object.entries(pairs).map(([key, value]) => ({ key, value }));
  if (target.kind === 'tap') return said({ ifname: target.name, script: 'no', downscript: 'no' });
  if (target.kind === 'bridge') return said({ br: target.name });
  if (target.kind === 'script') return said({ script: target.up, downscript: target.down ?? 'no' });
  if (target.kind === 'user') return [];
  return said({ ...(target.bridge !== undefined && { br: target.bridge }), helper: target.program });
}

/** @returns what is said of the first network that this host has nothing for */
export function unmappedNetwork(options: readonly OptionWord[], places: NetworkPlaces): string | undefined {
  for (const option of options) {
    const network = mappedNetwork(option, places);
    if (network && !network.target) return `${network.what}: ${noNetwork(network.name)}`;
  }
  return undefined;
}

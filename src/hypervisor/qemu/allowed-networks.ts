/**
 * The networks that a guest may have: what QEMU does by itself, with ports of the host that its configuration names, and its taps and
 * bridges. Programs that put a guest in one are the host's own: those of its operator, or of its configuration. For a guest from another
 * host, relocate-networks.ts has written them anew before they are looked at here.
 */
import { ownValue } from '../../model/own-value';
import { type Allowance, type Objection, quoted } from './allowance';
import { all, checkPairs, type KeyRules, type Rule, refused, unreadable, word } from './allowed-keys';
import { type OptionText, parseOptionText, valueIn } from './option-text';
import type { HostPort } from './port-ranges';

const network: Rule = (name, allowance) => word(name, allowance) ?? allowance.network(name);
const RUNS = 'runs a program of its host';
const SCRIPTS = ['script', 'downscript'] as const;
/** What QEMU runs where a tap names none. */
const DEFAULT_SCRIPT = '/etc/qemu-ifup';
const script: Rule = (value, allowance) => (isNone(value) ? undefined : program(value, allowance));
const program: Rule = (value, allowance) => {
  const objection = allowance.program(value);
  return objection === undefined ? undefined : `${RUNS}; say no (${objection})`;
};
const GIVEN = 'is a descriptor that another process has opened; name the tap with ifname=';
const forwarding: Rule = (value, allowance) => {
  const port = forwardedPort(value);
  return port ? allowance.forward(port) : `${quoted(value)} is no forwarding; write tcp:ADDRESS:PORT-:PORT`;
};
const NETS: Readonly<Record<string, KeyRules>> = {
  none: {},
  user: {
    ...all(
      word,
      'restrict ipv4 ipv6 host hostname dhcpstart dns domainname ipv6-host ipv6-prefix ipv6-prefixlen ipv6-dns dnssearch',
    ),
    net: (value) => (/^[\d.]+(\/[\d.]+)?$/.test(value) ? undefined : `${quoted(value)} is no network`),
    hostfwd: forwarding,
    guestfwd: refused('opens a connection of its host, or starts a program there; leave it out'),
    ...all(refused('serves files of its host; leave it out'), 'smb smbserver tftp bootfile'),
  },
  tap: {
    ifname: network,
    ...all(script, SCRIPTS.join(' ')),
    ...all(word, 'vhost vhostforce queues sndbuf vnet_hdr poll-us'),
    ...all(refused(GIVEN), 'fd fds vhostfd vhostfds'),
    helper: program,
    br: network,
  },
  bridge: { br: network, helper: program },
  hubport: all(word, 'hubid netdev'),
  nic: all(word, 'netdev macaddr model name addr vectors'),
};
export const KEYS_OF_A_CARD = 'model mac macaddr addr vectors';

function net(kinds: readonly string[], further: KeyRules): Rule {
  return (text, allowance) => {
    const parsed = parseOptionText(text, 'type');
    const type = parsed && valueIn(parsed, 'type');
    if (!parsed || type === undefined) return unreadable(text);
    const rules = kinds.includes(type) ? ownValue(NETS, type) : undefined;
    if (!rules)
      return (
        `${quoted(type)} is not among the networks that a guest may have; ` +
        `use ${kinds.filter((kind) => kind !== 'hubport').join(', ')}`
      );
    const ofAll: KeyRules = { ...rules, ...further, type: word, id: word };
    const objection = checkPairs(parsed, (key) => ownValue(ofAll, key), allowance);
    return objection ?? (type === 'tap' ? leftUnsaid(parsed, allowance) : undefined);
  };
}

/** What QEMU does by itself where a tap does not say it. */
function leftUnsaid(tap: OptionText, allowance: Allowance): Objection {
  if (valueIn(tap, 'helper') !== undefined) return undefined;
  if (valueIn(tap, 'br') !== undefined) return 'br= is for a helper; use -netdev bridge,br=NAME';
  const unsaid = SCRIPTS.find((key) => valueIn(tap, key) === undefined);
  if (unsaid !== undefined && allowance.program(DEFAULT_SCRIPT) !== undefined)
    return `tap without ${unsaid}= ${RUNS}; say ${unsaid}=no`;
  return valueIn(tap, 'ifname') === undefined && isNone(valueIn(tap, 'script') ?? DEFAULT_SCRIPT)
    ? 'tap names no ifname; name the tap that the host has made'
    : undefined;
}

export const netdev = net(['user', 'tap', 'bridge', 'hubport'], {});
export const nic = net(['none', 'user', 'tap', 'bridge'], all(word, KEYS_OF_A_CARD));
export const oldNet = net(['none', 'nic', 'user', 'tap', 'bridge'], {});

/** Whether QEMU starts a program for it: its own bridge helper, another, a script. */
export function startsProgram(text: string): boolean {
  const parsed = parseOptionText(text, 'type');
  const type = parsed && valueIn(parsed, 'type');
  if (!parsed || type !== 'tap') return type === 'bridge';
  return (
    valueIn(parsed, 'helper') !== undefined || SCRIPTS.some((key) => !isNone(valueIn(parsed, key) ?? DEFAULT_SCRIPT))
  );
}

function isNone(value: string): boolean {
  return value === 'no' || value === '';
}

/** `tcp:127.0.0.1:2222-:22`; undefined where it is none. An address that is left out is any of the host’s. */
export function forwardedPort(value: string): HostPort | undefined {
  const [, protocol = '', address = '', port] =
    /^(tcp|udp)?:([\d.]*|\[[\da-fA-F:.]+\]):(\d{1,5})-[\w.[\]:]*:\d{1,5}$/.exec(value) ?? [];
  return port === undefined
    ? undefined
    : {
        protocol: protocol === 'udp' ? 'udp' : 'tcp',
        address: address.replace(/^\[|\]$/g, '') || '0.0.0.0',
        port: Number(port),
      };
}

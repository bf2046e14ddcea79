/**
 * What of a guest leads out of it: networks, character streams, screens. Allowed is what QEMU does by itself, what a host makes
 * anew in the guest's run folder, and taps and bridges that the host's configuration names.
 */
import { ownValue } from '../../model/own-value';
import { type Allowance, type Objection, quoted } from './allowance';
import { all, checkPairs, type KeyRules, keyed, oneOf, type Rule, refused, unreadable, word } from './allowed-keys';
import { parseOptionText, valueIn } from './option-text';

const network: Rule = (name, allowance) => word(name, allowance) ?? allowance.network(name);
const RUNS = 'runs a program of its host';
const no: Rule = (value) => (value === 'no' || value === '' ? undefined : `${RUNS}; say no`);
const GIVEN = 'is a descriptor that another process has opened; name the tap with ifname=';
const NETS: Readonly<Record<string, KeyRules>> = {
  none: {},
  user: {
    ...all(
      word,
      'restrict ipv4 ipv6 host hostname dhcpstart dns domainname ipv6-host ipv6-prefix ipv6-prefixlen ipv6-dns dnssearch',
    ),
    net: (value) => (/^[\d.]+(\/[\d.]+)?$/.test(value) ? undefined : `${quoted(value)} is no network`),
    ...all(refused('opens a port of its host, or starts a program there; leave it out'), 'hostfwd guestfwd'),
    ...all(refused('serves files of its host; leave it out'), 'smb smbserver tftp bootfile'),
  },
  tap: {
    ifname: network,
    ...all(no, 'script downscript'),
    ...all(word, 'vhost vhostforce queues sndbuf vnet_hdr poll-us'),
    ...all(refused(GIVEN), 'fd fds vhostfd vhostfds'),
    helper: refused(`${RUNS}; leave it out`),
    br: refused('is for a helper; use -netdev bridge,br=NAME'),
  },
  bridge: { br: network, helper: refused(`${RUNS}; leave it out`) },
  hubport: all(word, 'hubid netdev'),
  nic: all(word, 'netdev macaddr model name addr vectors'),
};
const OF_A_CARD = all(word, 'model mac macaddr addr vectors');

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
    if (objection !== undefined || type !== 'tap') return objection;
    if (valueIn(parsed, 'ifname') === undefined) return 'tap names no ifname; name the tap that the host has made';
    const scripts = ['script', 'downscript'].find((key) => valueIn(parsed, key) === undefined);
    return scripts === undefined ? undefined : `tap without ${scripts}= ${RUNS}; say ${scripts}=no`;
  };
}

export const netdev = net(['user', 'tap', 'bridge', 'hubport'], {});
export const nic = net(['none', 'user', 'tap', 'bridge'], OF_A_CARD);
export const oldNet = net(['none', 'nic', 'user', 'tap', 'bridge'], {});

/** Whether QEMU starts its own bridge helper for it. */
export function needsHelper(text: string): boolean {
  const parsed = parseOptionText(text, 'type');
  return parsed !== undefined && valueIn(parsed, 'type') === 'bridge';
}

const place: Rule = (path, allowance) => allowance.stream(path);
const LOG: KeyRules = { logfile: place, logappend: word, mux: oneOf('off'), id: word, backend: word };
const STREAMS: Readonly<Record<string, KeyRules>> = {
  null: LOG,
  file: { ...LOG, path: place, append: word },
  socket: { ...LOG, path: place, server: oneOf('on'), wait: word, delay: word, nodelay: word },
  pty: LOG,
  stdio: { ...LOG, signal: word },
  vc: LOG,
  ringbuf: { ...LOG, size: word },
};

export const chardev: Rule = (text, allowance) => {
  const parsed = parseOptionText(text, 'backend');
  if (!parsed || parsed.json) return unreadable(text);
  const backend = valueIn(parsed, 'backend') ?? '';
  const rules = ownValue(STREAMS, backend);
  if (!rules)
    return `${quoted(backend)} is not among the streams that a guest may have; use ${Object.keys(STREAMS).join(', ')}`;
  const objection = checkPairs(parsed, (key) => ownValue(rules, key), allowance);
  if (objection !== undefined || backend !== 'socket') return objection;
  if (valueIn(parsed, 'path') === undefined) return 'socket names no path; a guest’s sockets are UNIX sockets, path=';
  return valueIn(parsed, 'server') === undefined
    ? 'socket needs somebody who listens there at each host; say server=on'
    : undefined;
};

/** The way to a guest's TPM: the one program that its QEMU calls, and does not wait for. */
export const tpmSocket: Rule = keyed({ backend: oneOf('socket'), id: word, path: place }, 'backend');

/** -serial and the like, in their short form. */
export const stream: Rule = (text, allowance) => {
  if (/^(null|none|stdio|mon:stdio|pty|vc|chardev:[\w.-]+)$/.test(text)) return undefined;
  const file = /^file:([^,]*)$/.exec(text)?.[1];
  if (file !== undefined) return allowance.stream(file);
  const socket = /^unix:([^,]*)((?:,[^,]*)*)$/.exec(text);
  if (!socket) return `${quoted(text)} leads out of its host; use file:PATH, unix:PATH,server=on,wait=off or null`;
  return chardev(`socket,path=${socket[1] ?? ''}${socket[2] ?? ''}`, allowance);
};

export const display: Rule = (text, allowance) =>
  allowance.listens && /^(gtk|sdl|curses|cocoa)$/.test(text)
    ? undefined
    : text === 'none'
      ? undefined
      : `${quoted(text)} is not allowed; use -display none, and -vnc to look at the guest`;

const OF_VNC = keyed(all(word, 'at password share lossy non-adaptive power-control key-delay-ms to ipv4 ipv6'), 'at');

export const vnc: Rule = (text, allowance) => {
  if (text === 'none') return undefined;
  const socket = /^unix:([^,]*)$/.exec(text)?.[1];
  if (socket !== undefined) return allowance.stream(socket);
  if (!allowance.listens) return `${quoted(text)} listens on its host; use unix:PATH`;
  return /^[\w.:[\]-]*:\d{1,5}(,|$)/.test(text)
    ? listensAt(text, allowance)
    : `${quoted(text)} is not allowed; use unix:PATH or ADDRESS:N`;
};

function listensAt(text: string, allowance: Allowance): Objection {
  return OF_VNC(`at=0${text.slice(text.indexOf(',') < 0 ? text.length : text.indexOf(','))}`, allowance);
}

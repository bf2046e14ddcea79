/**
 * Who may look at a guest and speak to it, and through what: character streams, screens, windows. Allowed is what QEMU does by itself, in
 * the guest's run folder, and on ports that the host's configuration names. Networks are allowed-networks.ts's.
 */
import { FIRST_DISPLAY_PORT } from '../../model/guest-console';
import { ownValue } from '../../model/own-value';
import { type Allowance, type Objection, quoted } from './allowance';
import { all, checkPairs, type KeyRules, keyed, oneOf, type Rule, unreadable, word } from './allowed-keys';
import { type OptionText, parseOptionText, valueIn } from './option-text';

const place: Rule = (path, allowance) => allowance.stream(path);
const LOG: KeyRules = { logfile: place, logappend: word, mux: oneOf('off'), id: word, backend: word };
const STREAMS: Readonly<Record<string, KeyRules>> = {
  null: LOG,
  file: { ...LOG, path: place, append: word },
  socket: {
    ...LOG,
    path: place,
    server: oneOf('on'),
    ...all(word, 'wait delay nodelay host port telnet websocket ipv4 ipv6'),
  },
  pty: LOG,
  stdio: { ...LOG, signal: word },
  vc: LOG,
  ringbuf: { ...LOG, size: word },
  spicevmc: { ...LOG, name: word, debug: word },
  spiceport: { ...LOG, name: word, debug: word },
};

export const chardev: Rule = (text, allowance) => {
  const parsed = parseOptionText(text, 'backend');
  if (!parsed || parsed.json) return unreadable(text);
  const backend = valueIn(parsed, 'backend') ?? '';
  const rules = ownValue(STREAMS, backend);
  if (!rules)
    return `${quoted(backend)} is not among the streams that a guest may have; use ${Object.keys(STREAMS).join(', ')}`;
  const objection = checkPairs(parsed, (key) => ownValue(rules, key), allowance);
  return objection ?? (backend === 'socket' ? socketRule(parsed, allowance) : undefined);
};

function socketRule(parsed: OptionText, allowance: Allowance): Objection {
  const [path, port] = [valueIn(parsed, 'path'), valueIn(parsed, 'port')];
  if (path === undefined && port === undefined) return 'socket names neither a path nor a port; name its path=';
  if (path !== undefined && port !== undefined) return 'socket names a path and a port; name one';
  if (valueIn(parsed, 'server') === undefined)
    return 'socket needs somebody who listens there at each host; say server=on';
  return port === undefined ? undefined : listensAt(valueIn(parsed, 'host') ?? '', port, allowance);
}

function listensAt(address: string, port: string, allowance: Allowance): Objection {
  return /^\d{1,5}$/.test(port)
    ? allowance.console({ protocol: 'tcp', address: address.replace(/^\[|\]$/g, ''), port: Number(port) })
    : `${quoted(port)} is no port`;
}

/** `telnet:ADDRESS:PORT,server=on`, and what stands behind it. */
export const NETWORK_STREAM = /^(tcp|telnet|websocket):([^,]*):(\d{1,5})((?:,.*)?)$/s;

/** The way to a guest's TPM: the one program that its QEMU calls, and does not wait for. */
export const tpmSocket: Rule = keyed({ backend: oneOf('socket'), id: word, path: place }, 'backend');

/** -serial and the like, in their short form. */
export const stream: Rule = (text, allowance) => {
  if (/^(null|none|stdio|mon:stdio|pty|vc|chardev:[\w.-]+)$/.test(text)) return undefined;
  const file = /^file:([^,]*)$/.exec(text)?.[1];
  if (file !== undefined) return allowance.stream(file);
  const [, , host = '', port, behind = ''] = NETWORK_STREAM.exec(text) ?? [];
  if (port !== undefined) return chardev(`socket,host=${host},port=${port}${behind}`, allowance);
  const socket = /^unix:([^,]*)((?:,[^,]*)*)$/.exec(text);
  if (!socket) return `${quoted(text)} leads out of its host; use file:PATH, unix:PATH,server=on,wait=off or null`;
  return chardev(`socket,path=${socket[1] ?? ''}${socket[2] ?? ''}`, allowance);
};

export const display: Rule = (text, allowance) =>
  allowance.windows && /^(gtk|sdl|curses|cocoa)$/.test(text)
    ? undefined
    : text === 'none'
      ? undefined
      : `${quoted(text)} is not allowed; use -display none, and -vnc to look at the guest`;

export const KEYS_OF_A_SCREEN = 'password share lossy non-adaptive power-control key-delay-ms';
const OF_VNC = keyed(all(word, `at to ipv4 ipv6 ${KEYS_OF_A_SCREEN}`), 'at');

export const vnc: Rule = (text, allowance) => {
  if (text === 'none') return undefined;
  const [, at = '', behind = ''] = /^([^,]*)(.*)$/s.exec(text) ?? [];
  const objection = OF_VNC(`at=0${behind}`, allowance);
  if (objection !== undefined) return objection;
  if (at.startsWith('unix:')) return allowance.stream(at.slice('unix:'.length));
  const [, address = '', display = ''] = /^([\w.:[\]-]*):(\d{1,5})$/.exec(at) ?? [];
  return display === ''
    ? `${quoted(text)} is not allowed; use unix:PATH or ADDRESS:N`
    : listensAt(address, String(FIRST_DISPLAY_PORT + Number(display)), allowance);
};

export const KEYS_OF_SPICE = `disable-ticketing image-compression jpeg-wan-compression zlib-glz-wan-compression
  streaming-video agent-mouse playback-compression seamless-migration disable-copy-paste disable-agent-file-xfer gl`;
const OF_SPICE: KeyRules = {
  ...all(word, `port ipv4 ipv6 ${KEYS_OF_SPICE}`),
  gl: oneOf('off'),
  unix: word,
  addr: () => undefined,
};

export const spice: Rule = (text, allowance) => {
  const parsed = parseOptionText(text, 'port');
  if (!parsed || parsed.json) return unreadable(text);
  const objection = checkPairs(parsed, (key) => ownValue(OF_SPICE, key), allowance);
  if (objection !== undefined) return objection;
  const [port, address] = [valueIn(parsed, 'port'), valueIn(parsed, 'addr') ?? ''];
  if (valueIn(parsed, 'unix') === 'on') return allowance.stream(address);
  return port === undefined ? 'names neither port= nor unix=on; name one' : listensAt(address, port, allowance);
};

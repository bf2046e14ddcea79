/**
 * A guest's screens and character streams made another host's: ports of that host's own where the guest listened on some, files and sockets
 * in its run folder where it had those, and never nothing: what spoke to a terminal or a window is written into a file. What has become of
 * which is told.
 */
import { FIRST_DISPLAY_PORT, type GuestConsole, MAX_CONSOLES } from '../../model/guest-console';
import { KEYS_OF_A_SCREEN, KEYS_OF_SPICE, NETWORK_STREAM } from './allowed-backends';
import { type OptionText, type Pair, parseOptionText, printOptionText, valueIn } from './option-text';
import type { OptionWord } from './option-words';
import { type HostPort, portText } from './port-ranges';
import { StreamPlaces } from './run-places';

const SHORT_FLAGS = ['-serial', '-parallel', '-debugcon'] as const;
const SCREEN_KEYS = new Set(KEYS_OF_A_SCREEN.split(/\s+/));
const SPICE_KEYS = new Set(KEYS_OF_SPICE.split(/\s+/));
/** Of a stream, whatever it goes to. */
const KEPT = new Set(['id', 'mux', 'logappend', 'nodelay', 'delay', 'telnet', 'websocket']);
const MAX_TOLD = 1000;
const WINDOWS = /^(gtk|sdl|curses|cocoa)$/;

/** Free ports of this host, in the order in which a command asks for some: what listens nowhere is a socket. */
export type PortSupply = readonly HostPort[];

type ToldOption = GuestConsole['option'];

export class Consoles {
  readonly #places: StreamPlaces;
  readonly #ports: HostPort[];
  readonly #hasScreen: boolean;
  readonly #told: GuestConsole[] = [];

  /** @param options of the whole command */
  constructor(options: readonly OptionWord[], runFolder: string, ports: PortSupply = []) {
    this.#places = new StreamPlaces(runFolder);
    this.#ports = [...ports];
    this.#hasScreen = options.some(({ flag, value }) => flag === '-spice' || (flag === '-vnc' && value !== 'none'));
  }

  /** Where a guest's consoles are now. */
  get told(): readonly GuestConsole[] {
    return this.#told.slice(0, MAX_CONSOLES);
  }

  /** @returns undefined where it is no console */
  relocate({ flag, value }: OptionWord): OptionWord | undefined {
    if (value === undefined) return undefined;
    const short = SHORT_FLAGS.find((each) => each === flag);
    if (short !== undefined) return { flag, value: this.#short(short, value) };
    if (flag === '-chardev') return { flag, value: this.#chardev(value) };
    if (flag === '-vnc' && value !== 'none') return { flag, value: this.#vnc(value) };
    if (flag === '-spice') return { flag, value: this.#spice(value) };
    return flag === '-display' && WINDOWS.test(value) ? { flag, value: 'none' } : undefined;
  }

  /**
   * The first serial line of a guest that names none is shown in its window. Here is none, so it is written down; a command that says which
   * devices there are has no such line, and another would be another machine.
   */
  serialOfAWindow(options: readonly OptionWord[]): OptionWord[] {
    const opens = options.some(({ flag, value = '' }) => flag === '-display' && WINDOWS.test(value));
    const says = options.some(
      ({ flag, value = '' }) =>
        flag === '-serial' || flag === '-nodefaults' || (flag === '-device' && /serial|console/.test(value)),
    );
    return opens && !says && !this.#hasScreen ? [{ flag: '-serial', value: this.#short('-serial', 'vc') }] : [];
  }

  #tell(option: ToldOption, was: string, at: string, id?: string): void {
    const shown = (text: string): string => text.replace(/[^\x20-\x7e\u00a0-\uffff]/g, '?').slice(0, MAX_TOLD);
    this.#told.push({ option, ...(id !== undefined && { id: shown(id) }), was: shown(was), at: shown(at) });
  }

  #vnc(value: string): string {
    const [at = '', ...further] = value.split(',');
    const kept = further.filter((pair) => SCREEN_KEYS.has(pair.split('=')[0] ?? ''));
    const port = at.startsWith('unix:') ? undefined : this.#ports.shift();
    const place = port ? undefined : this.#places.place('/vnc.sock');
    this.#tell('vnc', at, port ? portText(port) : (place ?? ''));
    const there = port ? portText({ ...port, port: port.port - FIRST_DISPLAY_PORT }) : `unix:${place ?? ''}`;
    return [there, ...kept].join(',');
  }

  #spice(value: string): string {
    const parsed = parseOptionText(value, 'port');
    if (!parsed) return value;
    const [was, address = ''] = [valueIn(parsed, 'port'), valueIn(parsed, 'addr')];
    const kept = parsed.pairs.filter(({ key }) => SPICE_KEYS.has(key));
    const port = valueIn(parsed, 'unix') === 'on' ? undefined : this.#ports.shift();
    const place = port ? undefined : this.#places.place('/spice.sock');
    this.#tell('spice', was === undefined ? address : `${address}:${was}`, port ? portText(port) : (place ?? ''));
    const there = port
      ? [pair('port', String(port.port)), pair('addr', port.address)]
      : [pair('unix', 'on'), pair('addr', place ?? '')];
    return printOptionText({ pairs: [...there, ...kept] });
  }

  /** `file:/x/serial.log`, `unix:/x/sock,server=on`, `telnet:…`, `stdio`, `mon:stdio`, `pty`, `vc`. */
  #short(flag: (typeof SHORT_FLAGS)[number], value: string): string {
    const option = flag.slice(1) as ToldOption;
    if (['stdio', 'mon:stdio', 'pty'].includes(value) || (value === 'vc' && !this.#hasScreen)) {
      const place = this.#places.place(`/${option}.log`);
      this.#tell(option, value, place);
      return `file:${place}`;
    }
    const [, kind = '', address = '', was, behind = ''] = NETWORK_STREAM.exec(value) ?? [];
    if (was !== undefined) return this.#listening({ option, kind, was: `${kind}:${address}:${was}`, behind });
    const [, form, path, rest = ''] = /^(file|unix):(\/[^,]*)((?:,.*)?)$/s.exec(value) ?? [];
    if (form === undefined || path === undefined) return value;
    const place = this.#places.place(path);
    this.#tell(option, path, place);
    const further = rest === '' ? [] : this.#pairs(parseOptionText(rest.slice(1))?.pairs ?? []);
    const pairs = form === 'unix' ? unwaiting(further) : further;
    return [`${form}:${place}`, ...(pairs.length === 0 ? [] : [printOptionText({ pairs })])].join(',');
  }

  #listening(stream: { option: ToldOption; kind: string; was: string; behind: string }): string {
    const { option, kind, was, behind } = stream;
    const given = behind === '' ? [] : (parseOptionText(behind.slice(1))?.pairs ?? []);
    const port = this.#ports.shift();
    const place = port ? undefined : this.#places.place(`/${option}.sock`);
    this.#tell(option, was, port ? portText(port) : (place ?? ''));
    const kept = this.#pairs(given.filter(({ key }) => KEPT.has(key) || key === 'logfile' || key === 'server'));
    const pairs = unwaiting(port ? kept : withoutProtocol(kept));
    return `${port ? `${kind}:${portText(port)}` : `unix:${place ?? ''}`},${printOptionText({ pairs })}`;
  }

  #chardev(value: string): string {
    const parsed = parseOptionText(value, 'backend');
    if (!parsed || parsed.json) return value;
    const [backend = '', id] = [valueIn(parsed, 'backend'), valueIn(parsed, 'id')];
    if (backend === 'stdio' || backend === 'pty' || (backend === 'vc' && !this.#hasScreen))
      return this.#intoFile(parsed, backend, id);
    if (backend === 'socket' && valueIn(parsed, 'path') === undefined) return this.#listeningChardev(parsed, id);
    const was = valueIn(parsed, 'path');
    const pairs = this.#pairs(parsed.pairs);
    const at = valueIn({ pairs }, 'path');
    // One that calls waits for nobody, and is nobody's console.
    if (backend === 'socket' && valueIn(parsed, 'server') === undefined) return printOptionText({ ...parsed, pairs });
    if (was !== undefined && at !== undefined) this.#tell('chardev', was, at, id);
    return printOptionText({ ...parsed, pairs: backend === 'socket' ? unwaiting(pairs) : pairs });
  }

  #intoFile({ pairs }: OptionText, was: string, id: string | undefined): string {
    const place = this.#places.place(`/${/^[\w.-]+$/.test(id ?? '') ? id : 'console'}.log`);
    this.#tell('chardev', was, place, id);
    const kept = this.#pairs(pairs.filter(({ key }) => ['id', 'mux', 'logfile', 'logappend'].includes(key)));
    return printOptionText({ pairs: [pair('backend', 'file'), ...kept, pair('path', place)], unsaid: 'backend' });
  }

  #listeningChardev(parsed: OptionText, id: string | undefined): string {
    const [was = '', address = ''] = [valueIn(parsed, 'port'), valueIn(parsed, 'host')];
    const port = this.#ports.shift();
    const place = port ? undefined : this.#places.place(`/${/^[\w.-]+$/.test(id ?? '') ? id : 'console'}.sock`);
    this.#tell('chardev', `${address}:${was}`, port ? portText(port) : (place ?? ''), id);
    const kept = parsed.pairs.filter(({ key }) => KEPT.has(key) || ['logfile', 'server'].includes(key));
    const there = port ? [pair('host', port.address), pair('port', String(port.port))] : [pair('path', place ?? '')];
    const pairs = [pair('backend', 'socket'), ...this.#pairs(kept), ...there];
    return printOptionText({ pairs: unwaiting(port ? pairs : withoutProtocol(pairs)), unsaid: 'backend' });
  }

  /** Files and sockets of it in the run folder. */
  #pairs(pairs: readonly Pair[]): Pair[] {
    return pairs.map(({ key, value }) =>
      (key === 'path' || key === 'logfile') && value.startsWith('/')
        ? { key, value: this.#places.place(value) }
        : { key, value },
    );
  }
}

/** How many ports a command asks for, and which it has: its own number is kept where that is free. */
export function listeningPorts(options: readonly OptionWord[]): number[] {
  return options.flatMap(({ flag, value = '' }): number[] => {
    if (flag === '-vnc') {
      const display = /^[^,]*:(\d{1,5})(,|$)/.exec(value)?.[1];
      return value.startsWith('unix:') || display === undefined ? [] : [FIRST_DISPLAY_PORT + Number(display)];
    }
    if (SHORT_FLAGS.some((each) => each === flag)) {
      const port = NETWORK_STREAM.exec(value)?.[3];
      return port === undefined ? [] : [Number(port)];
    }
    if (flag !== '-spice' && flag !== '-chardev') return [];
    const parsed = parseOptionText(value, flag === '-spice' ? 'port' : 'backend');
    if (!parsed || parsed.json) return [];
    if (flag === '-spice') return valueIn(parsed, 'unix') === 'on' ? [] : [Number(valueIn(parsed, 'port'))];
    const listens = valueIn(parsed, 'backend') === 'socket' && valueIn(parsed, 'path') === undefined;
    return listens ? [Number(valueIn(parsed, 'port'))] : [];
  });
}

function pair(key: string, value: string): Pair {
  return { key, value };
}

function withoutProtocol(pairs: readonly Pair[]): Pair[] {
  return pairs.filter(({ key }) => !['telnet', 'websocket', 'nodelay', 'delay'].includes(key));
}

/** A guest that arrives waits for nobody to look at it. */
function unwaiting(pairs: readonly Pair[]): Pair[] {
  return [...pairs.filter(({ key }) => key !== 'wait'), { key: 'wait', value: 'off' }];
}

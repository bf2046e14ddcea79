/** A guest's networks and consoles on their way to another host: what is the host's is made anew, by that host's configuration alone. */
import { unsaidConsoles } from '../../src/hypervisor/qemu/guest-command';
import { bridgesOf } from '../../src/hypervisor/qemu/guest-taps';
import { namesIn, parseNetworkMap, programsIn } from '../../src/hypervisor/qemu/network-map';
import { optionWords } from '../../src/hypervisor/qemu/option-words';
import { type HostPort, parsePortRanges } from '../../src/hypervisor/qemu/port-ranges';
import { relocate, relocateTelling } from '../../src/hypervisor/qemu/relocate';
import { unmappedNetwork } from '../../src/hypervisor/qemu/relocate-networks';
import { runPlaces } from '../../src/hypervisor/qemu/run-places';
import { consoleText, guestConsolesSchema } from '../../src/model/guest-console';
import { listOf } from '../../src/model/option-text';

function mapOf(text: string) {
  return parseNetworkMap(listOf(text));
}

/** The one option, as it is at another host. */
function there(
  networks: string,
  [flag = '', value = '']: readonly string[],
  bridges: Record<string, string> = {},
): string {
  return relocate(['qemu', flag, value], [], '/run', { networks: { map: mapOf(networks), bridges } })[2] ?? '';
}

const TAP = ['-netdev', 'tap,id=n0,ifname=tap7,script=no,downscript=no,vhost=on,queues=2'];

test.each([
  ['tap7', TAP, 'tap,id=n0,vhost=on,queues=2,ifname=tap7,script=no,downscript=no'],
  ['tap7=web7', TAP, 'tap,id=n0,vhost=on,queues=2,ifname=web7,script=no,downscript=no'],
  ['tap7=tap:web7:isolated', TAP, 'tap,id=n0,vhost=on,queues=2,ifname=web7,script=no,downscript=no'],
  ['tap7=bridge:vmbr3', TAP, 'bridge,id=n0,br=vmbr3'],
  ['tap7=script:/etc/dwcp/up', TAP, 'tap,id=n0,vhost=on,script=/etc/dwcp/up,downscript=no'],
  ['tap7=script:/etc/dwcp/up:/etc/dwcp/down', TAP, 'tap,id=n0,vhost=on,script=/etc/dwcp/up,downscript=/etc/dwcp/down'],
  ['tap7=helper:/usr/lib/helper:vmbr3', TAP, 'tap,id=n0,vhost=on,br=vmbr3,helper=/usr/lib/helper'],
  ['tap7=user', TAP, 'user,id=n0'],
  ['*=vmbr0', TAP, 'bridge,id=n0,br=vmbr0'],
  ['br-web=vmbr3', ['-netdev', 'bridge,id=n0,br=br-web'], 'bridge,id=n0,br=vmbr3'],
  [
    'br-web=tap:web7',
    ['-netdev', 'bridge,id=n0,br=br-web,helper=/opt/h'],
    'tap,id=n0,ifname=web7,script=no,downscript=no',
  ],
  [
    'br-web=vmbr3',
    ['-nic', 'bridge,br=br-web,model=e1000,mac=52:54:00:00:00:01'],
    'bridge,model=e1000,mac=52:54:00:00:00:01,br=vmbr3',
  ],
  ['br0=vmbr3', ['-nic', 'bridge,model=e1000'], 'bridge,model=e1000,br=vmbr3'],
  ['*=vmbr3', ['-netdev', 'tap,id=n0'], 'bridge,id=n0,br=vmbr3'],
  [
    'tap7=web7',
    ['-netdev', '{"type":"tap","id":"n0","ifname":"tap7","script":"no","downscript":"no"}'],
    'tap,id=n0,ifname=web7,script=no,downscript=no',
  ],
  // Nothing is said of these, and they stay what they are.
  ['tap8=web7', TAP, TAP[1]],
  ['*=vmbr0', ['-netdev', 'user,id=n0,hostfwd=tcp::22-:22'], 'user,id=n0,hostfwd=tcp::22-:22'],
])('with %s, %j is %s', (networks, option, expected) => {
  expect(there(networks, option)).toBe(expected);
});

test('a tap goes by its own name, else by its bridge’s where it comes from, else as any other', () => {
  const bridges = { tap7: 'br-web' };
  expect(there('tap7=one,br-web=two,*=three', TAP, bridges)).toContain('ifname=one');
  expect(there('br-web=two,*=three', TAP, bridges)).toBe('bridge,id=n0,br=two');
  expect(there('br-db=two,*=three', TAP, bridges)).toBe('bridge,id=n0,br=three');
});

test('what a network is called here is not what another host may call for', () => {
  const places = { map: mapOf('br-web=vmbr3'), bridges: {} };
  const said = (value: string) => unmappedNetwork(optionWords(['-netdev', value]), places);
  expect(said('bridge,id=n,br=br-web')).toBeUndefined();
  expect(said('bridge,id=n,br=vmbr3')).toMatch(/-netdev n: "vmbr3" is none.*guestNetworks \(vmbr3=bridge:BRIDGE/);
  expect(said('tap,id=n')).toMatch(/guestNetworks \(\*=bridge:BRIDGE/);
});

test.each([
  ...['=vmbr3', 'br-web=', '*', 'a=b=c', 'br-web=bridge:', 'br-web=tap:a:b', 'br-web=script:ifup', 'br-web=vlan:7'],
  ...['a-name-that-is-too-long=b', 'br/web=b', 'br-web=helper:/h:b:c', 'br-web=bridge:a b'],
])('guestNetworks %j is refused where the agent starts', (text) => {
  expect(() => mapOf(text)).toThrow(/^guestNetworks: .* cannot be read; write NAME/);
});

test('what of a host a map names', () => {
  const map = mapOf('tap7, br-web=vmbr3, a=bridge:b, c=tap:d, e=script:/up:/down, f=helper:/h:g, *=user');
  expect(namesIn(map)).toEqual(['tap7', 'vmbr3', 'b', 'd', 'g']);
  expect(programsIn(map)).toEqual(['/up', '/down', '/h']);
});

test.each(['5900-5999', '127.0.0.1', '127.0.0.1:6000-5900', 'host:5900', '127.0.0.1:80-90', '127.0.0.1:5900-99999'])(
  'consolePorts %j is refused where the agent starts',
  (text) =>
    expect(() => parsePortRanges(text, { name: 'consolePorts', least: 5900 })).toThrow(/^consolePorts: .*FIRST-LAST/),
);

function port(number: number): HostPort {
  return { protocol: 'tcp', address: '127.0.0.1', port: number };
}

test.each([
  [['-vnc', ':7,password=on,to=9'], ['-vnc', '127.0.0.1:20,password=on'], 'vnc 127.0.0.1:5920 (display 20; it was :7)'],
  [
    ['-serial', 'telnet:0.0.0.0:4444,server'],
    ['-serial', 'telnet:127.0.0.1:5920,server=on,wait=off'],
    'serial 127.0.0.1:5920 (it was telnet:0.0.0.0:4444)',
  ],
  [
    ['-chardev', 'socket,id=c,host=localhost,port=4444,server=on,telnet=on,logfile=/only/here/c.log'],
    ['-chardev', 'socket,id=c,server=on,telnet=on,logfile=/run/c.log,host=127.0.0.1,port=5920,wait=off'],
    'chardev c 127.0.0.1:5920 (it was localhost:4444)',
  ],
  [
    ['-spice', 'port=5930,addr=0.0.0.0,disable-ticketing=on,tls-port=5931'],
    ['-spice', 'port=5920,addr=127.0.0.1,disable-ticketing=on'],
    'spice 127.0.0.1:5920 (it was 0.0.0.0:5930)',
  ],
])('%j is on a port of this host’s, and told', (given, expected, told) => {
  const moved = relocateTelling(['qemu', ...given], [], '/run', { ports: [port(5920)] });
  expect(moved.command.slice(1)).toEqual(expected);
  expect(guestConsolesSchema.parse(moved.consoles).map(consoleText)).toEqual([told]);
});

test.each([
  [['-vnc', 'localhost:7,share=ignore'], ['-vnc', 'unix:/run/vnc.sock,share=ignore'], '/run/vnc.sock'],
  [['-vnc', 'unix:/run/web.vnc,password=on'], ['-vnc', 'unix:/run/vnc.sock,password=on'], '/run/vnc.sock'],
  [
    ['-serial', 'tcp::4444,server,nowait,nodelay'],
    ['-serial', 'unix:/run/serial.sock,server=on,wait=off'],
    '/run/serial.sock',
  ],
  [['-serial', 'telnet::4444,server=on'], ['-serial', 'unix:/run/serial.sock,server=on,wait=off'], '/run/serial.sock'],
  [
    ['-chardev', 'socket,id=c,host=::1,port=4444,server=on,telnet=on'],
    ['-chardev', 'socket,id=c,server=on,path=/run/c.sock,wait=off'],
    '/run/c.sock',
  ],
  [
    ['-spice', 'port=5930,disable-ticketing=on'],
    ['-spice', 'unix=on,addr=/run/spice.sock,disable-ticketing=on'],
    '/run/spice.sock',
  ],
  [
    ['-serial', 'unix:/a/s,server=on,logfile=/only/here/s.log'],
    ['-serial', 'unix:/run/s,server=on,logfile=/run/s.log,wait=off'],
    '/run/s',
  ],
  [['-chardev', 'stdio,id=con,signal=off'], ['-chardev', 'file,id=con,path=/run/con.log'], '/run/con.log'],
  [['-chardev', 'pty,id=../x'], ['-chardev', 'file,id=../x,path=/run/console.log'], '/run/console.log'],
  [['-serial', 'vc'], ['-serial', 'file:/run/serial.log'], '/run/serial.log'],
  [['-display', 'gtk'], ['-display', 'none', '-serial', 'file:/run/serial.log'], '/run/serial.log'],
])('%j is in the run folder where this host names no ports, and told', (given, expected, told) => {
  const moved = relocateTelling(['qemu', ...given], [], '/run');
  expect(moved.command.slice(1)).toEqual(expected);
  expect(moved.consoles.map(({ at }) => at)).toEqual([told]);
});

test('no two streams have one place, none has DWCP’s, and none a name that no socket may have', () => {
  const { command, consoles } = relocateTelling(
    [
      'qemu',
      ...['-serial', 'unix:/run/a/serial/sock,server=on', '-chardev', 'socket,id=q,path=/run/a/qga/sock,server=on'],
      ...['-chardev', 'socket,id=m,path=/x/monitor.sock,server=on', '-chardev', `file,id=l,path=/x/${'é'.repeat(120)}`],
      ...['-chardev', `file,id=k,path=/y/${'é'.repeat(120)}`, '-vnc', ':1', '-chardev', 'file,id=v,path=/z/vnc.sock'],
    ],
    [],
    '/data/run/vm',
  );
  const places = consoles.map(({ at }) => at);
  expect(new Set(places).size).toBe(7);
  expect(places.slice(0, 3)).toEqual(['sock', '2-sock', 'guest-monitor.sock'].map((name) => `/data/run/vm/${name}`));
  for (const place of places) expect(Buffer.byteLength(place)).toBeLessThanOrEqual(107);
  expect(command.join(' ')).not.toMatch(/=\/[xyz]\//);
});

test('what of another host’s command is told holds nothing that moves a cursor', () => {
  const { consoles } = relocateTelling(['qemu', '-chardev', 'file,id=a\u001b[2J,path=/x/\u001b[2Jb'], [], '/run');
  expect(guestConsolesSchema.safeParse(consoles).success).toBe(true);
});

test('a command that says of no screen gets none, and its first serial line is written down', () => {
  const places = runPlaces('/run/x');
  const serial = ['-serial', 'file:/run/x/first-serial.log'];
  expect(unsaidConsoles(['qemu', '-m', '64'], places)).toEqual(['-display', 'none', ...serial]);
  expect(unsaidConsoles(['qemu', '-serial', 'null'], places)).toEqual(['-display', 'none']);
  expect(unsaidConsoles(['qemu', '-nodefaults'], places)).toEqual(['-display', 'none']);
  for (const screen of [
    ['-display', 'none'],
    ['-vnc', ':1'],
  ])
    expect(unsaidConsoles(['qemu', ...screen], places)).toEqual([]);
});

test('a tap that is in no bridge, or is not there, has none', () => {
  expect(bridgesOf(['qemu', '-netdev', 'tap,id=n,ifname=no-such-tap', '-nic', 'tap,ifname=../evil'])).toEqual({});
});

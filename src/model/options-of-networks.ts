/**
 * Rows of the table of options (options.ts) that say what of a host's networks and ports a guest gets that comes from another host. How
 * their values are read: src/hypervisor/qemu/network-map.ts and host-ports.ts.
 */
import type { OptionSpec } from './option-spec';

export const NETWORK_OPTIONS = {
  guestNetworks: {
    type: 'text',
    default: '',
    help:
      'What guests from other hosts get here for the taps and bridges that they had there, separated by commas: `tap7` or `br-web` stays ' +
      'itself; `br-web=vmbr3` (of its kind), `br-web=bridge:vmbr3`, `tap7=tap:web7`, `tap7=tap:web7:isolated` (in no bridge), ' +
      '`br-web=script:/etc/dwcp/ifup` (`:DOWN` behind it), `br-web=helper:/usr/lib/dwcp/helper:vmbr3`, `br-web=user`; a tap goes by its ' +
      'own name, else by its bridge’s; `*` is any other. Empty: none',
  },
  guestPorts: {
    type: 'text',
    default: '',
    help:
      'Ports of this host, such as 127.0.0.1:2200-2299, separated by commas, that a guest from another host may have forwarded to it ' +
      '(hostfwd). Empty: none',
  },
  consolePorts: {
    type: 'text',
    default: '127.0.0.1:5900-5999',
    help:
      'Ports of this host of which guests from other hosts get free ones for the VNC, SPICE, telnet and TCP consoles that they had there, ' +
      'from 5900 on; the result says which. Empty: sockets in the VM’s run folder',
  },
} as const satisfies Record<string, OptionSpec>;

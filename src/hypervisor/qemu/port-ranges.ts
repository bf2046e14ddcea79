/**
 * Ports of a host as data: how its configuration names them, what lies in which. Whether one is free is host-ports.ts's.
 */
import { isIP } from 'node:net';
import { DwcpError } from '../../model/errors';
import { listOf } from '../../model/option-text';

export interface HostPort {
  readonly protocol: 'tcp' | 'udp';
  readonly address: string;
  readonly port: number;
}

/** Ports of one address, both ends included. */
export interface PortRange {
  readonly address: string;
  readonly first: number;
  readonly last: number;
}

const MAX_PORT = 65_535;
const ANY_ADDRESS = ['0.0.0.0', '::'];
const RANGE = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})(?:-(\d{1,5}))?$/;

/** @param option whose value it is, and the least port that it takes @throws CONFIG_INVALID */
export function parsePortRanges(
  text: string,
  { name, least }: { readonly name: string; readonly least: number },
): PortRange[] {
  return listOf(text).map((part) => {
    const [, ipv6, ipv4, from = '', to = from] = RANGE.exec(part) ?? [];
    const [address = '', first, last] = [ipv6 ?? ipv4, Number(from), Number(to)];
    if (isIP(address) === 0 || first < least || last < first || last > MAX_PORT)
      throw new DwcpError(
        'CONFIG_INVALID',
        `${name}: ${JSON.stringify(part)} is no range of ports; write ADDRESS:FIRST-LAST, as 127.0.0.1:5900-5999` +
          (least > 1 ? `, from ${least} on` : ''),
      );
    return { address, first, last };
  });
}

export function isIn(ranges: readonly PortRange[], { address, port }: HostPort): boolean {
  return ranges.some(
    (range) =>
      (range.address === address || ANY_ADDRESS.includes(range.address)) && range.first <= port && port <= range.last,
  );
}

/** `127.0.0.1:22`, `[::1]:22`. */
export function portText({ address, port }: Pick<HostPort, 'address' | 'port'>): string {
  return `${address.includes(':') ? `[${address}]` : address}:${port}`;
}

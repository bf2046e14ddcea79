/**
 * Free ports of this host for the consoles of a guest that comes: as many as its command asks for, each its own number where that is free,
 * none that another VM here has been given. A port that is forwarded to the guest is not exchanged: who reaches the guest by it does not
 * hear of another, so it is free or the guest is refused.
 */
import { DwcpError } from '../../model/errors';
import { cannotRunHere } from '../../model/guest-refusals';
import { forwardedPort } from './allowed-networks';
import { takenBy, whyTaken } from './host-ports';
import { parseOptionText } from './option-text';
import { optionWords } from './option-words';
import { type HostPort, type PortRange, portText } from './port-ranges';
import { listeningPorts, type PortSupply } from './relocate-consoles';

/** From being chosen to being in a record that others read. */
const CHOSEN_FOR_MS = 60_000;
const chosenLately = new Map<string, { readonly vmId: string; readonly untilMs: number }>();

export interface WantedPorts {
  readonly vmId: string;
  readonly command: readonly string[];
  readonly ranges: readonly PortRange[];
  /** Commands of this host's other VMs. */
  readonly others: () => Promise<readonly (readonly string[])[]>;
}

/** @throws GUEST_REFUSED where there are not as many */
export async function chooseConsolePorts({ vmId, command, ranges, others }: WantedPorts): Promise<PortSupply> {
  const wanted = listeningPorts(optionWords(command.slice(1)));
  if (wanted.length === 0 || ranges.length === 0) return [];
  const given = new Set((await others()).flatMap((each) => listeningPorts(optionWords(each.slice(1)))));
  const chosen: HostPort[] = [];
  for (const own of wanted) {
    const port = await firstFree(vmId, ranges, { own, not: new Set([...given, ...chosen.map((each) => each.port)]) });
    if (!port)
      throw cannotRunHere(
        `all of this host’s consolePorts (${ranges.map(rangeText).join(', ')}) are taken: end what listens there, or name more`,
      );
    chosen.push(port);
    chosenLately.set(portText(port), { vmId, untilMs: Date.now() + CHOSEN_FOR_MS });
  }
  return chosen;
}

async function firstFree(
  vmId: string,
  ranges: readonly PortRange[],
  { own, not }: { readonly own: number; readonly not: ReadonlySet<number> },
): Promise<HostPort | undefined> {
  for (const { address, first, last } of ranges)
    for (const port of [own, ...numbersFrom(first, last)]) {
      if (port < first || port > last || not.has(port)) continue;
      const candidate: HostPort = { protocol: 'tcp', address, port };
      const lately = chosenLately.get(portText(candidate));
      if (lately && lately.vmId !== vmId && lately.untilMs > Date.now()) continue;
      const why = await whyTaken(candidate);
      if (why === 'no address')
        throw new DwcpError('CONFIG_INVALID', `consolePorts: ${address} is no address of this host`, {
          side: 'destination',
          hint: 'Name an address that `ip address` shows there, or 127.0.0.1',
        });
      if (why === undefined) return candidate;
    }
  return undefined;
}

/** @throws GUEST_REFUSED where a port that is forwarded to the guest is taken here */
export async function assertForwardsFree(command: readonly string[]): Promise<void> {
  const forwarded = optionWords(command.slice(1)).flatMap(({ flag, value }) =>
    ['-netdev', '-nic', '-net'].includes(flag) && value !== undefined
      ? (parseOptionText(value, 'type')?.pairs ?? []).filter(({ key }) => key === 'hostfwd')
      : [],
  );
  for (const { value } of forwarded) {
    const port = forwardedPort(value);
    const why = port && (await whyTaken(port));
    if (port && why !== undefined)
      throw cannotRunHere(
        why === 'taken'
          ? `port ${portText(port)} (${port.protocol}), which its hostfwd= forwards, is taken${await takenBy(port)}: free it, or start ` +
              'the guest with another'
          : `its hostfwd= opens ${portText(port)}, and that is no address of this host: start the guest with another`,
      );
  }
}

function numbersFrom(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}

function rangeText({ address, first, last }: PortRange): string {
  return `${portText({ address, port: first })}-${last}`;
}

/**
 * The network cards of a guest and what of its host each is on, for the hooks of its operator: from the command, and of a guest that runs
 * from what its QEMU has said of its cards. Pure.
 */
import type { GuestHardware } from '../../model/guest-hardware';
import type { GuestNetwork } from '../../model/hooks';
import { parseOptionText, valueIn } from './option-text';
import { optionWords } from './option-words';

interface Backend extends Pick<GuestNetwork, 'kind' | 'interface' | 'bridge' | 'mac'> {
  readonly id: string | undefined;
  readonly model: string | undefined;
  /** It makes its card itself (-nic). */
  readonly isCard: boolean;
}

/** @param hardware of the running machine; undefined where there is none */
export function networksOf(
  command: readonly string[],
  hardware?: Pick<GuestHardware, 'devices' | 'cards'>,
): GuestNetwork[] {
  const backends = backendsOf(command);
  if (!hardware) return [...namedCards(command, backends), ...backends.filter(({ isCard }) => isCard).map(cardOf)];
  const left = backends.filter(({ isCard }) => isCard);
  const named = (netdev: string | undefined) => backends.find(({ id }) => id !== undefined && id === netdev);
  return [...hardware.devices, ...(hardware.cards ?? [])].flatMap(({ id, type, mac, netdev }): GuestNetwork[] => {
    if (mac === undefined) return [];
    const at = left.findIndex((backend) => backend.mac === undefined || backend.mac === mac);
    const backend = named(netdev) ?? left.splice(at, at < 0 ? 0 : 1)[0];
    return [
      {
        ...(backend && placeOf(backend)),
        mac,
        model: type,
        ...(id !== undefined && { device: id }),
        ...(netdev !== undefined && { netdev }),
      },
    ];
  });
}

function namedCards(command: readonly string[], backends: readonly Backend[]): GuestNetwork[] {
  return optionWords(command.slice(1)).flatMap(({ flag, value }): GuestNetwork[] => {
    const parsed = flag === '-device' && value !== undefined ? parseOptionText(value, 'driver') : undefined;
    const netdev = parsed && valueIn(parsed, 'netdev');
    if (!parsed || netdev === undefined) return [];
    const [model, device, mac] = ['driver', 'id', 'mac'].map((key) => valueIn(parsed, key));
    const backend = backends.find(({ id }) => id === netdev);
    return [
      {
        ...(backend && placeOf(backend)),
        netdev,
        ...(model !== undefined && { model }),
        ...(device !== undefined && { device }),
        ...(mac !== undefined && { mac: mac.toLowerCase() }),
      },
    ];
  });
}

function backendsOf(command: readonly string[]): Backend[] {
  return optionWords(command.slice(1)).flatMap(({ flag, value }): Backend[] => {
    const parsed =
      (flag === '-netdev' || flag === '-nic') && value !== undefined ? parseOptionText(value, 'type') : undefined;
    const kind = parsed && valueIn(parsed, 'type');
    if (!parsed || kind === undefined || kind === 'none') return [];
    const [id, ifname, bridge, mac, model] = [['id'], ['ifname'], ['br'], ['mac', 'macaddr'], ['model']].map((keys) =>
      valueIn(parsed, ...keys),
    );
    return [
      {
        id,
        model,
        kind,
        isCard: flag === '-nic',
        ...(ifname !== undefined && { interface: ifname }),
        ...(kind === 'bridge' && { bridge: bridge ?? 'br0' }),
        ...(mac !== undefined && { mac: mac.toLowerCase() }),
      },
    ];
  });
}

function cardOf(backend: Backend): GuestNetwork {
  const { mac, model, id } = backend;
  return {
    ...placeOf(backend),
    ...(mac !== undefined && { mac }),
    ...(model !== undefined && { model }),
    ...(id !== undefined && { netdev: id }),
  };
}

function placeOf(backend: Backend): GuestNetwork {
  return {
    ...(backend.kind !== undefined && { kind: backend.kind }),
    ...(backend.interface !== undefined && { interface: backend.interface }),
    ...(backend.bridge !== undefined && { bridge: backend.bridge }),
  };
}

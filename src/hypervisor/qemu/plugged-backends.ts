/**
 * The other ends of a guest's network cards as its QEMU lists them for people - its other monitor says nothing of them: what of them can be
 * made again by an option. A line: ` \ n1: index=0,type=user,net=10.0.2.0,restrict=off`.
 */
import type { QmpClient } from './qmp-client';

const LINE = /^\s*\\?\s*([\w.-]+): index=(\d+),type=([\w-]+),(.*)$/;
const NAME = /^[\w.-]+$/;

/** By their names, as -netdev writes them; what a descriptor, a script or a setting of its own is part of is left out. */
export async function backendsIn(qmp: QmpClient): Promise<ReadonlyMap<string, string>> {
  return parseBackends(await qmp.execute('human-monitor-command', { 'command-line': 'info network' }));
}

export function parseBackends(text: string): ReadonlyMap<string, string> {
  const lines = text.split(/\r?\n/).flatMap((line) => {
    const [, id = '', , type = '', info = ''] = LINE.exec(line) ?? [];
    return id === '' ? [] : [{ id, type, info: info.trim() }];
  });
  return new Map(
    lines.flatMap(({ id, type, info }): [string, string][] => {
      // One line a queue: such a card has several.
      if (lines.filter((other) => other.id === id).length > 1) return [];
      const said = optionOf(type, info);
      return said === undefined ? [] : [[id, `${said.kind},id=${id}${said.more}`]];
    }),
  );
}

function optionOf(type: string, info: string): { readonly kind: string; readonly more: string } | undefined {
  if (type === 'user') {
    const restrict = /^net=10\.0\.2\.0,restrict=(on|off)$/.exec(info)?.[1];
    return restrict === undefined ? undefined : { kind: type, more: restrict === 'on' ? ',restrict=on' : '' };
  }
  if (type !== 'tap') return undefined;
  const bridge = /^helper=[^,]*,br=([^,]+)$/.exec(info)?.[1];
  if (bridge !== undefined) return NAME.test(bridge) ? { kind: 'bridge', more: `,br=${bridge}` } : undefined;
  const tap = /^ifname=([^,]+),script=(?:no)?,downscript=(?:no)?$/.exec(info)?.[1];
  return tap === undefined || !NAME.test(tap)
    ? undefined
    : { kind: 'tap', more: `,ifname=${tap},script=no,downscript=no` };
}

/**
 * The drives of a running guest as its QEMU has them, each file by its path on this host: QEMU says them as it was told, which may mean
 * another folder. And how much room they take.
 */
import { isDevicePath } from '../../system/block-device';
import { fileBehind } from './disk-export';
import type { ProcessPaths } from './process-paths';
import type { QmpClient } from './qmp-client';
import type { BlockDevice } from './qmp-schemas';

/** A backing chain longer than this is not asked of, nor moved. */
const MAX_LAYERS = 64;

export async function drivesOf(qmp: QmpClient, paths: ProcessPaths): Promise<BlockDevice[]> {
  return (await qmp.execute('query-block')).map((device) => {
    const { inserted } = device;
    if (!inserted) return device;
    const filename = fileBehind(inserted.image.filename);
    return {
      ...device,
      inserted: { ...inserted, image: { ...inserted.image, filename: paths.onHost(filename) ?? filename } },
    };
  });
}

/** As what a running QEMU reads the files of its drives: what a command leaves unsaid, it has decided. */
export function formatsIn(devices: readonly BlockDevice[]): (path: string) => string | undefined {
  const formats = new Map(
    devices.flatMap(({ inserted }) => (inserted ? [[inserted.image.filename, inserted.drv] as const] : [])),
  );
  return (path) => formats.get(path);
}

/** What a disk of several layers takes, all of them together; undefined where QEMU does not say it of each. */
export function allocatedIn(device: BlockDevice): number | undefined {
  let sum = 0;
  for (const layer of layersIn(device)) {
    // A device takes all of itself, whatever it holds.
    if (typeof layer['actual-size'] !== 'number' || isDevicePath(String(layer.filename))) return undefined;
    sum += layer['actual-size'];
  }
  return sum;
}

/** The files that what lies in read-only drives builds on, by paths of this host. */
export function basesOf(devices: readonly BlockDevice[], paths: ProcessPaths): string[] {
  return devices
    .filter(({ inserted }) => inserted?.ro === true)
    .flatMap((device) => layersIn(device).slice(1))
    .flatMap(({ filename }) => (typeof filename === 'string' ? (paths.onHost(filename) ?? filename) : []));
}

/** From the top one down. */
function layersIn({ inserted }: BlockDevice): Readonly<Record<string, unknown>>[] {
  const layers: Readonly<Record<string, unknown>>[] = [];
  for (
    let layer: unknown = inserted?.image;
    isLayer(layer) && layers.length < MAX_LAYERS;
    layer = layer['backing-image']
  )
    layers.push(layer);
  return layers;
}

function isLayer(layer: unknown): layer is Readonly<Record<string, unknown>> {
  return typeof layer === 'object' && layer !== null;
}

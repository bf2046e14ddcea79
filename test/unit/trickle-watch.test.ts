/** Streams that trickle are found, and no others. */
import { TrickleWatch, type Watched } from '../../src/transport/trickle-watch';

function streams(rates: readonly number[]): Watched[] {
  return rates.map((rateBytesPerSecond, id) => ({ id, rateBytesPerSecond, active: true, busy: true }));
}

function idsOver(watch: TrickleWatch, seconds: number, at: (second: number) => Watched[]): number[] {
  return Array.from({ length: seconds }, (_, second) => watch.observe(second * 1000, at(second)))
    .flat()
    .map(({ id }) => id);
}

describe('the trickle watch', () => {
  it('names a stream far below its fellows for ten seconds, a tenth of them at a time', () => {
    const rates = [...Array.from({ length: 38 }, () => 100), 5, 6];
    const named = idsOver(new TrickleWatch(), 12, () => streams(rates));
    expect(named).toEqual([38, 39]);
    const many = [...Array.from({ length: 22 }, () => 100), ...Array.from({ length: 18 }, () => 1)];
    expect(idsOver(new TrickleWatch(), 12, () => streams(many))).toHaveLength(4);
  });

  it('leaves alone what is slow only now and then, what has nothing to send, and streams of a path that is slow as a whole', () => {
    expect(
      idsOver(new TrickleWatch(), 60, (second) => streams([100, 100, 100, 100, second % 9 === 0 ? 100 : 1])),
    ).toEqual([]);
    expect(
      idsOver(new TrickleWatch(), 60, () =>
        streams([100, 100, 100, 100, 0]).map((stream) => ({ ...stream, busy: stream.id < 4 })),
      ),
    ).toEqual([]);
    expect(idsOver(new TrickleWatch(), 60, () => streams([1, 1.2, 0.9, 1, 1.1]))).toEqual([]);
    expect(idsOver(new TrickleWatch(), 60, () => streams([100, 1]))).toEqual([]);
  });
});

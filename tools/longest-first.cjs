/**
 * In which order jest runs test files: those that take long, or wait long, before the others, so that no worker waits alone for one at
 * the end. A fresh clone knows no durations, and goes by the size of the files. Measured on a quiet machine; a file that is not named
 * here keeps its place behind them.
 */
const { default: Sequencer } = require('@jest/test-sequencer');

const LONGEST = [
  'system/crash-matrix',
  'system/hand-over',
  'workflow/migrate',
  'system/live-load',
  'system/kills',
  'system/outages',
  'system/guest-user',
  'workflow/cli',
  'integration/wrong-knowledge',
  'model/hand-over',
  'integration/hand-over',
  'contract/tcp-transport',
  'contract/batch-codec',
  'unit/codec-pool',
];

const rankOf = ({ path }) => {
  const rank = LONGEST.findIndex((name) => path.endsWith(`/${name}.test.js`));
  return rank < 0 ? LONGEST.length : rank;
};

module.exports = class LongestFirst extends Sequencer {
  sort(tests) {
    return [...super.sort(tests)].sort((a, b) => rankOf(a) - rankOf(b));
  }
};

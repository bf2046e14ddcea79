/**
 * Lint: the walls of docs/architecture.md as errors, and the habits of the code. WALLS lists, for each folder, what it may import
 * from the project; everything else is forbidden.
 */
const FOLDERS = [
  'workflows',
  'activities',
  'model',
  'system',
  'encoder',
  'transport',
  'store',
  'trust',
  'sync',
  'hypervisor',
  'agent',
  'control',
  'telemetry',
  'cli',
];

/** Imports go downwards: cli, agent, control -> activities -> sync, hypervisor -> encoder, transport, store -> model. */
const WALLS = {
  model: [],
  system: ['model'],
  encoder: ['model'],
  // The frame's size limits and checksum are the encoder's: one table of them, read by the layer that enforces it.
  transport: ['model', 'system', 'encoder'],
  store: ['model', 'system', 'encoder'],
  trust: ['model', 'system', 'store', 'transport'],
  // Of hypervisor its contract.
  sync: ['model', 'system', 'encoder', 'transport', 'store', 'hypervisor'],
  hypervisor: ['model', 'system'],
  telemetry: ['model'],
  activities: ['model', 'sync', 'store', 'transport', 'trust', 'hypervisor', 'telemetry'],
  workflows: ['model', 'activities'],
  control: ['model', 'system', 'activities', 'sync', 'store', 'transport', 'trust', 'telemetry'],
  agent: ['model', 'system', 'activities', 'sync', 'store', 'transport', 'trust', 'hypervisor', 'telemetry', 'control'],
};

const NODE = ['node:*', 'fs', 'net', 'path', 'os', 'crypto', 'child_process', 'worker_threads'];
const TEMPORAL = ['@temporalio/*'];

/** The rooms of src/sync: what each may import of the others. `ends` are the two hubs, which put it all together. */
const SYNC_ROOMS = ['codec', 'feeds', 'source', 'destination', 'guest', 'hand-over', 'upkeep'];
const SYNC_WALLS = {
  codec: [],
  feeds: ['codec'],
  upkeep: ['codec'],
  'hand-over': ['codec', 'source', 'words'],
  source: ['codec', 'feeds', 'hand-over', 'words'],
  guest: ['codec', 'feeds', 'source', 'words'],
  destination: ['codec', 'hand-over', 'words'],
};

function wall(folder, extra, files) {
  const forbidden = FOLDERS.filter((other) => other !== folder && !WALLS[folder].includes(other));
  return {
    files: files ?? [folder === 'workflows' || folder === 'activities' ? `${folder}/**/*.ts` : `src/${folder}/**/*.ts`],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            {
              group: forbidden.flatMap((other) => [`**/${other}`, `**/${other}/**`]),
              message: `src/${folder} may not import that: see WALLS in oxlint.config.mjs`,
            },
            ...(extra ?? []),
          ],
        },
      ],
    },
  };
}

/** Of a hypervisor's driver src/sync knows the contract alone. */
const contractOnly = {
  group: ['**/hypervisor/**', '!**/hypervisor/contract'],
  message: 'Of the hypervisor src/sync imports contract.ts alone',
};

function syncRoom(room) {
  const others = SYNC_ROOMS.filter((other) => other !== room && !SYNC_WALLS[room].includes(other));
  const ends = ['destination-hub', 'source-hub', ...(SYNC_WALLS[room].includes('words') ? [] : ['protocol'])];
  return wall(
    'sync',
    [
      noTemporal,
      contractOnly,
      {
        regex: `^\\.\\./((${others.join('|')})/|(${ends.join('|')})$)`,
        message: `src/sync/${room} may not import that: see SYNC_WALLS in oxlint.config.mjs`,
      },
    ],
    [`src/sync/${room}/*.ts`],
  );
}

const noNode = { group: NODE, message: 'This folder imports nothing of Node' };
const noTemporal = { group: TEMPORAL, message: 'This folder imports nothing of Temporal' };
const typesOnly = {
  group: ['**/activities', '**/activities/**'],
  allowTypeImports: true,
  message: 'Workflows import activities as types only',
};

/** What is wrong in any JavaScript. */
const WRONG = [
  'for-direction',
  'no-async-promise-executor',
  'no-case-declarations',
  'no-compare-neg-zero',
  'no-cond-assign',
  'no-constant-binary-expression',
  'no-constant-condition',
  'no-control-regex',
  'no-debugger',
  'no-delete-var',
  'no-dupe-else-if',
  'no-duplicate-case',
  'no-empty',
  'no-empty-character-class',
  'no-empty-pattern',
  'no-empty-static-block',
  'no-ex-assign',
  'no-extra-boolean-cast',
  'no-fallthrough',
  'no-global-assign',
  'no-invalid-regexp',
  'no-irregular-whitespace',
  'no-loss-of-precision',
  'no-misleading-character-class',
  'no-nonoctal-decimal-escape',
  'no-prototype-builtins',
  'no-regex-spaces',
  'no-self-assign',
  'no-shadow-restricted-names',
  'no-sparse-arrays',
  'no-unassigned-vars',
  'no-unexpected-multiline',
  'no-unsafe-finally',
  'no-unsafe-optional-chaining',
  'no-unused-labels',
  'no-unused-private-class-members',
  'no-useless-assignment',
  'no-useless-backreference',
  'no-useless-catch',
  'no-useless-escape',
  'preserve-caught-error',
  'require-yield',
  'use-isnan',
  'valid-typeof',
  'no-var',
  'prefer-const',
  'prefer-rest-params',
  'prefer-spread',
  'no-array-constructor',
  'no-unused-expressions',
  'no-unused-vars',
  'no-useless-constructor',
];

/** What types show to be wrong or not needed: typescript-eslint's `strict-type-checked`. */
const TYPED = [
  'await-thenable',
  'ban-ts-comment',
  'no-array-delete',
  'no-base-to-string',
  'no-deprecated',
  'no-duplicate-enum-values',
  'no-duplicate-type-constituents',
  'no-dynamic-delete',
  'no-empty-object-type',
  'no-explicit-any',
  'no-extra-non-null-assertion',
  'no-extraneous-class',
  'no-floating-promises',
  'no-for-in-array',
  'no-generated-empty-object-type',
  'no-implied-eval',
  'no-invalid-void-type',
  'no-meaningless-void-operator',
  'no-misused-new',
  'no-misused-promises',
  'no-misused-spread',
  'no-mixed-enums',
  'no-namespace',
  'no-non-null-asserted-nullish-coalescing',
  'no-non-null-asserted-optional-chain',
  'no-non-null-assertion',
  'no-redundant-type-constituents',
  'no-require-imports',
  'no-this-alias',
  'no-unnecessary-boolean-literal-compare',
  'no-unnecessary-condition',
  'no-unnecessary-template-expression',
  'no-unnecessary-type-arguments',
  'no-unnecessary-type-assertion',
  'no-unnecessary-type-constraint',
  'no-unnecessary-type-conversion',
  'no-unnecessary-type-parameters',
  'no-unsafe-argument',
  'no-unsafe-assignment',
  'no-unsafe-call',
  'no-unsafe-declaration-merging',
  'no-unsafe-enum-assignment',
  'no-unsafe-enum-comparison',
  'no-unsafe-function-type',
  'no-unsafe-member-access',
  'no-unsafe-return',
  'no-unsafe-unary-minus',
  'no-useless-default-assignment',
  'no-wrapper-object-types',
  'prefer-as-const',
  'prefer-literal-enum-member',
  'prefer-namespace-keyword',
  'prefer-reduce-type-parameter',
  'prefer-return-this-type',
  'related-getter-setter-pairs',
  'require-await',
  'restrict-plus-operands',
  'return-await',
  'triple-slash-reference',
  'unbound-method',
  'unified-signatures',
  'use-unknown-in-catch-callback-variable',
];

const asErrors = (names, prefix = '') => Object.fromEntries(names.map((name) => [`${prefix}${name}`, 'error']));
const off = (...names) => Object.fromEntries(names.map((name) => [name, 'off']));

export default {
  plugins: ['typescript'],
  options: { typeAware: true },
  categories: { correctness: 'off' },
  ignorePatterns: ['dist/**', 'node_modules/**', 'bench/out/**', '.dwcp/**'],
  rules: asErrors(WRONG),
  overrides: [
    {
      files: ['**/*.ts'],
      rules: {
        ...asErrors(TYPED, 'typescript/'),
        'no-restricted-exports': ['error', { restrictDefaultExports: { direct: true } }],
        'typescript/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
        'typescript/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
        'max-lines': ['error', { max: 400, skipBlankLines: true, skipComments: true }],
      },
    },
    wall('model', [noNode, noTemporal]),
    wall('system', [noTemporal]),
    wall('encoder', [noTemporal]),
    wall('transport', [noTemporal]),
    wall('store', [noTemporal]),
    wall('sync', [noTemporal, contractOnly]),
    ...SYNC_ROOMS.map(syncRoom),
    wall('hypervisor', [noTemporal]),
    wall('telemetry'),
    wall('activities', [{ group: ['@temporalio/workflow'], message: 'Activities run outside the sandbox' }]),
    {
      files: ['workflows/**/*.ts'],
      rules: {
        'no-restricted-imports': [
          'error',
          {
            patterns: [
              {
                group: FOLDERS.filter((other) => !['workflows', 'model', 'activities'].includes(other)).flatMap(
                  (other) => [`**/${other}/**`],
                ),
                message: 'Workflows import src/model, and activities as types',
              },
              noNode,
              typesOnly,
              {
                group: ['@temporalio/client', '@temporalio/worker', '@temporalio/activity'],
                message: 'Not in the workflow sandbox',
              },
            ],
          },
        ],
      },
    },
    wall('control'),
    wall('agent'),
    // Jest takes these two by their default export.
    { files: ['test/helpers/server-*.ts'], rules: off('no-restricted-exports') },
    {
      files: ['test/**/*.ts', 'bench/**/*.ts'],
      rules: off(
        'typescript/unbound-method',
        'typescript/no-non-null-assertion',
        'typescript/no-unnecessary-condition',
      ),
    },
  ],
};

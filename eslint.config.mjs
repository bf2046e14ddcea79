/**
 * Lint: the walls of docs/architecture.md as errors, and the habits of the code. WALLS lists, for each folder, what it may import
 * from the project; everything else is forbidden.
 */
import js from '@eslint/js';
import tseslint from 'typescript-eslint';

const FOLDERS = [
  'workflows',
  'activities',
  'model',
  'system',
  'encoder',
  'transport',
  'store',
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
  // Of hypervisor its contract.
  sync: ['model', 'system', 'encoder', 'transport', 'store', 'hypervisor'],
  hypervisor: ['model', 'system'],
  telemetry: ['model'],
  activities: ['model', 'sync', 'store', 'transport', 'hypervisor', 'telemetry'],
  workflows: ['model', 'activities'],
  control: ['model', 'system', 'activities', 'sync', 'store', 'transport', 'telemetry'],
  agent: ['model', 'system', 'activities', 'sync', 'store', 'transport', 'hypervisor', 'telemetry', 'control'],
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

function wall(folder, extra = [], files = undefined) {
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
              message: `src/${folder} may not import that: see WALLS in eslint.config.mjs`,
            },
            ...extra,
          ],
        },
      ],
    },
  };
}

/** Of a hypervisor's driver src/sync knows the contract alone. */
const contractOnly = {
  regex: '/hypervisor/(?!contract$)',
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
        message: `src/sync/${room} may not import that: see SYNC_WALLS in eslint.config.mjs`,
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

export default tseslint.config(
  { ignores: ['dist/**', 'node_modules/**', 'bench/out/**', '.dwcp/**'] },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [...tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      'no-restricted-exports': ['error', { restrictDefaultExports: { direct: true } }],
      'no-restricted-syntax': [
        'error',
        { selector: 'TSEnumDeclaration', message: 'A union or a constant object, no enum' },
      ],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/prefer-promise-reject-errors': 'off',
      '@typescript-eslint/only-throw-error': 'off',
      'max-lines': ['error', { max: 400, skipBlankLines: true, skipComments: true }],
    },
  },
  {
    files: ['**/*.mjs', '**/*.cjs'],
    languageOptions: {
      globals: {
        process: 'readonly',
        console: 'readonly',
        setTimeout: 'readonly',
        module: 'writable',
        require: 'readonly',
        __dirname: 'readonly',
        Buffer: 'readonly',
        fetch: 'readonly',
      },
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
      '@typescript-eslint/no-restricted-imports': [
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
  { files: ['test/helpers/server-*.ts'], rules: { 'no-restricted-exports': 'off' } },
  {
    files: ['test/**/*.ts', 'bench/**/*.ts'],
    rules: {
      '@typescript-eslint/unbound-method': 'off',
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/no-unnecessary-condition': 'off',
    },
  },
);

/**
 * What of a guest's command may be a secret. A command travels by way of Temporal, which keeps it for weeks, and what is said against
 * one does too: so it is looked at for such words before anything else, and no answer repeats a value. Whether a command may run is
 * allowed-options.ts's.
 */
import { DwcpError } from '../../model/errors';
import { optionWords } from './option-words';

const NAMES =
  'pass(?:word|wd|phrase)?|passw|pwd|secret|token|credentials?|api-?_?key|private-?_?key|auth-?_?key|keyring';
/** `...password=x`, `"data": "x"`; what only switches it on or off, or names an object, gives nothing away. */
const PAIR = new RegExp(
  `(?:^|[\\s,;?&{."':=_-])(${NAMES})(?:[_-]?(?:data|string|text|value|b64|base64))?["']?\\s*[=:]\\s*["']?(?!(?:on|off|yes|no|true|false)?["']?(?:[,}\\s]|$))`,
  'i',
);
/** A name and a password before a host. */
const IN_ADDRESS = /:\/\/[^/\s,@]*:[^/\s,@]+@/;
/** A key in the words of Ceph. */
const IN_RBD = /^(?:[^,]*=)?rbd:.*[:,]key=/;
/** What systemd takes its credentials from, on the kernel's command line and in the firmware's tables. */
const SYSTEMD = /io\.systemd\.credential|systemd\.set_credential/;
const SECRET_OBJECT =
  /(?:^|[=":,\s])(?:secret(?:_keyring)?|tls-cipher-suites|tls-creds-[a-z0-9]+|cryptodev-[a-z-]+|sev-guest|sev-snp-guest|tdx-guest)(?=$|[",\s])/;
/** Items that firmware itself reads: switches, numbers. */
const OF_FIRMWARE = /(?:^|,)(?:name=)?(?:opt\/(?:org\.tianocore|ovmf|org\.seabios)|etc)\/[\w./-]{1,100}(?=,|$)/;
const SHORT = /(?:^|,)string=[\w.,-]{1,32}$/;

/** What of one option may be a secret, in words that hold none of it. */
function secretIn(flag: string, value: string): string | undefined {
  if (SYSTEMD.test(value)) return 'a credential of systemd’s';
  if (IN_ADDRESS.test(value)) return 'a password in an address';
  if (IN_RBD.test(value)) return 'a key of Ceph’s';
  if (['-object', ''].includes(flag) && SECRET_OBJECT.test(value)) return 'an object that holds a key';
  if (flag === '-fw_cfg' && /(?:^|,)string=|"string"/.test(value) && !(OF_FIRMWARE.test(value) && SHORT.test(value)))
    return 'string=, by which machines are configured';
  if (flag === '-smbios' && /(?:^|,)value=|"value"/.test(value)) return 'value=, by which machines are configured';
  const name = PAIR.exec(value)?.[1];
  return name === undefined ? undefined : `${name.toLowerCase()}=`;
}

/** @throws GUEST_REFUSED with one line that holds no value of the command */
export function assertNoSecrets(command: readonly string[]): void {
  for (const { flag, value } of optionWords(command.slice(1))) {
    // A word whose option is not known is looked at by itself.
    const option = flag.startsWith('-') && /^[\w-]{1,40}$/.test(flag) ? flag : 'a word';
    const found = value === undefined ? secretIn('', flag) : secretIn(flag.replace(/^--/, '-'), value);
    if (found !== undefined)
      throw new DwcpError(
        'GUEST_REFUSED',
        `The guest’s command may hold a secret: ${option} with ${found}. What a guest is started with is kept in Temporal’s history`,
        {
          side: 'source',
          hint: 'Hand it to the guest on a disk (cloud-init, ignition), or have the guest fetch it; then start the guest without it',
        },
      );
  }
}

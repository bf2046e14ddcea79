/** Whether a guest's command can do without KVM, and whether its QEMU could use it on this host. */
import { existsSync } from 'node:fs';
import type { DwcpError } from '../../model/errors';
import { cannotRunHere } from '../../model/guest-refusals';
import type { GuestPolicy } from './guest-policy';
import { mayUse } from './guest-user';
import { parseOptionText, valueIn } from './option-text';
import { optionWords } from './option-words';

const KVM = '/dev/kvm';
const MEND = 'start the guest anew with -accel tcg';

/** The command asks for KVM, and for nothing where there is none (`kvm:tcg`, a second -accel). */
export function needsKvm(command: readonly string[]): boolean {
  const asked = optionWords(command.slice(1)).flatMap(({ flag, value = '' }) => {
    if (flag === '-enable-kvm') return ['kvm'];
    if (flag === '-accel') return [keyOf(value, 'accel', 'accel')];
    return flag === '-machine' || flag === '-M' ? (keyOf(value, 'accel', 'type')?.split(':') ?? []) : [];
  });
  return asked.length > 0 && asked.every((accelerator) => accelerator === 'kvm');
}

/** @throws GUEST_REFUSED where it needs KVM and may not have it here */
export function assertKvm(command: readonly string[], { user }: Pick<GuestPolicy, 'user'>, path: string = KVM): void {
  if (!needsKvm(command)) return;
  if (!existsSync(path)) throw refused(`this host has no ${path}: load kvm_intel or kvm_amd, or ${MEND}`);
  if (user && !mayUse(path, 'write', user))
    throw refused(
      `${user.name} may not use ${path} here: give it the group of that (usermod --gid kvm ${user.name}), or ${MEND}`,
    );
}

function keyOf(value: string, key: string, unsaid: string): string | undefined {
  const parsed = parseOptionText(value, unsaid);
  return parsed && valueIn(parsed, key);
}

function refused(reason: string): DwcpError {
  return cannotRunHere(`it needs KVM, and ${reason}`);
}

/**
 * That a guest is not moved, before anything of it is sent: as its source says it, and as its destination does. One line, which names
 * the thing and, with it or as the hint, the mend.
 */
import { DwcpError, type DwcpErrorFields, hasCode } from './errors';

/** @param reason what stands in the way at the source */
export function cannotBeMovedLive(reason: string, fields: DwcpErrorFields = {}): DwcpError {
  return new DwcpError('GUEST_REFUSED', `The guest cannot be moved live: ${reason}`, { ...fields, side: 'source' });
}

/** @param reason what stands in the way at the destination */
export function cannotRunHere(reason: string, fields: DwcpErrorFields = {}): DwcpError {
  return new DwcpError('GUEST_REFUSED', `The guest cannot run here: ${reason}`, { ...fields, side: 'destination' });
}

/** What QEMU refuses once, before the point of no return, it refuses again. @throws that, or what was wrong else */
export function throwCannotRun(error: unknown): never {
  if (!hasCode(error, 'QEMU_REFUSED')) throw error;
  const { message, hint, spec } = error;
  throw cannotRunHere(message, { cause: error, ...(hint !== spec.mend && { hint }) });
}

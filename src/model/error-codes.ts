/**
 * The one table of error codes: what each means, what may be done about it and how the `dwcp` command ends on it.
 * Retry policies, fallback, parking, exit codes and docs/errors.md all come from here.
 *
 *   transient   trying again may help; activities retry with capped back-off, without limit
 *   operator    trying again helps only after somebody changed something: the workflow parks and says what
 *   permanent   trying again cannot help; `fallback` says whether the standard transfer may still succeed
 */

import { type ErrorCodeSpec, spec } from './error-code-spec';
import { EXIT } from './exit-codes';

export const ERROR_CODES = {
  INVALID_INPUT: spec(
    'permanent',
    EXIT.usage,
    'A value given to DWCP is outside what it takes',
    'Correct the value that the message names',
  ),
  CONFIG_INVALID: spec(
    'permanent',
    EXIT.usage,
    'A flag, variable or configuration file holds an unknown name or a bad value',
    'Correct it; docs/configuration.md lists all of them',
  ),
  INTERNAL: spec('transient', EXIT.internal, 'A fault of DWCP itself', 'Report it with the log of that time'),
  VM_UNKNOWN: spec(
    'permanent',
    EXIT.notFound,
    'The host knows no VM of that name',
    'Define it with `dwcp vm define`, or look with `dwcp vm list`',
  ),
  VM_NOT_HERE: spec(
    'permanent',
    EXIT.refused,
    'The VM is known to the host but lives on another one now',
    'Name the host that owns it as the source',
  ),
  VM_BUSY: spec('permanent', EXIT.refused, 'Another migration owns the VM on this host', 'Wait for it, or cancel it'),
  VM_RUNNING: spec(
    'permanent',
    EXIT.refused,
    'The VM runs, and its driver moves stopped VMs only',
    'Stop the VM first',
  ),
  VM_EXISTS: spec(
    'permanent',
    EXIT.refused,
    'The host already holds a VM or an image in that place',
    'Remove it there, or choose another host',
  ),
  MIGRATION_IN_PROGRESS: spec(
    'permanent',
    EXIT.refused,
    'A migration of this VM is open already',
    'Follow it with `dwcp status`, or cancel it first',
  ),
  MIGRATION_UNKNOWN: spec(
    'permanent',
    EXIT.notFound,
    'No migration of that name is known, or it has ended',
    'List them with `dwcp status`',
  ),
  MIGRATION_FAILED: spec(
    'permanent',
    EXIT.failed,
    'The migration ended without success; the VM is where it was',
    'Read the cause below it, mend that, start again',
  ),
  ALREADY_PAST_RETURN: spec(
    'permanent',
    EXIT.refused,
    'The point of no return has passed; the migration completes forward',
    'Let it complete, then migrate back',
  ),
  CANCELLED: spec('permanent', EXIT.cancelled, 'The work was cancelled', 'Start it again when wanted'),
  NOT_PARKED: spec(
    'permanent',
    EXIT.refused,
    'The migration is not waiting for an operator',
    'Nothing to do; look with `dwcp status`',
  ),
  IMAGE_UNREADABLE: spec(
    'operator',
    EXIT.failed,
    'An image cannot be opened or read',
    'Check the path, its rights and the disk, then retry',
  ),
  IMAGE_CHANGED: spec(
    'operator',
    EXIT.integrity,
    'The source image changed while it was being read',
    'Stop what writes to it, then retry',
  ),
  IMAGE_UNWRITABLE: spec(
    'operator',
    EXIT.failed,
    'An image cannot be created or written at the destination',
    'Check the path, its rights and the disk, then retry',
  ),
  PLACE_REFUSED: spec(
    'permanent',
    EXIT.refused,
    'A disk is not put where it was to lie at the destination: that is not there, in use, too small, another’s, or holds something',
    'Name another place with `--disk-map`, or mend what the message names',
  ),
  DISK_FULL: spec(
    'operator',
    EXIT.diskFull,
    'The disk that holds an image, a journal or a baseline is full',
    'Free space (`dwcp baseline prune` helps), then `dwcp retry`',
  ),
  TOOL_MISSING: spec(
    'operator',
    EXIT.refused,
    'A program that this step needs is not installed on the host',
    'Install it, then try again',
  ),
  STORE_LIMIT: spec(
    'operator',
    EXIT.diskFull,
    'The store has reached its size limit and nothing in it may be removed',
    'Raise storeLimit or prune baselines',
  ),
  MEMORY_LIMIT: spec(
    'transient',
    EXIT.refused,
    'The images that are being received have all the memory that the host keeps for bookkeeping',
    'It is tried again by itself; raise bookkeepingMemory there, or move fewer images at a time',
  ),
  HOST_TOO_SMALL: spec(
    'operator',
    EXIT.refused,
    'One image needs more memory for bookkeeping than the host has for all',
    'Raise bookkeepingMemory on that host and restart its agent, then `dwcp retry`',
  ),
  JOURNAL_CORRUPT: spec(
    'operator',
    EXIT.integrity,
    'A journal is damaged before its last record',
    'Keep the file for a report, move it away, then retry',
  ),
  INTEGRITY_MISMATCH: spec(
    'transient',
    EXIT.integrity,
    'Source and destination differ after a transfer that claims to be complete',
    'It is measured and sent again by itself',
  ),
  PEER_UNTRUSTED: spec(
    'operator',
    EXIT.refused,
    'The other side of a connection shows no key, or not the one of the host that it has to be',
    'Look which agent listens there; a host that has a new key or was revoked is let in again as docs/security.md says',
  ),
  NOT_AUTHORISED: spec(
    'permanent',
    EXIT.refused,
    'A host was asked for what no signed word of the control plane, or of whoever may ask for it, says',
    'Ask by `dwcp` as a user of this trust folder; look who else reaches Temporal. docs/security.md, warrants',
  ),
  WARRANT_EXPIRED: spec('permanent', EXIT.refused, 'The time of a warrant is over', 'Renewed by itself: check clocks'),
  GRANT_INVALID: spec(
    'transient',
    EXIT.refused,
    'The session’s token is wrong, for another session, or has expired',
    'It is renewed by itself; check the clocks of both hosts',
  ),
  HELLO_REFUSED: spec(
    'permanent',
    EXIT.refused,
    'The destination agent refuses DWCP sessions',
    'Start its agent with acceptDwcp true',
    'fallback',
  ),
  PROTOCOL_VERSION: spec(
    'permanent',
    EXIT.refused,
    'The two agents speak no common version of the wire protocol',
    'Bring both agents to the same release',
    'fallback',
  ),
  PROTOCOL_VIOLATION: spec(
    'permanent',
    EXIT.failed,
    'A peer sent what the wire protocol forbids; the session was ended',
    'Bring both agents to the same release; report it',
    'fallback',
  ),
  FRAME_CORRUPT: spec(
    'transient',
    EXIT.integrity,
    'A frame arrived damaged; the session was ended',
    'It is sent again by itself',
  ),
  ENCODER_FAILED: spec(
    'permanent',
    EXIT.failed,
    'Encoding or decoding failed for good',
    'Report it; the standard transfer takes over',
    'fallback',
  ),
  PEER_UNREACHABLE: spec(
    'transient',
    EXIT.unreachable,
    'No connection to the other agent’s data plane',
    'Check address, port and firewall with `dwcp doctor`',
  ),
  PATH_OUTAGE: spec(
    'transient',
    EXIT.unreachable,
    'All streams of the session are dead',
    'It goes on by itself when the path is back',
  ),
  SESSION_LOST: spec(
    'transient',
    EXIT.unreachable,
    'The control connection of the session ended',
    'It is established again by itself',
  ),
  REQUEST_TIMEOUT: spec(
    'transient',
    EXIT.unreachable,
    'The other agent did not answer in time',
    'It is asked again by itself',
  ),
  SUPERSEDED: spec('transient', EXIT.refused, 'A newer attempt took this work over', 'Nothing to do'),
  HOST_UNAVAILABLE: spec(
    'operator',
    EXIT.unreachable,
    'No agent of that host takes work from Temporal',
    'Start the agent on that host, then `dwcp retry`',
  ),

  QEMU_UNREACHABLE: spec(
    'operator',
    EXIT.unreachable,
    'The monitor of a QEMU cannot be reached, or has gone',
    'Check that the guest runs and that no other client holds its monitor, then retry',
  ),
  QEMU_TIMEOUT: spec(
    'transient',
    EXIT.unreachable,
    'QEMU did not answer or report in time',
    'It is asked again by itself',
  ),
  QEMU_REFUSED: spec('permanent', EXIT.refused, 'QEMU refused a command', 'The message has QEMU’s own reason'),
  QEMU_PROTOCOL: spec(
    'permanent',
    EXIT.failed,
    'What answers as a QEMU monitor does not speak QMP',
    'Name the socket of a QMP monitor (-qmp unix:PATH,server=on,wait=off)',
  ),
  STREAM_NOT_UNDERSTOOD: spec(
    'permanent',
    EXIT.failed,
    'QEMU’s migration stream holds what DWCP does not take apart',
    'The standard transfer takes over',
    'fallback',
  ),

  GUEST_PAUSED: spec(
    'permanent',
    EXIT.refused,
    'The guest is paused, shut down or in an error state: only a running one is moved live',
    'Let it run (`cont`), or stop it and move it stopped',
  ),
  GUEST_REFUSED: spec(
    'permanent',
    EXIT.refused,
    'The preflight found a reason why this guest cannot be moved live',
    'Mend what the message names; `--force` overrides those that may be overridden',
  ),
  HOOK_VETO: spec(
    'operator',
    EXIT.refused,
    'A hook of one of the two hosts says no, hangs, or may not be run; the guest runs on',
    'Do what its line says, then `dwcp retry`, or `dwcp cancel`; docs/runbook.md, hooks',
  ),
  GUEST_RUNS_ON: spec(
    'permanent',
    EXIT.failed,
    'The switchover was broken off before the hand-over; the guest runs on at the source',
    'The migration goes on with further rounds by itself',
  ),
  GUEST_NOT_CONVERGING: spec(
    'operator',
    EXIT.parked,
    'The guest changes its memory or its disks faster than the link carries them; it runs on undisturbed',
    '`dwcp retry` with --max-downtime or --auto-converge, wait and retry, or `dwcp cancel`',
  ),
  GUEST_POWERED_OFF: spec(
    'permanent',
    EXIT.refused,
    'The guest has powered itself off, or its QEMU was told to end, while it was being moved: its disks are whole',
    'Migrate it again: it moves as a stopped VM; or start it with `dwcp vm start`',
  ),
  GUEST_LOST: spec(
    'permanent',
    EXIT.failed,
    'The guest’s QEMU has ended, and with it what only its memory held',
    'As after a crash of the host: start the VM from its disks with `dwcp vm start`',
  ),

  FENCED: spec(
    'permanent',
    EXIT.refused,
    'A newer migration of this VM has been seen; this one may not go on',
    'Look with `dwcp status` which one it is',
  ),
  ABANDONED: spec(
    'permanent',
    EXIT.refused,
    'The destination has promised not to start this VM for this migration',
    'Start a new migration',
  ),
  HANDOVER_IN_DOUBT: spec(
    'transient',
    EXIT.parked,
    'The source has handed over and the destination has not said whether it took over',
    'It keeps asking; bring the destination agent back',
  ),

  PAYLOAD_UNREADABLE: spec(
    'operator',
    EXIT.refused,
    'What Temporal holds of a migration is encrypted with a key that this process has not been given, or was changed',
    'Give it the key (payloadKeyFile) that the others have, start it again, then `dwcp retry`',
  ),
  CONTROL_PLANE_UNREACHABLE: spec(
    'transient',
    EXIT.controlPlane,
    'The Temporal server cannot be reached',
    'Check TEMPORAL_ADDRESS, or start one with `dwcp server`',
  ),
  SERVER_UNAVAILABLE: spec(
    'permanent',
    EXIT.controlPlane,
    'No Temporal server could be found, downloaded or built',
    'The message names each way tried; mend one of them',
  ),
} as const satisfies Record<string, ErrorCodeSpec>;

export type ErrorCode = keyof typeof ERROR_CODES;

export function isErrorCode(text: string): text is ErrorCode {
  return Object.hasOwn(ERROR_CODES, text);
}

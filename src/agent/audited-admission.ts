/**
 * Writes down who is let in over the data plane, and who is refused and why. A session's further streams and what is opened ahead are
 * not lines of their own; of refusals so many a minute are, the rest is counted: a log that anybody can fill is none.
 */
import { toDwcpError } from '../model/errors';
import type { AuditLog } from '../store/audit-log';
import { refusalsOf, type WriteRefusal } from '../store/audit-refusals';
import type { Admission, Refused } from '../transport/endpoint';

export interface AuditedAdmission {
  readonly admit: Admission;
  readonly refused: Refused;
}

export function auditedAdmission(
  audit: Pick<AuditLog, 'write'>,
  admit: Admission,
  refused: WriteRefusal = refusalsOf(audit),
): AuditedAdmission {
  return {
    admit: (hello, connection) => {
      const { role, stream, sessionId, sourceHost } = hello;
      const who = {
        role,
        sessionId,
        sourceHost,
        proven: connection.peer?.hostId,
        address: connection.socket.remoteAddress,
      };
      try {
        const admitted = admit(hello, connection);
        if (stream === 0 && role !== 'data' && role !== 'idle') audit.write('let_in', who);
        return admitted;
      } catch (error) {
        refused({ ...who, code: toDwcpError(error, 'INTERNAL').code });
        throw error;
      }
    },
    refused: (error, address) => refused({ address, code: error.code, why: error.message }),
  };
}

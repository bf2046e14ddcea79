/**
 * Writes down who is let in over the data plane, and who is refused and why. A session's further streams and what is opened ahead are
 * not lines of their own; of refusals so many a minute are, the rest is counted: a log that anybody can fill is none.
 */
import { toDwcpError } from '../model/errors';
import type { AuditLog } from '../store/audit-log';
import type { Admission } from '../transport/endpoint';

const REFUSALS_A_MINUTE = 60;
const MINUTE_MS = 60_000;

export function auditedAdmission(audit: Pick<AuditLog, 'write'>, admit: Admission): Admission {
  let [minute, refusals, more] = [0, 0, 0];
  const refused = (details: Parameters<AuditLog['write']>[1]): void => {
    const now = Math.floor(Date.now() / MINUTE_MS);
    if (now !== minute) {
      if (more > 0) audit.write('more_refused', { count: more });
      [minute, refusals, more] = [now, 0, 0];
    }
    refusals += 1;
    if (refusals > REFUSALS_A_MINUTE) more += 1;
    else audit.write('refused', details);
  };
  return (hello, connection) => {
    const { role, stream, sessionId, sourceHost } = hello;
    const who = { role, sessionId, sourceHost, address: connection.socket.remoteAddress };
    try {
      const admitted = admit(hello, connection);
      if (stream === 0 && role !== 'data' && role !== 'idle') audit.write('let_in', who);
      return admitted;
    } catch (error) {
      refused({ ...who, code: toDwcpError(error, 'INTERNAL').code });
      throw error;
    }
  };
}

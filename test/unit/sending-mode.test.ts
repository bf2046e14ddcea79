/** What the sending side of a session is at: one transfer at a time, and an end that comes once. */
import { DwcpError } from '../../src/model/errors';
import { SendingMode } from '../../src/transport/sending-mode';
import type { SessionSupplier } from '../../src/transport/session-supplier';

const supplier = {} as SessionSupplier;

describe('the mode of a sending session', () => {
  it('goes from idle to transferring and back, one transfer at a time', async () => {
    const mode = new SendingMode();
    expect(() => mode.letGo()).toThrow('a session that is "idle" carries no transfer');
    const over = mode.transfer(supplier);
    expect(() => mode.transfer(supplier)).toThrow('one transfer at a time');
    mode.settle();
    await over;
    expect(mode.supplier).toBe(supplier);
    mode.letGo();
    expect(mode.supplier).toBeUndefined();
    expect(() => mode.letGo()).toThrow('carries no transfer');
  });

  it('ends once, and carries nothing any more but what it was carrying', async () => {
    const mode = new SendingMode();
    const over = mode.transfer(supplier);
    const reason = new DwcpError('SESSION_LOST', 'gone');
    expect([mode.end(reason), mode.end(new DwcpError('INTERNAL', 'later'))]).toEqual([true, false]);
    expect([mode.endedWith, mode.supplier]).toEqual([reason, supplier]);
    mode.settle(reason);
    await expect(over).rejects.toBe(reason);
    mode.letGo();
    expect(mode.supplier).toBeUndefined();
    expect(() => mode.transfer(supplier)).toThrow(reason);
    expect(() => mode.letGo()).toThrow('a session that is "ended" carries no transfer');
  });
});

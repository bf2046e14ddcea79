/**
 * What the sending side of a session is at, and what may follow. A step that would come out of turn throws.
 *
 *   idle -> transferring -> idle          ended: from each, once; a transfer is let go of behind that too
 */
import { DwcpError } from '../model/errors';
import type { SessionSupplier } from './session-supplier';

interface Transfer {
  readonly supplier: SessionSupplier;
  readonly settle: (error?: DwcpError) => void;
}

type Mode =
  | { readonly at: 'idle'; readonly transfer?: undefined }
  | { readonly at: 'transferring'; readonly transfer: Transfer }
  | { readonly at: 'ended'; readonly transfer: Transfer | undefined; readonly reason: DwcpError };

export class SendingMode {
  #mode: Mode = { at: 'idle' };

  /** Why it has ended. */
  get endedWith(): DwcpError | undefined {
    return this.#mode.at === 'ended' ? this.#mode.reason : undefined;
  }

  /** Streams pull from it just now. */
  get supplier(): SessionSupplier | undefined {
    return this.#mode.transfer?.supplier;
  }

  /** @returns how the transfer ends, as settle() says @throws why the session has ended; INTERNAL where another is under way */
  transfer(supplier: SessionSupplier): Promise<void> {
    if (this.#mode.at === 'ended') throw this.#mode.reason;
    if (this.#mode.at === 'transferring') throw new DwcpError('INTERNAL', 'a session carries one transfer at a time');
    return new Promise((resolve, reject) => {
      const settle = (error?: DwcpError): void => (error ? reject(error) : resolve());
      this.#mode = { at: 'transferring', transfer: { supplier, settle } };
    });
  }

  /** Ends the transfer that is under way; once. */
  settle(error?: DwcpError): void {
    this.#mode.transfer?.settle(error);
  }

  /** Nobody pulls from the supplier any more. @throws INTERNAL where there is none */
  letGo(): void {
    if (!this.#mode.transfer)
      throw new DwcpError('INTERNAL', `a session that is "${this.#mode.at}" carries no transfer`);
    this.#mode =
      this.#mode.at === 'ended' ? { at: 'ended', transfer: undefined, reason: this.#mode.reason } : { at: 'idle' };
  }

  /** @returns false where it had ended before */
  end(reason: DwcpError): boolean {
    if (this.#mode.at === 'ended') return false;
    this.#mode = { at: 'ended', transfer: this.#mode.transfer, reason };
    return true;
  }
}

/** At which region's broker one upload is: where it begins, and where it goes when that one is away or sends it on. */
import type { BrokerAnswer, BrokerClient, Fetch } from './broker.js';
import type { Control } from './control.js';
import { STOPPED } from './control.js';
import { UploadBrokerError } from './errors.js';
import type { UploadOptions } from './order.js';
import type { Records } from './records.js';
import { nearest, takerOf, withoutSlash } from './route.js';

export class Regions {
  /** The token goes to these, and to no other address. */
  readonly #known: string[];
  /** Whether it is said which broker to begin at. */
  readonly #isChosen: boolean;
  readonly #broker: BrokerClient;
  readonly #records: Records;
  readonly #control: Control;
  readonly #nearest: (signal: AbortSignal) => Promise<string>;
  /** The brokers that did not answer. */
  readonly #failed = new Set<string>();
  /** The brokers that the upload was sent to, so that it is not sent in circles. */
  readonly #wasSent = new Set<string>();

  /** A region has `withinMs` to answer. */
  constructor({ broker, regions }: UploadOptions, client: BrokerClient, records: Records, control: Control, fetch: Fetch, withinMs: number) {
    this.#known = (regions ?? []).map(withoutSlash);
    this.#isChosen = Boolean(broker);
    this.#broker = client;
    this.#records = records;
    this.#control = control;
    this.#nearest = (signal) => nearest(this.#known, fetch, signal, this.#failed, withinMs);
  }

  /** Turns to the nearest region that answers, where it is not said which broker to use. */
  async choose(): Promise<void> {
    if (this.#known.length === 0 || this.#isChosen) return;
    // Cut off by a pause, it is asked again after that.
    for (;;) {
      const base = await this.#control.cuttable(async (signal) => {
        const found = await this.#nearest(signal);
        return signal.reason === STOPPED ? STOPPED : found;
      });
      if (base !== STOPPED) return void (this.#broker.base = base);
      await this.#control.gate();
    }
  }

  /** Before a creation that nobody answered is sent again: perhaps another region can be reached. */
  async leave(): Promise<void> {
    const before = this.#broker.base;
    this.#failed.add(before);
    await this.choose();
    if (this.#broker.base !== before) await this.#records.moved(this.#broker.base);
  }

  /** Goes on with the broker that took the upload, if that is not the one that was asked to create it. */
  async follow(created: BrokerAnswer): Promise<BrokerAnswer> {
    const taker = 'upload' in created ? takerOf(created.location, created.upload.id) : undefined;
    if (taker === undefined || taker === this.#broker.base) return created;
    if (!this.#known.includes(taker)) {
      // Without the token nothing can be known of the upload.
      return { from: 'broker', problem: new UploadBrokerError('misdirected', `the broker had the upload created at ${taker}, which is not among the regions`) };
    }
    await this.#move(taker);
    return created;
  }

  /** Whether another region is to be asked the same: the nearest one at the creation, later the one that took the upload. */
  async isSentOn({ code, problem }: UploadBrokerError): Promise<boolean> {
    const elsewhere = code === 'misdirected' && problem?.url ? withoutSlash(problem.url) : undefined;
    if (elsewhere === undefined || !this.#known.includes(elsewhere) || elsewhere === this.#broker.base || this.#wasSent.has(elsewhere)) return false;
    this.#wasSent.add(elsewhere);
    await this.#move(elsewhere);
    return true;
  }

  /** A broker did what it was asked: whoever sends the upload on from here does so for a new reason. */
  answered(): void {
    this.#wasSent.clear();
  }

  async #move(base: string): Promise<void> {
    this.#broker.base = base;
    await this.#records.moved(base);
  }
}

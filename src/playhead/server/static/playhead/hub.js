// All subscriptions, of all tabs, and who carries each: connections to POST /v1/follow, up to 64 on each; with a server
// that has no such door, a request for each stream.

import { Follow } from "./follow.js";
import { Native } from "./native.js";
import { Subscription } from "./subscription.js";

export class Hub {
  #subscriptions = new Map(); // key → subscription
  #carriers = new Set();
  #isNative = false;

  /**
   * @param {object} how
   * @param {string} how.url  of the server, with a slash at its end
   * @param {typeof fetch} how.fetch
   * @param {number} how.stallAfterMs
   * @param {(owner: string, frames: object[]) => void} how.deliver  what has come together for one tab
   */
  constructor(how) {
    this.how = how;
  }

  /** All that one owner (a tab) wants now. Those that are here already go on from where this hub is with them. */
  set(owner, wanted) {
    const keys = new Set(wanted.map(({ key }) => key));
    for (const words of wanted) {
      if (!this.#subscriptions.has(words.key)) this.#carry(new Subscription(owner, words));
    }
    for (const [key, subscription] of this.#subscriptions) {
      if (subscription.owner === owner && !keys.has(key)) this.#drop(subscription);
    }
  }

  keys(owner) {
    return [...this.#subscriptions.values()].filter((each) => each.owner === owner).map(({ key }) => key);
  }

  tick() {
    for (const carrier of this.#carriers) carrier.tick();
  }

  wake() {
    for (const carrier of this.#carriers) carrier.wake();
  }

  offline() {
    for (const carrier of this.#carriers) carrier.offline();
  }

  online() {
    for (const carrier of this.#carriers) carrier.online();
  }

  close() {
    for (const carrier of this.#carriers) carrier.close();
    this.#carriers.clear();
    this.#subscriptions.clear();
  }

  // ---- for carriers ----------------------------------------------------------------------------------------

  /** Hands out frames, with the subscription of each, that have come together; what they end is forgotten. */
  deliver(frames) {
    const byOwner = new Map();
    for (const [subscription, frame] of frames) {
      if (this.#subscriptions.get(subscription.key) !== subscription) continue;
      subscription.remember(frame);
      if (subscription.isOver) this.#drop(subscription);
      if (!byOwner.has(subscription.owner)) byOwner.set(subscription.owner, []);
      byOwner.get(subscription.owner).push({ ...frame, key: subscription.key });
    }
    for (const [owner, owned] of byOwner) this.how.deliver(owner, owned);
  }

  /** The server has no door for many streams. */
  goNative() {
    this.#isNative = true;
    const all = [...this.#subscriptions.values()];
    this.close();
    for (const subscription of all) this.#carry(subscription);
  }

  #carry(subscription) {
    this.#subscriptions.set(subscription.key, subscription);
    let carrier = [...this.#carriers].find((each) => each.hasRoom);
    if (!carrier) this.#carriers.add((carrier = this.#isNative ? new Native(this) : new Follow(this)));
    subscription.carrier = carrier;
    carrier.add(subscription);
  }

  #drop(subscription) {
    const { carrier } = subscription;
    this.#subscriptions.delete(subscription.key);
    carrier.remove(subscription);
    if (!carrier.isEmpty) return;
    carrier.close();
    this.#carriers.delete(carrier);
  }
}

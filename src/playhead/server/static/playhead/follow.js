// One connection to POST /v1/follow for up to 64 subscriptions. When they change it is opened again, each from its
// newest cursor, so that nobody loses or repeats anything.

import { Connection, waitMs } from "./connection.js";
import { problemOf } from "./look.js";

const SUBSCRIPTIONS_MAX = 64;
const CHANGED_AFTER_MS = 10; // changes that come together are one
const OPENING_AT_MOST_MS = 250; // that long a change waits for the connection that is being opened

export class Follow {
  #hub;
  #subscriptions = new Map();
  #connection;
  #changeAt = Infinity;
  #timer = 0;

  constructor(hub) {
    this.#hub = hub;
    const { fetch, stallAfterMs } = hub.how;
    this.#connection = new Connection({
      fetch,
      stallAfterMs,
      request: () => this.#request(),
      opened: () => this.#opened(),
      read: (events) => this.#read(events),
      refused: (response) => this.#refused(response),
      signal: (signal) => this.#tell({ signal }),
    });
  }

  get hasRoom() {
    return this.#subscriptions.size < SUBSCRIPTIONS_MAX;
  }

  get isEmpty() {
    return this.#subscriptions.size === 0;
  }

  add(subscription) {
    this.#subscriptions.set(subscription.key, subscription);
    this.#changed();
  }

  remove(subscription) {
    this.#subscriptions.delete(subscription.key);
    if (!subscription.isOver) this.#changed();
  }

  tick() {
    if (Date.now() >= this.#changeAt) this.#open();
    else this.#connection.tick();
  }

  wake() {
    this.#connection.wake();
  }

  offline() {
    this.#connection.offline();
  }

  online() {
    this.#connection.online();
  }

  close() {
    this.#connection.stop();
    clearTimeout(this.#timer);
    this.#changeAt = Infinity;
    this.#subscriptions.clear();
  }

  #changed() {
    if (this.#connection.isIdle) this.#changeIn(0);
    else this.#changeIn(this.#connection.isOpening ? OPENING_AT_MOST_MS : CHANGED_AFTER_MS);
  }

  #changeIn(ms) {
    if (Date.now() + ms >= this.#changeAt) return;
    this.#changeAt = Date.now() + ms;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#open(), ms);
  }

  #open() {
    clearTimeout(this.#timer);
    this.#changeAt = Infinity;
    this.#connection.open();
  }

  #request() {
    if (this.isEmpty) return null;
    const body = JSON.stringify({ subscriptions: [...this.#subscriptions.values()].map((each) => each.words) });
    return {
      url: `${this.#hub.how.url}v1/follow`,
      init: { method: "POST", headers: { "content-type": "application/json" }, body },
    };
  }

  #opened() {
    if (this.#changeAt < Infinity) this.#changeIn(CHANGED_AFTER_MS);
    this.#tell({ signal: "open" });
  }

  #read(events) {
    const frames = [];
    for (const { data } of events) {
      const frame = JSON.parse(data);
      const subscription = this.#subscriptions.get(frame.key);
      if (!subscription) continue;
      frames.push([subscription, frame]);
      if (frame.type !== "playhead.error" || !frame.retryable) continue;
      frames.push([subscription, { type: "playhead.link", signal: "lost" }]);
      this.#changeIn(waitMs(subscription.troubles++));
    }
    this.#hub.deliver(frames);
  }

  async #refused(response) {
    if (response.status === 204) return false;
    if (response.status === 404 || response.status === 405) this.#hub.goNative();
    else this.#tell({ signal: "failed", problem: await problemOf(response) });
    return true;
  }

  #tell(words) {
    const frame = { type: "playhead.link", ...words };
    this.#hub.deliver([...this.#subscriptions.values()].map((each) => [each, frame]));
  }
}

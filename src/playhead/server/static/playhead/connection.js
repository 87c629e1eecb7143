// One HTTP response that is read for as long as it is wanted: opened again after every loss, with what the caller
// then asks for. Waits between attempts double from 0.5 s to 15 s and are spread by chance, so that a server which
// comes back is not met by all its readers at once.

import { EventParser } from "./sse.js";

const WAIT_MIN_MS = 500, WAIT_MAX_MS = 15_000, ASKED_WAIT_MAX_MS = 60_000;
const HOPELESS_AFTER_MS = 1_000; // an attempt this old may date from before the network came back
const PASSING = new Set([408, 425, 429]);

/** How long to wait before an attempt (0: the first again); `least` is the server's wish. */
export function waitMs(attempt, leastMs = 0, chance = Math.random()) {
  const longest = Math.min(2 * WAIT_MIN_MS * 2 ** attempt, WAIT_MAX_MS);
  return Math.max((longest / 2) * (1 + chance), leastMs * (1 + chance / 2));
}

export class Connection {
  #how;
  #abort = null; // of the request under way
  #isOpen = false; // its answer has begun
  #heardAt = 0;
  #attempt = 0;
  #leastMs = 0;
  #timer = 0;
  #dueAt = Infinity; // when to try again

  /**
   * @param {object} how
   * @param {typeof fetch} how.fetch
   * @param {number} how.stallAfterMs
   * @param {() => {url: string, init: RequestInit} | null} how.request  what to ask for now; null: nothing
   * @param {(response: Response) => void} how.opened  the answer is a stream of events
   * @param {(events: {id: string, type: string, data: string}[]) => void} how.read  as they come
   * @param {(response: Response) => Promise<boolean>} how.refused  no stream, and asking again will not help, or 204;
   *   true: it was dealt with. False: it is passing trouble
   * @param {(signal: "lost" | "offline" | "online") => void} how.signal
   */
  constructor(how) {
    this.#how = how;
  }

  /** Asks anew; a response being read is given up, for the caller wants something else now. */
  async open() {
    this.stop();
    const request = this.#how.request();
    if (!request) return;
    const abort = (this.#abort = new AbortController());
    const isOver = () => abort.signal.aborted;
    this.#heardAt = Date.now();
    try {
      const init = { cache: "no-store", ...request.init, signal: abort.signal };
      const response = await this.#how.fetch(request.url, init);
      if (isOver()) return;
      if (response.status === 200) await this.#read(response, isOver);
      else if (isHopeless(response.status) && (await this.#how.refused(response))) {
        if (!isOver()) this.stop();
        return;
      }
      else this.#leastMs = Math.min(1000 * (Number(response.headers.get("retry-after")) || 0), ASKED_WAIT_MAX_MS);
    } catch (error) {
      // TypeError is how fetch tells of a lost connection; anything else is a fault, of ours or in what was sent.
      if (!isOver() && !(error instanceof TypeError)) reportError(error);
    }
    if (!isOver()) this.#lost();
  }

  /** Lets go of everything. */
  stop() {
    this.#abort?.abort();
    this.#abort = null;
    this.#isOpen = false;
    clearTimeout(this.#timer);
    this.#dueAt = Infinity;
  }

  /** Nothing is asked for, and nothing will be. */
  get isIdle() {
    return this.#abort === null && this.#dueAt === Infinity;
  }

  get isOpening() {
    return this.#abort !== null && !this.#isOpen;
  }

  /** What is due, by the clock: timers of a tab that is hidden, frozen or asleep come late or not at all. */
  tick() {
    if (Date.now() >= this.#dueAt) return void this.open();
    if (this.#abort && Date.now() - this.#heardAt > this.#how.stallAfterMs) {
      this.#signalLost();
      this.open();
    }
  }

  /** The network is back, or somebody looks again: do not wait any longer. */
  wake() {
    const isHanging = this.isOpening && Date.now() - this.#heardAt > HOPELESS_AFTER_MS;
    if (this.#dueAt < Infinity || isHanging) this.open();
    else this.tick();
  }

  /** There is no network. It is tried all the same: a server on this machine needs none. */
  offline() {
    if (this.#abort) this.#lost();
    else if (this.#dueAt < Infinity) this.#how.signal("offline");
  }

  online() {
    if (!this.#isOpen) this.#how.signal("online");
    this.#attempt = 0; // the one under way may have left too early; the next does not wait as long as without a network
    this.wake();
  }

  async #read(response, isOver) {
    const parser = new EventParser();
    const reader = response.body.getReader();
    this.#isOpen = true;
    this.#attempt = 0;
    this.#heardAt = Date.now();
    this.#how.opened(response);
    try {
      while (!isOver()) {
        const { done, value } = await reader.read();
        if (done || isOver()) return;
        this.#heardAt = Date.now();
        const events = parser.feed(value);
        this.#leastMs = parser.retryMs;
        if (events.length) this.#how.read(events);
      }
    } finally {
      // For a `fetch` that does not obey its signal.
      reader.cancel().catch(() => {}); // an aborted body has nothing left to cancel
    }
  }

  #lost() {
    this.stop();
    this.#signalLost();
    const wait = waitMs(this.#attempt++, this.#leastMs);
    this.#dueAt = Date.now() + wait;
    this.#timer = setTimeout(() => this.open(), wait);
  }

  #signalLost() {
    this.#how.signal(navigator.onLine === false ? "offline" : "lost");
  }
}

/** 204: there is nothing (more); of errors those that the same request would meet again. */
function isHopeless(status) {
  return status === 204 || (status >= 300 && status < 500 && !PASSING.has(status));
}

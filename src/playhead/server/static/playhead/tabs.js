// One connection for all tabs of a browser: a browser opens only six to one server, and each live stream holds one.
//
// Whoever holds the lock leads: its hub carries the subscriptions of all tabs. The others stand in line for the lock,
// so that the next one leads as soon as the leader's tab is closed or crashes. Messages:
//
//     to all            {kind: "lead", term}           I lead now: tell me what you want
//     to the leader     {kind: "subs", tab, subs}      all that this tab wants, from its own cursors
//                       {kind: "ping", tab, keys}      are you there, and is this what you have of me?
//                       {kind: "wake"}                 somebody looks, or the network is back: do not wait
//     to one tab        {term, frames}                 its frames; none: a pong
//                       {term, ask: true}              tell me what you want
//
// A leader may freeze (the browser stops hidden pages) while it holds the lock. Tabs that are seen notice by the
// missing pongs and steal the lock; when the frozen one thaws it finds the lock gone and stands in line again. Terms
// grow with each leader: what an old one still says is not listened to. Each tab holds a lock of its own for as long as
// it lives; a leader that gets it knows that the tab is gone.
//
// Nothing depends on a message arriving: cursors are kept by the tabs (watch.js), subscriptions are told in full.

const BEAT_MS = 1_000;
const PONGS_MISSED_MAX = 3;

export function canShare() {
  // Locks exist on secure origins only.
  return typeof BroadcastChannel === "function" && Boolean(globalThis.navigator?.locks);
}

/** What a page is told from outside. Both ways of holding a connection, alone and shared, listen to it. */
function listen(on, signal) {
  const shown = () => (document.hidden ? on.hidden?.() : on.shown());
  for (const [target, name, act] of [
    [document, "visibilitychange", shown],
    [globalThis, "online", () => on.online()],
    [globalThis, "offline", () => on.offline?.()],
    [globalThis, "pagehide", () => on.pagehide?.()],
    [globalThis, "pageshow", (event) => (event.persisted && on.back ? on.back() : shown())],
  ]) target.addEventListener(name, act, { signal });
}

/** A connection of this tab's own, let go while nobody sees the tab. */
export class Alone {
  #hub;
  #now = () => [];
  #gone = new AbortController();
  #receive;

  constructor({ hub, receive }) {
    this.#receive = receive;
    this.#hub = hub((_, frames) => receive(frames));
    const beat = setInterval(() => this.#hub.tick(), BEAT_MS);
    this.#gone.signal.addEventListener("abort", () => clearInterval(beat));
    listen({
      hidden: () => this.#rest(),
      shown: () => { this.set(this.#now); this.#hub.wake(); },
      online: () => this.#hub.online(),
      offline: () => this.#hub.offline(),
      pagehide: () => this.#rest(),
    }, this.#gone.signal);
  }

  set(now) {
    this.#now = now;
    if (!document.hidden) this.#hub.set("", now());
  }

  close() {
    this.#gone.abort();
    this.#hub.close();
  }

  #rest() {
    this.#hub.close();
    this.#receive(this.#now().map(({ key }) => ({ key, type: "playhead.link", signal: "lost" })));
  }
}

export class Tabs {
  #how;
  #now = () => []; // what this tab wants
  #hub = null; // while this tab leads
  #term = 0; // of the newest leader
  #missed = 0; // pings in a row without an answer
  #isHere = false; // this tab's own lock is held
  #here = null; // aborted when this tab goes
  #standing = null; // this tab's place in the line for the lock
  #reign = null; // aborted when this tab leads no more
  #channel;
  #inboxes = new Map();
  #gone = new AbortController();

  /**
   * @param {object} how
   * @param {string} how.id  of this tab
   * @param {string} how.name  tabs with the same one share
   * @param {(deliver: Function) => import("./hub.js").Hub} how.hub  makes one
   * @param {(frames: object[]) => void} how.receive  takes the frames of this tab
   */
  constructor(how) {
    this.#how = how;
    listen({
      shown: () => this.#wake(),
      online: () => (this.#hub ? this.#hub.online() : this.#wake()),
      offline: () => this.#hub?.offline(),
      pagehide: () => this.#leave(),
      back: () => this.#join(),
    }, this.#gone.signal);
    this.#join();
  }

  /** @param {() => object[]} now  all subscriptions of this tab, from its newest cursors */
  set(now) {
    this.#now = now;
    this.#tell();
  }

  close() {
    this.#gone.abort();
    this.#leave();
  }

  // ---- coming and going ------------------------------------------------------------------------------------

  #join() {
    const { id, name } = this.#how;
    const here = (this.#here = new AbortController());
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => this.#heard(data);
    const inbox = new BroadcastChannel(`${name} ${id}`);
    inbox.onmessage = ({ data }) => this.#told(data);
    const beat = setInterval(() => this.#beat(), BEAT_MS);
    here.signal.addEventListener("abort", () => { inbox.close(); clearInterval(beat); });
    hold(`${name} ${id}`, { signal: here.signal }, here.signal, () => {
      this.#isHere = true;
      this.#tell();
    });
    this.#stand();
  }

  /** Also when the page goes into the browser's cache of pages, where it may not hold anything. */
  #leave() {
    if (!this.#here || this.#here.signal.aborted) return;
    this.#isHere = false;
    this.#abdicate();
    this.#standing.abort();
    this.#here.abort();
    this.#channel.close();
    this.#how.receive(this.#now().map(({ key }) => ({ key, type: "playhead.link", signal: "lost" })));
  }

  // ---- leading ---------------------------------------------------------------------------------------------

  /** Stands in line for the lock; leads from when it is got until it is stolen, or this tab goes. */
  async #stand(options = {}) {
    const standing = (this.#standing = new AbortController());
    // The Locks API takes no signal for stealing, which does not wait.
    const how = options.steal ? options : { signal: standing.signal };
    await hold(this.#how.name, how, standing.signal, () => this.#lead());
    if (standing.signal.aborted) return;
    this.#abdicate();
    this.#stand();
  }

  #steal() {
    this.#missed = 0;
    this.#standing.abort();
    this.#stand({ steal: true });
  }

  #lead() {
    this.#term = Math.max(this.#term + 1, Date.now());
    this.#reign = new AbortController();
    this.#hub = this.#how.hub((tab, frames) => this.#deliver(tab, frames));
    this.#channel.postMessage({ kind: "lead", term: this.#term });
    this.#tell();
  }

  #abdicate() {
    if (!this.#hub) return;
    this.#hub.close();
    this.#hub = null;
    this.#reign.abort();
    for (const inbox of this.#inboxes.values()) inbox.close();
    this.#inboxes.clear();
    this.#tell();
  }

  #deliver(tab, frames) {
    if (tab === this.#how.id) this.#how.receive(frames);
    else this.#answer(tab, { frames });
  }

  #answer(tab, words) {
    this.#inboxes.get(tab)?.postMessage({ term: this.#term, ...words });
  }

  /** A tab speaks for the first time: answer it from now on, and notice when it is gone. */
  #know(tab) {
    if (this.#inboxes.has(tab)) return;
    const lock = `${this.#how.name} ${tab}`;
    const { signal } = this.#reign;
    const inbox = new BroadcastChannel(lock);
    this.#inboxes.set(tab, inbox);
    const over = new AbortController();
    hold(lock, { signal }, over.signal, () => {
      over.abort();
      if (signal.aborted) return;
      this.#inboxes.delete(tab);
      inbox.close();
      this.#hub.set(tab, []);
    });
  }

  // ---- talking ---------------------------------------------------------------------------------------------

  #tell() {
    if (!this.#isHere) return;
    if (this.#hub) this.#hub.set(this.#how.id, this.#now());
    else this.#channel.postMessage({ kind: "subs", tab: this.#how.id, subs: this.#now() });
  }

  #wake() {
    if (this.#hub) this.#hub.wake();
    else if (this.#isHere) this.#channel.postMessage({ kind: "wake" });
  }

  #beat() {
    if (this.#hub) return this.#hub.tick();
    const keys = this.#now().map(({ key }) => key);
    if (document.hidden || !keys.length || !this.#isHere) {
      this.#missed = 0;
    } else if (this.#missed >= PONGS_MISSED_MAX) {
      this.#steal();
    } else {
      this.#missed += 1; // counted, not timed: a laptop that slept has missed nothing
      this.#channel.postMessage({ kind: "ping", tab: this.#how.id, keys });
    }
  }

  #heard({ kind, term, tab, subs, keys }) {
    if (kind === "lead") {
      if (term <= this.#term) return;
      this.#term = term;
      this.#missed = 0;
      if (this.#hub) this.#abdicate(); // the lock was stolen; its news are still under way
      else this.#tell();
    } else if (this.#hub && kind === "wake") {
      this.#hub.wake();
    } else if (this.#hub) {
      this.#know(tab);
      if (kind === "subs") this.#hub.set(tab, subs);
      this.#hub.tick(); // timers of hidden tabs are late, messages are not
      const isSame = kind === "subs" || sameKeys(keys, this.#hub.keys(tab));
      this.#answer(tab, isSame ? { frames: [] } : { ask: true });
    }
  }

  #told({ term, frames = [], ask }) {
    if (this.#hub || term < this.#term) return;
    this.#term = term;
    this.#missed = 0;
    if (ask) this.#tell();
    else if (frames.length) this.#how.receive(frames);
  }
}

const sameKeys = (one, other) => one.length === other.length && one.every((key) => other.includes(key));

/** Holds a lock from when it is got until `until`; resolves when it is held no more, or never will be. */
async function hold(name, options, until, got) {
  try {
    await navigator.locks.request(name, options, async () => {
      if (until.aborted) return;
      got();
      if (!until.aborted) await new Promise((done) => until.addEventListener("abort", done));
    });
  } catch (error) {
    if (error.name !== "AbortError") throw error; // stolen, or no longer wanted
  }
}

// Follows Playhead's streams and threads in a browser: one connection for all tabs, back after every loss, each event
// exactly once. No dependency; works from pages of other origins too. Guide: docs/browser.md.
//
//     import { Playhead } from "/static/playhead.js";
//     const playhead = new Playhead();
//     const watch = playhead.stream(id, { onEvent: (streamId, event) => show(event), onClose: (streamId, end) => … });
//
//     Playhead ──► Watch            what one part of the page follows: where it is, its state     playhead/watch.js
//        │
//        ├──► Tabs, Alone           who of the tabs holds the connection                        playhead/tabs.js
//        │       └──► Hub           all subscriptions of all tabs                               playhead/hub.js
//        │              └──► Connection       opens, reads, reconnects                          playhead/connection.js

import { Alone, Tabs, canShare } from "./playhead/tabs.js";
import { Hub } from "./playhead/hub.js";
import { newestStreams } from "./playhead/look.js";
import { StreamWatch, ThreadWatch } from "./playhead/watch.js";

export { STATES, TRANSITIONS, nextState } from "./playhead/states.js";

/**
 * @typedef {object} Handlers  All are optional. None is called after `watch.close()`; what one throws is reported
 *   (`reportError`) and stops nothing.
 * @property {(streamId: string, info: {offset: number, tail: number, stream: object | null}) => void} [onOpen]
 *   Once for each stream, before its first event: where reading begins, where the stream is, its state (as GET
 *   /v1/streams/{id}/info) where the server tells it.
 * @property {(streamId: string, event: StreamEvent) => void} [onEvent]
 * @property {(streamId: string, close: {outcome: "completed" | "failed" | "cancelled" | "interrupted",
 *   offset: number, cursor: string, error?: string, by?: string, reason?: string}) => void} [onClose]
 * @property {(streamId: string | null, problem: {code: string, title: string, status: number, detail: string}) => void}
 *   [onError] The stream cannot be read (on): a problem document (RFC 9457). Never followed by a silent restart.
 * @property {(state: string) => void} [onState] Each change of `watch.state`.
 *
 * @typedef {object} StreamEvent
 * @property {string} type
 * @property {number} offset  of the event; of the last one where several texts were joined
 * @property {number} [first]  the offset of the first of several joined ones
 * @property {string} cursor  everything up to here was read: give it back as `after` to go on from here
 * @property {string} data
 * @property {"base64"} [encoding]  when the bytes of the event are no UTF-8
 */

export class Playhead {
  #watches = new Map(); // key → watch
  #line;
  #look;
  #id = randomId();
  #keys = 0;
  #telling = false;

  /**
   * @param {object} [options]
   * @param {string} [options.base]  where the server is: "" for this page's own, else "https://host/prefix".
   * @param {boolean | string} [options.share]  one connection for all tabs of this browser. A string shares only
   *   among those that give the same one: use the user's id where tabs may belong to different users.
   * @param {typeof fetch} [options.fetch]  to add headers or credentials. The tab that leads uses its own.
   * @param {number} [options.stallAfterMs]  a connection silent for so long is taken for dead (keep-alives: 15 s).
   */
  constructor({ base = "", share = true, fetch = globalThis.fetch.bind(globalThis), stallAfterMs = 35_000 } = {}) {
    const url = new URL(base.replace(/\/+$/, "") + "/", location.href).href;
    const hub = (deliver) => new Hub({ url, fetch, stallAfterMs, deliver });
    this.#look = (threadId) => newestStreams({ url, fetch }, threadId);
    const receive = (frames) => this.#receive(frames);
    const name = `playhead.1 ${url} ${share === true ? "" : share}`;
    this.#line = share && canShare() ? new Tabs({ id: this.#id, name, hub, receive }) : new Alone({ hub, receive });
  }

  /**
   * Follows one stream to its close.
   *
   * @param {string} streamId
   * @param {Handlers & {after?: string | null}} [options]  after: the cursor of what you have; absent: from the start.
   * @returns {StreamWatch}
   */
  stream(streamId, options = {}) {
    return this.#add(new StreamWatch(streamId, options, this.#changed));
  }

  /**
   * Follows a thread: the streams given, each one of it that is live, and each that begins from now on.
   *
   * @param {string} threadId
   * @param {Handlers & {streams?: Record<string, string | null>, since?: string | null}} [options]
   *   streams: streams that you show already, with your cursor (null: from the start); ended ones may be left out.
   *   since: the newest stream that you know of. Those that began after it are followed even if they have ended
   *   meanwhile. null: you know of none. Absent: only what begins, or is live, from now on.
   * @returns {ThreadWatch}
   */
  thread(threadId, options = {}) {
    return this.#add(new ThreadWatch(threadId, options, this.#changed, this.#look));
  }

  /** Closes all watches, and the connection unless other tabs need it. */
  close() {
    for (const watch of this.#watches.values()) watch.close();
    this.#line.close();
  }

  #add(watch) {
    this.#changed(watch);
    return watch;
  }

  /** A watch is new, over, or needs its events again from its cursor: always under a new key, so nothing old fits. */
  #changed = (watch) => {
    this.#watches.delete(watch.key);
    if (watch.isActive) {
      watch.key = `${this.#id}.${++this.#keys}`;
      this.#watches.set(watch.key, watch);
    }
    if (this.#telling) return;
    this.#telling = true;
    queueMicrotask(() => {
      this.#telling = false;
      this.#line.set(() => [...this.#watches.values()].map((each) => ({ key: each.key, ...each.subscription() })));
    });
  };

  #receive(frames) {
    const touched = new Set();
    for (const frame of frames) {
      const watch = this.#watches.get(frame.key);
      if (!watch) continue; // closed, or under a new key
      watch.take(frame);
      touched.add(watch);
    }
    for (const watch of touched) watch.settle();
  }
}

/** crypto.randomUUID is missing on insecure origins. */
function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

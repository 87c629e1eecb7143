// What one part of a page follows. A watch knows what it was given, so it can tell what to drop and what to ask for
// again: whatever happens to connections and tabs, each event reaches its handlers once.
//
// Frames are those of POST /v1/follow, and two that the hub adds:
//     {key, type: "playhead.link", signal}           the connection: "open", "lost", "offline", "online", "failed";
//                                                    with a stream_id it is only that stream's
//     {key, type: "playhead.found", streams: […]}    the newest streams of the thread, from a server without that door;
//                                                    null from one that lists none

import { nextState } from "./states.js";

const ID_MAX_CHARACTERS = 1000, CURSOR_MAX_CHARACTERS = 64, STREAMS_MAX = 64; // what the server accepts
const LOOK_AGAIN_AFTER_MS = 1_000;
const OWN_TYPE = /^playhead\./, READ_TYPES = new Set(["playhead.open", "playhead.close"]); // others are not known yet
const FRUITLESS_MAX = 3; // askings-again without one event that fits

/** One stream, as far as it was read. */
class Place {
  /** @param {string | null} cursor  null: nothing was read yet */
  constructor(cursor) {
    this.cursor = cursor;
    this.offset = cursor === null ? 0 : undefined; // undefined: only the server can tell, when it opens
    this.target = undefined; // the tail when it was opened: what is older is catching up
    this.isOpen = false; // on the present connection
    this.isAway = false; // the server cannot reach its store, and waits for it
    this.isTold = false; // onOpen was called
    this.isOver = false; // closed or failed, for good
    this.fruitless = 0;
  }

  get isBehind() {
    return this.target != null && this.offset < this.target;
  }

  /** "next", "had" (drop it), or "gap": it must be asked for again. */
  fits(first, last) {
    if (this.offset == null || first === this.offset + 1) return "next";
    return last <= this.offset ? "had" : "gap";
  }
}

class Watch {
  key = "";
  #state = "connecting";
  #handlers;
  #changed;
  #isClosed = false;
  #isLinked = false;
  /** @type {Map<string, Place>} */
  places = new Map();

  constructor(handlers, changed) {
    this.#handlers = handlers;
    this.#changed = changed;
  }

  /** One of STATES. */
  get state() {
    return this.#state;
  }

  /** Stops watching; the streams go on. */
  close() {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#changed(this);
  }

  get isActive() {
    return !this.#isClosed && this.#state !== "closed" && this.#state !== "failed";
  }

  /** A frame has come. */
  take(frame) {
    if (!this.isActive) return;
    if (frame.type === "playhead.link") this.#link(frame);
    else if (frame.type === "playhead.thread") this.thread(frame);
    else if (frame.type === "playhead.found") this.found(frame.streams);
    else if (frame.type === "playhead.error") this.#error(frame);
    else if (frame.type === "playhead.reconnecting") this.place(frame.stream_id).isAway = true;
    else if (!OWN_TYPE.test(frame.type) || READ_TYPES.has(frame.type)) this.#read(frame, this.place(frame.stream_id));
  }

  /** All frames that came together were taken: tell the state, once. */
  settle() {
    if (!this.isActive || !this.#isLinked) return;
    const following = [...this.places.values()].filter((place) => !place.isOver);
    if (following.some((place) => place.isAway)) this.signal("lost");
    else if (following.some((place) => place.isOpen && place.isBehind)) this.signal("behind");
    else if (this.isListed && following.every((place) => place.isOpen)) this.signal("current");
  }

  /** It is known which streams there are. */
  get isListed() {
    return true;
  }

  signal(signal) {
    const before = this.#state;
    this.#state = nextState(before, signal);
    if (this.#state === before) return;
    if (!this.isActive) this.#changed(this);
    this.tell("onState", this.#state);
  }

  tell(handler, ...words) {
    if (this.#isClosed) return;
    try {
      this.#handlers[handler]?.(...words);
    } catch (error) {
      reportError(error);
    }
  }

  askAgain() {
    this.#changed(this);
  }

  /** Of one stream, where each has a connection of its own, or of all. */
  #link({ signal, problem, stream_id: streamId }) {
    if (signal === "open") {
      this.#isLinked = true;
      return;
    }
    this.#isLinked = false;
    for (const place of streamId === undefined ? this.places.values() : [this.place(streamId)]) {
      place.isOpen = place.isAway = false;
      place.target = undefined;
    }
    if (signal === "failed") this.tell("onError", this.streamId ?? null, problem);
    this.signal(signal);
  }

  #error({ key, stream_id: streamId, ...problem }) {
    if (problem.retryable) return; // the hub asks again
    const place = streamId == null ? undefined : this.place(streamId);
    if (place?.isOver) return;
    this.fail(streamId ?? null, place, problem);
  }

  #read(frame, place) {
    if (place.isOver) return;
    place.isAway = false;
    const { key, stream_id: streamId, ...said } = frame;
    if (said.type === "playhead.open") return this.#open(streamId, said, place);
    switch (place.fits(said.first ?? said.offset, said.offset)) {
      case "had":
        return;
      case "gap":
        return this.#missed(streamId, place);
    }
    place.offset = said.offset;
    place.cursor = said.cursor;
    place.fruitless = 0;
    if (said.type === "playhead.close") this.over(streamId, said, place);
    else this.tell("onEvent", streamId, said);
  }

  #open(streamId, { offset, tail, stream = null }, place) {
    place.offset ??= offset;
    if (offset > place.offset) return this.#missed(streamId, place);
    place.isOpen = true;
    place.target ??= tail;
    if (place.isTold) return;
    place.isTold = true;
    this.tell("onOpen", streamId, { offset, tail, stream });
  }

  /** Something between what was read and what came is not here. */
  #missed(streamId, place) {
    if (++place.fruitless <= FRUITLESS_MAX) return this.askAgain();
    const detail = `Events after offset ${place.offset} of stream ${streamId} do not come, later ones do`;
    this.fail(streamId, place, { code: "gap", title: "Gap", status: 502, detail, retryable: false });
  }

  thread() {}

  found() {}
}

export class StreamWatch extends Watch {
  /** Made by `playhead.stream()`. */
  constructor(streamId, { after = null, ...handlers }, changed) {
    super(handlers, changed);
    this.streamId = checkedId(streamId);
    this.places.set(streamId, new Place(checkedCursor(after)));
  }

  /** Give it back as `after` to go on from here. */
  get cursor() {
    return this.places.get(this.streamId).cursor;
  }

  subscription() {
    return { stream_id: this.streamId, after: this.cursor };
  }

  place() {
    return this.places.get(this.streamId);
  }

  over(streamId, close, place) {
    place.isOver = true;
    this.tell("onClose", streamId, close);
    this.signal("closed");
  }

  fail(_, place, problem) {
    if (place) place.isOver = true;
    this.tell("onError", this.streamId, problem);
    this.signal("failed");
  }
}

export class ThreadWatch extends Watch {
  #newest; // stream known of; null: there was none; undefined: not known yet
  #isListed = false; // since the connection opened, the server has told what there is
  #look;

  /** Made by `playhead.thread()`. */
  constructor(threadId, { streams = {}, since, ...handlers }, changed, look) {
    super(handlers, changed);
    this.threadId = checkedId(threadId);
    this.#newest = since;
    this.#look = look;
    const given = Object.entries(streams);
    if (given.length > STREAMS_MAX) throw new TypeError(`At most ${STREAMS_MAX} streams of a thread can be named`);
    for (const [id, cursor] of given) this.places.set(checkedId(id), new Place(checkedCursor(cursor)));
  }

  /** The streams that are not over, each with its cursor: give them back as `streams` to go on from here. */
  get cursors() {
    const open = [...this.places].filter(([, place]) => !place.isOver);
    return Object.fromEntries(open.map(([id, place]) => [id, place.cursor]));
  }

  subscription() {
    return { thread_id: this.threadId, streams: this.cursors };
  }

  take(frame) {
    if (frame.type === "playhead.thread" || frame.type === "playhead.found") this.#isListed = true;
    else if (frame.type === "playhead.link" && frame.signal !== "open" && !frame.stream_id) this.#isListed = false;
    super.take(frame);
  }

  /** An answer that has only begun does not follow the thread yet: what ends before it does would be missed. */
  get isListed() {
    return this.#isListed;
  }

  place(streamId) {
    if (!this.places.has(streamId)) this.places.set(streamId, new Place(null));
    return this.places.get(streamId);
  }

  over(streamId, close, place) {
    place.isOver = true;
    this.tell("onClose", streamId, close);
  }

  /** Without a place it is the thread that cannot be read. */
  fail(streamId, place, problem) {
    if (place) place.isOver = true;
    this.tell("onError", streamId, problem);
    if (!place) this.signal("failed");
  }

  /**
   * The newest stream of the thread when a connection opened. The server follows what is live and what begins from then
   * on; what began and ended while nobody was connected is looked for here.
   */
  async thread({ latest }) {
    const newest = this.#newest;
    if (newest === undefined) this.#newest = latest;
    if (newest === undefined || latest === null || latest === newest || this.places.has(latest)) return;
    const known = this.#known();
    try {
      const streams = await this.#look(this.threadId);
      if (this.isActive) this.found(streams, known);
    } catch {
      setTimeout(() => this.isActive && this.askAgain(), LOOK_AGAIN_AFTER_MS);
    }
  }

  /** The newest streams of the thread. Of those that are not known, the ended ones are asked for by name. */
  found(streams, known = this.#known()) {
    if (!streams) return;
    const isNew = this.#newest !== undefined;
    this.#newest = streams[0]?.stream_id ?? this.#newest ?? null;
    if (!isNew) return;
    const end = streams.findIndex(({ stream_id: id }) => known.has(id));
    const missed = streams
      .slice(0, end < 0 ? streams.length : end)
      .filter(({ stream_id: id, status }) => status === "closed" && !this.places.has(id));
    for (const { stream_id: id } of missed.reverse()) this.places.set(id, new Place(null));
    if (missed.length) this.askAgain();
  }

  #known() {
    return new Set([...this.places.keys(), this.#newest]);
  }
}

function checkedId(id) {
  if (typeof id !== "string" || id === "" || id.length > ID_MAX_CHARACTERS) {
    throw new TypeError(`An id is a text of 1 to ${ID_MAX_CHARACTERS} characters`);
  }
  return id;
}

function checkedCursor(cursor) {
  const isText = typeof cursor === "string" && cursor.length <= CURSOR_MAX_CHARACTERS;
  if (cursor !== null && !isText) throw new TypeError("A cursor is a text, or null: from the start");
  return cursor;
}

// One thread: its history, what is live on it, and what the user does to it.
//
// The history (GET /thread) and the streams (playhead.js) are asked for at the same time, and meet by their stream ids:
//
//     placeholder ──open──► followed ──close──► finished       a live answer
//          └───────────── history ─────────────► finished      it ended before it could be followed, or without this page
//
// What began and ended between two connections is in nobody's stream: `catchUp` looks for it whenever one has been made.

import { ask, sent } from "./api.js";
import { drafts } from "./drafts.js";
import { uuid } from "./dom.js";

const LOOK_STREAMS = 20;
const UNOPENED_MS = 400; // a stream that did not open by then is asked for by its name
const AGAIN_FIRST_MS = 1000, AGAIN_MAX_MS = 15_000;
const CONNECTED = new Set(["live", "catching-up"]);

const path = (thread) => `/v1/thread?all=true&thread_id=${encodeURIComponent(thread)}`;

export class Chat {
  #visit = 0;
  #watch;
  #known = new Set(); // streams whose end is drawn
  #live = new Map(); // stream id -> { answer, said, opened }
  #restarted = new Set();
  #againMs = AGAIN_FIRST_MS;
  #timers = new Set();
  state = "connecting"; // of the connection, a word of playhead.js
  outcome; // of the newest answer
  loaded = false;
  problem; // why the history could not be loaded
  sending = false;
  heard = new Set(); // messages whose answers began since the last one was sent

  /**
   * @param {Playhead} playhead
   * @param {Turns} turns
   * @param {{ changed, news, began, gone, retry }} on
   *   changed(): something that is shown beside the turns; news(): a stream began or ended; began(text): the server
   *   answers that; gone(): the thread was deleted; retry(text): say that again
   */
  constructor(playhead, turns, on) {
    Object.assign(this, { playhead, turns, on });
  }

  get isLive() {
    return this.#live.size > 0;
  }

  /** How the thread's first message begins, as far as it is known. */
  get preview() {
    return this.first ?? "";
  }

  enter(thread) {
    this.leave();
    Object.assign(this, { thread, outcome: undefined, loaded: false, problem: undefined, sending: false, first: undefined });
    this.#againMs = AGAIN_FIRST_MS;
    this.turns.clear();
    this.#follow();
    this.#load();
  }

  leave() {
    this.#visit += 1;
    this.#watch?.close();
    this.#watch = undefined;
    for (const timer of this.#timers) clearTimeout(timer);
    for (const all of [this.#timers, this.#known, this.#live, this.#restarted]) all.clear();
  }

  /** Try now what is waiting for its time. */
  again() {
    if (this.problem) this.#load();
  }

  // ---- history ---------------------------------------------------------------------------------------------

  async #load() {
    const here = this.#visit, before = [...this.#live.keys()];
    try {
      const { body } = await ask(path(this.thread));
      if (here !== this.#visit) return;
      const [wasLoaded, had] = [this.loaded, !this.turns.isEmpty];
      Object.assign(this, { loaded: true, problem: undefined });
      this.#againMs = AGAIN_FIRST_MS;
      if (wasLoaded && had && !body.length && !this.isLive) return this.on.gone();
      this.#merge(body);
      for (const id of before) if (!body.some((turn) => turn.stream_id === id)) this.#drop(id);
      if (!wasLoaded && CONNECTED.has(this.state)) this.#soon(() => this.#catchUp(), 0);
    } catch (error) {
      if (here !== this.#visit) return;
      if (!error.message || error.name === "TypeError") throw error;
      this.problem = error;
      this.#soon(() => this.#load(), this.#againMs);
      this.#againMs = Math.min(2 * this.#againMs, AGAIN_MAX_MS);
    }
    this.on.changed();
  }

  /** What the server knows of the thread, drawn; what is there already stays as it is. */
  #merge(list) {
    const keys = [];
    let said;
    for (const [index, turn] of list.entries()) {
      const id = turn.stream_id ?? `#${index}`;
      if (turn.type === "human") {
        said = turn.content;
        this.first ??= said;
        keys.push(this.#human(id, said));
      }
      if (turn.live) {
        if (!this.#known.has(id)) this.#begin(id, said).said ??= turn.type === "human" ? said : undefined;
        keys.push(`${id}/ai`);
      } else if (turn.type === "ai") {
        keys.push(`${id}/ai`);
        this.outcome = turn.outcome ?? "completed";
        if (!this.#known.has(id)) this.#finished(id, turn, said);
      }
    }
    this.turns.order(keys);
  }

  #human(id, text) {
    const key = `${id}/human`;
    if (!this.turns.has(key)) this.turns.human(key, text);
    return key;
  }

  #finished(id, turn, said) {
    this.#live.delete(id);
    this.#known.add(id);
    this.turns.remove(`${id}/ai`);
    this.turns.answer(`${id}/ai`).whole(turn).end(turn.outcome, turn.error, this.#retry(said));
  }

  /** A live stream that the server knows nothing of: deleted, and nobody said so. */
  #drop(id) {
    if (!this.#live.delete(id)) return;
    this.#known.add(id);
    this.turns.remove(`${id}/ai`);
  }

  /** Others say that nothing is live here. */
  doubt() {
    if (this.isLive && CONNECTED.has(this.state)) this.#load();
  }

  /** Streams that ended while nobody here was looking. */
  async #catchUp() {
    if (!this.loaded) return;
    const here = this.#visit;
    try {
      const { body } = await ask(`/v1/streams?limit=${LOOK_STREAMS}&thread_id=${encodeURIComponent(this.thread)}`);
      if (here !== this.#visit) return;
      const missed = body.streams.some((stream) => stream.outcome && !this.#known.has(stream.stream_id) && !this.#live.get(stream.stream_id)?.opened);
      if (missed || (this.#known.size && !body.streams.length)) await this.#load(); // the second: expired, or deleted
    } catch {
      // It cannot be reached: the connection notices that too, and comes back here when it is there again.
    }
  }

  // ---- streams ---------------------------------------------------------------------------------------------

  /** Follow the thread, and these streams of it in any case. */
  #follow(streams = {}) {
    const here = this.#visit;
    const mine = (act) => (...facts) => here === this.#visit && act(...facts);
    this.#watch?.close();
    this.state = "connecting"; // whatever the last watch was: what this one could not see is looked for when it is there
    this.#watch = this.playhead.thread(this.thread, {
      streams,
      onOpen: mine((id, { stream }) => this.#opened(id, stream)),
      onEvent: mine((id, event) => this.#event(id, event)),
      onClose: mine((id, close) => this.#closed(id, close)),
      onError: mine((id, problem) => this.#unreadable(id, problem)),
      onState: mine((state) => this.#connection(state)),
    });
  }

  #connection(state) {
    const was = this.state;
    this.state = state;
    if (CONNECTED.has(state) && !CONNECTED.has(was)) {
      if (this.problem) this.#load();
      else this.#catchUp();
    }
    this.on.changed();
  }

  #opened(id, stream) {
    if (this.#known.has(id)) return;
    const said = stream?.metadata?.user_message?.text, live = this.#begin(id, said);
    live.opened = true;
    if (said !== undefined) {
      this.heard.add(said);
      this.on.began(said);
    }
    if (live.said === undefined && (said !== undefined || !stream)) this.#load(); // the history knows what it answers
    this.on.news();
    this.on.changed();
  }

  #begin(id, said) {
    const had = this.#live.get(id);
    if (had) return had;
    if (said !== undefined) {
      this.first ??= said;
      this.#human(id, said);
    }
    const live = { answer: this.turns.answer(`${id}/ai`).write(), said, opened: false };
    this.#live.set(id, live);
    this.#soon(() => this.#askFor(id), UNOPENED_MS);
    return live;
  }

  #askFor(id) {
    const isWaiting = () => this.#live.get(id)?.opened === false;
    if (!isWaiting()) return;
    this.#follow({ ...this.#watch.cursors, [id]: null });
    this.#soon(() => isWaiting() && this.#catchUp(), UNOPENED_MS);
  }

  #event(id, event) {
    const answer = this.#live.get(id)?.answer;
    if (!answer) return;
    if (event.type === "text") answer.text(textOf(event));
    else if (event.type === "tool_call" || event.type === "tool_result") {
      const facts = factsOf(event);
      if (!facts) return;
      if (event.type === "tool_call") answer.call(facts);
      else answer.result(facts);
    }
  }

  #closed(id, { outcome, error, reason }) {
    const live = this.#live.get(id);
    if (!live) return;
    if (reason === "deleted") return this.on.gone(); // the thread, with all that is in it
    this.#live.delete(id);
    this.#known.add(id);
    this.outcome = outcome;
    live.answer.end(outcome, error, this.#retry(live.said));
    if (outcome === "completed" && live.answer.isEmpty) this.turns.remove(`${id}/ai`);
    this.on.news();
    this.on.changed();
  }

  /** It is gone, or the cursor means nothing any more: once from its start, then as the history has it. */
  #unreadable(id, problem) {
    const live = this.#live.get(id);
    if (!live) return;
    const gone = problem.status === 404 || problem.status === 410;
    if (!gone && !this.#restarted.has(id)) {
      this.#restarted.add(id);
      for (const each of this.#live.values()) Object.assign(each, { opened: false }).answer.restart();
      return this.#follow(Object.fromEntries([...this.#live.keys()].map((each) => [each, null])));
    }
    if (gone) this.#drop(id);
    else {
      this.#live.delete(id);
      this.#known.add(id);
      live.answer.end("failed", problem.detail ?? problem.title, this.#retry(live.said));
    }
    this.#load();
  }

  // ---- what the user does ----------------------------------------------------------------------------------

  #retry(said) {
    return said === undefined ? undefined : () => this.on.retry(said);
  }

  /** Send a message. Throws Refused; the draft is dropped only when the server has the message. */
  async say(text, { supersede = false, draft = false } = {}) {
    const here = this.#visit, thread = this.thread;
    this.sending = true;
    this.heard.clear();
    this.on.changed();
    try {
      const request = sent("POST", { message: text, thread_id: thread, ...(supersede && { supersede }) });
      request.headers["idempotency-key"] = draft ? drafts.save(thread, text) : uuid();
      const { body } = await ask("/v1/chat/message", request);
      if (draft && drafts.load(thread).text === text) drafts.drop(thread);
      if (here !== this.#visit) return;
      this.turns.goToEnd();
      if (!this.#known.has(body.stream_id)) this.#begin(body.stream_id, text);
      this.on.news();
    } catch (error) {
      const isNew = here === this.#visit && error.streamId && !this.#live.has(error.streamId);
      if (isNew) this.#follow({ ...this.#watch.cursors, [error.streamId]: null }); // what it is that answers already
      throw error;
    } finally {
      if (here === this.#visit) {
        this.sending = false;
        this.on.changed();
      }
    }
  }

  async stop() {
    await Promise.all([...this.#live.keys()].map((id) => ask(`/v1/streams/${encodeURIComponent(id)}/cancel`, { method: "POST" })));
  }

  #soon(act, ms) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      act();
    }, ms);
    this.#timers.add(timer);
  }
}

function textOf(event) {
  if (event.encoding !== "base64") return event.data;
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(atob(event.data), (character) => character.charCodeAt(0)));
}

/** What a tool's event says; nothing when another producer gave its type another meaning. */
function factsOf(event) {
  try {
    const facts = JSON.parse(textOf(event));
    return typeof facts?.name === "string" && typeof facts.id === "string" ? facts : undefined;
  } catch {
    return undefined;
  }
}

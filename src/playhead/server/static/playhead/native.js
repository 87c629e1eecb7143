// With a server that has no POST /v1/follow: a request for each stream, at GET /v1/streams/{id}. By fetch, not by
// EventSource, which shows neither events of types that it was not told of, nor why it was refused.

import { Connection } from "./connection.js";
import { newestStreams, problemOf } from "./look.js";

const LOOK_EVERY_MS = 5_000; // for the streams that begin on a thread

export class Native {
  hasRoom = true;
  #hub;
  #subscriptions = new Map(); // subscription → its connections, by stream id
  #looking = new AbortController();
  #lookAt = 0;

  constructor(hub) {
    this.#hub = hub;
  }

  get isEmpty() {
    return this.#subscriptions.size === 0;
  }

  add(subscription) {
    this.#subscriptions.set(subscription, new Map());
    for (const streamId of subscription.cursors.keys()) this.#follow(subscription, streamId);
    if (subscription.threadId === undefined) return;
    this.#lookAt = 0;
    this.tick();
  }

  remove(subscription) {
    for (const connection of this.#subscriptions.get(subscription).values()) connection.stop();
    this.#subscriptions.delete(subscription);
  }

  tick() {
    for (const connection of this.#connections()) connection.tick();
    if (Date.now() >= this.#lookAt) this.#look();
  }

  wake() {
    this.#lookAt = 0;
    for (const connection of this.#connections()) connection.wake();
    this.tick();
  }

  offline() {
    for (const connection of this.#connections()) connection.offline();
  }

  online() {
    for (const connection of this.#connections()) connection.online();
    this.wake();
  }

  close() {
    this.#looking.abort();
    for (const connection of this.#connections()) connection.stop();
    this.#subscriptions.clear();
  }

  #connections() {
    return [...this.#subscriptions.values()].flatMap((connections) => [...connections.values()]);
  }

  async #look() {
    this.#lookAt = Date.now() + LOOK_EVERY_MS;
    for (const subscription of [...this.#subscriptions.keys()]) {
      if (subscription.threadId === undefined) continue;
      try {
        const streams = await newestStreams(this.#hub.how, subscription.threadId, this.#looking.signal);
        this.#tell(subscription, { signal: "open" });
        this.#found(subscription, streams);
      } catch {
        if (this.#looking.signal.aborted) return;
        // Looked for again soon. With a stream connected the thread is not lost.
        const connections = [...(this.#subscriptions.get(subscription)?.values() ?? [])];
        if (connections.every((each) => each.isIdle)) this.#tell(subscription, { signal: "lost" });
      }
    }
  }

  #found(subscription, streams) {
    const connections = this.#subscriptions.get(subscription);
    if (!connections) return; // it has gone meanwhile
    const isNew = ({ stream_id: id, status }) => status === "live" && !connections.has(id);
    const begun = streams?.filter(isNew) ?? [];
    this.#hub.deliver([[subscription, { type: "playhead.found", streams }]]);
    for (const { stream_id: id } of begun) {
      subscription.cursors.set(id, null);
      this.#follow(subscription, id);
    }
  }

  #follow(subscription, streamId) {
    const { url, fetch, stallAfterMs } = this.#hub.how;
    const path = `${url}v1/streams/${encodeURIComponent(streamId)}`;
    const cursor = () => subscription.cursors.get(streamId);
    const deliver = (frames) =>
      this.#hub.deliver(frames.map((frame) => [subscription, { ...frame, stream_id: streamId }]));
    const tell = (signal) => deliver([{ type: "playhead.link", signal }]);
    let offset = cursor() === null ? 0 : null; // null: only the cursor knows, and a cursor is nobody's to read
    const connection = new Connection({
      fetch,
      stallAfterMs,
      request: () => {
        const after = cursor() === null ? "" : `&after=${encodeURIComponent(cursor())}`;
        return { url: `${path}?coalesce=text${after}`, init: {} };
      },
      opened: (response) => {
        const told = response.headers.get("playhead-tail");
        tell("open");
        const tail = offset === null ? null : Number(told ?? offset);
        deliver([{ type: "playhead.open", offset, tail, stream: null }]);
      },
      read: (events) => {
        const frames = events.map(({ id, type, data }) => ({ ...JSON.parse(data), type, cursor: id }));
        offset = frames.at(-1).offset ?? offset;
        deliver(frames);
        const last = frames.at(-1);
        if (last.type === "playhead.close" || (last.type === "playhead.error" && !last.retryable)) connection.stop();
      },
      refused: async (response) => {
        const isAtClose = response.status === 204;
        const frame = isAtClose
          ? await this.#closeOf(path)
          : { ...(await problemOf(response)), type: "playhead.error" };
        if (frame) deliver([frame]);
        return Boolean(frame);
      },
      signal: tell,
    });
    this.#subscriptions.get(subscription).set(streamId, connection);
    connection.open();
  }

  /** The close of a stream whose cursor is there already. */
  async #closeOf(path) {
    const response = await this.#hub.how.fetch(`${path}/info`, { cache: "no-store" });
    if (!response.ok) return null;
    const { tail, cursor, outcome } = await response.json();
    if (!outcome) return null;
    const { kind, ...more } = outcome;
    return { type: "playhead.close", offset: tail + 1, cursor, outcome: kind, ...more };
  }

  #tell(subscription, words) {
    this.#hub.deliver([[subscription, { type: "playhead.link", ...words }]]);
  }
}

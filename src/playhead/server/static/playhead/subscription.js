// What one watch wants, and how far it was given to it: what to ask for when a connection is opened again.

export class Subscription {
  isOver = false;
  carrier = null;
  troubles = 0; // in a row

  constructor(owner, { key, stream_id: streamId, after, thread_id: threadId, streams = {} }) {
    Object.assign(this, { owner, key, threadId });
    this.streamId = streamId;
    /** @type {Map<string, string | null>} the cursor of each stream that is followed */
    this.cursors = new Map(threadId === undefined ? [[streamId, after]] : Object.entries(streams));
  }

  /** As POST /v1/follow wants it. */
  get words() {
    const { key, streamId, threadId, cursors } = this;
    if (threadId === undefined) return { key, stream_id: streamId, after: cursors.get(streamId) };
    return { key, thread_id: threadId, streams: Object.fromEntries(cursors) };
  }

  /** A frame was handed on. */
  remember(frame) {
    switch (frame.type) {
      case "playhead.link":
        if (frame.signal === "failed") this.isOver = true;
        return;
      case "playhead.open":
        this.troubles = 0;
        if (!this.cursors.has(frame.stream_id)) this.cursors.set(frame.stream_id, null);
        return;
      case "playhead.close":
        return this.#end(frame.stream_id);
      case "playhead.error":
        if (!frame.retryable) this.#end(frame.stream_id ?? null);
        return;
    }
    if (!frame.type.startsWith("playhead.")) this.cursors.set(frame.stream_id, frame.cursor);
  }

  #end(streamId) {
    this.cursors.delete(streamId);
    if (this.threadId === undefined || streamId === null) this.isOver = true;
  }
}

// What was typed and not sent yet, per thread, kept over reloads; with the key that makes sending it again safe.

const PREFIX = "playhead.draft.";

export const drafts = {
  load(thread) {
    try {
      return JSON.parse(localStorage.getItem(PREFIX + thread)) ?? { text: "" };
    } catch {
      return { text: "" };
    }
  },

  /** The same text keeps its key: the server then answers a repeated message with the stream it already has. */
  save(thread, text) {
    const draft = this.load(thread);
    const key = draft.text === text && draft.key ? draft.key : crypto.randomUUID();
    localStorage.setItem(PREFIX + thread, JSON.stringify({ text, key }));
    return key;
  },

  drop(thread) {
    localStorage.removeItem(PREFIX + thread);
  },
};

// A parser of server-sent events (WHATWG HTML, 9.2.6) that is fed bytes as they come, torn anywhere.

const LINE_END = /\r\n|\r|\n/g;

export class EventParser {
  /** The server's wish, in milliseconds, how long to wait before the next connection. */
  retryMs = 0;
  #decoder = new TextDecoder(); // keeps half a character for the next bytes; drops a byte order mark
  #rest = ""; // the unfinished last line
  #seen = 0; // characters of it that hold no line end
  #id = "";
  #type = "";
  #data = [];

  /**
   * @param {Uint8Array} bytes
   * @returns {{id: string, type: string, data: string}[]} the events that these bytes complete
   */
  feed(bytes) {
    this.#rest += this.#decoder.decode(bytes, { stream: true });
    const found = [];
    let start = 0;
    LINE_END.lastIndex = this.#seen;
    for (let end; (end = LINE_END.exec(this.#rest)); start = LINE_END.lastIndex) {
      // A CR at the very end may be the first half of a CRLF.
      if (end[0] === "\r" && LINE_END.lastIndex === this.#rest.length) break;
      this.#line(this.#rest.slice(start, end.index), found);
    }
    this.#rest = this.#rest.slice(start);
    this.#seen = Math.max(0, this.#rest.length - 1);
    return found;
  }

  #line(line, found) {
    if (line === "") return this.#dispatch(found);
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment: keep-alive
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#type = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.retryMs = Number(value);
  }

  #dispatch(found) {
    if (this.#data.length) found.push({ id: this.#id, type: this.#type || "message", data: this.#data.join("\n") });
    this.#type = "";
    this.#data = [];
  }
}

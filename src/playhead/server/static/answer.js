// One answer on the page: its words, its tool calls, how it ended.

import { copyFrom } from "./copy.js";
import { button, element, icon, iconButton } from "./dom.js";
import { Markdown } from "./markdown.js";

const MARKS = {
  cancelled: "Stopped. What was written is kept.",
  interrupted: "Interrupted: the server went away while it wrote this. What was written is kept.",
  failed: "Failed",
};
const BEFORE_THE_FIRST_WORD = {
  cancelled: "Stopped before the first word.",
  interrupted: "Interrupted: the server went away before the first word.",
  failed: "Failed before the first word",
};

export class Answer {
  #texts = []; // one Markdown per run of words between tool calls
  #calls = [];
  #words; // the run that is being written
  #plain; // the element of the source, while it is shown

  /** @param {() => void} changed is called when there is something to draw */
  constructor(turn, changed) {
    Object.assign(this, { turn, changed });
    this.parts = element("div", "parts");
    this.acts = element("div", "acts");
    this.acts.append(
      iconButton("copy", "Copy answer", (event) => copyFrom(event.currentTarget, this.source)),
      iconButton("source", "Show source", (event) => this.#showSource(event.currentTarget)),
    );
    turn.append(this.parts, this.acts);
    turn.answer = this; // for tests and the console: `.source` is what the model said, byte for byte
    this.#offer();
  }

  get source() {
    return this.#texts.map((words) => words.source).join("");
  }

  get isEmpty() {
    return !this.#texts.length && !this.#calls.length;
  }

  /** Being written: marked, and read out only when it is complete. */
  write() {
    this.turn.setAttribute("aria-busy", "true");
    return this;
  }

  text(text) {
    if (!text) return;
    if (!this.#words) {
      this.#words = new Markdown(element("div", "text"));
      this.#texts.push(this.#words);
      this.parts.append(this.#words.root);
    }
    this.#words.append(text);
    this.#offer();
    this.changed();
  }

  call({ name, id, args = null, result = null }) {
    const call = { id, view: toolView(String(name)), told: false };
    this.#calls.push(call);
    this.#words = undefined;
    this.parts.append(call.view.root);
    if (result !== null) this.#result(call, args, result);
    this.changed();
  }

  /** The result goes to the newest call of its id that has none: some models number their calls anew each time. */
  result({ name, id, args = null, content }) {
    if (!this.#calls.some((call) => call.id === id && !call.told)) this.call({ name, id });
    this.#result(this.#calls.findLast((call) => call.id === id && !call.told), args, content);
    this.changed();
  }

  #result(call, args, result) {
    call.told = true;
    call.view.done("done", args, result);
  }

  /** Everything of an answer that is complete. */
  whole(turn) {
    for (const part of turn.parts ?? [{ type: "text", text: turn.content }]) {
      if (part.type === "text") this.text(part.text);
      else if (part.type === "tool_call") this.call(part);
    }
    return this;
  }

  /** @returns {boolean} whether everything is drawn now */
  draw(charactersMax) {
    if (this.#plain) this.#plain.firstChild.data = this.source;
    return this.#texts.every((words) => words.draw(charactersMax));
  }

  restart() {
    this.parts.replaceChildren();
    [this.#texts, this.#calls, this.#words] = [[], [], undefined];
    this.#offer();
  }

  /** The end: an outcome other than completed leaves a mark; `retry` makes it offer another try. */
  end(outcome, error, retry) {
    this.turn.removeAttribute("aria-busy");
    for (const call of this.#calls) if (!call.told) call.view.done("no result", null, null);
    const marks = this.isEmpty ? BEFORE_THE_FIRST_WORD : MARKS;
    if (marks[outcome]) {
      const mark = element("p", `mark ${outcome}`, error && outcome === "failed" ? `${marks.failed}: ${error}` : marks[outcome]);
      if (retry) mark.append(button("Try again", retry));
      this.acts.before(mark);
    }
    this.changed();
  }

  #offer() {
    this.acts.hidden = !this.#texts.length;
  }

  #showSource(toggle) {
    const shown = !this.#plain;
    this.#plain?.remove();
    this.#plain = undefined;
    if (shown) {
      this.#plain = element("pre", "raw");
      this.#plain.append(document.createTextNode(this.source));
      this.acts.before(this.#plain);
    }
    this.parts.hidden = shown;
    toggle.setAttribute("aria-pressed", String(shown));
  }
}

function toolView(name) {
  const state = element("span", "state", "running…"), facts = element("dl");
  const root = element("details", "tool", element("summary", "", icon("chevron"), icon("tool"), element("span", "name", name), state), facts);
  root.dataset.state = "running";
  const fact = (label, text) => {
    const value = element("pre", "", text);
    Object.assign(value, { tabIndex: 0, role: "region", ariaLabel: `${label} of ${name}` });
    facts.append(element("dt", "", label), element("dd", "", value));
  };
  const done = (how, args, result) => {
    root.dataset.state = how === "done" ? how : "none";
    state.textContent = how;
    if (args !== null && args !== undefined) fact("Arguments", typeof args === "string" ? args : JSON.stringify(args, null, 2));
    if (result !== null) fact("Result", typeof result === "string" ? result : JSON.stringify(result, null, 2));
    if (!facts.hasChildNodes()) facts.append(element("dt", "", "It was not answered."));
  };
  return { root, done };
}

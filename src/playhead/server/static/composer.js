// Where the user types: the text grows with its lines, is kept per thread, and is sent or the answer stopped with one button.

import { drafts } from "./drafts.js";

const SLACK_PX = 2;

export class Composer {
  /** @param {{ send, stop }} on  send(text), stop() */
  constructor({ form, input, button }, on) {
    Object.assign(this, { input, button });
    form.addEventListener("submit", (event) => { event.preventDefault(); on.send(this.text); });
    // The second click of a double click on Send is not meant for the Stop that has taken its place.
    button.addEventListener("click", (event) => { if (this.live && event.detail < 2) on.stop(); });
    input.addEventListener("input", () => { drafts.save(this.thread, this.text); this.fit(); });
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      on.send(this.text);
    });
    addEventListener("resize", () => this.fit());
  }

  get text() {
    return this.input.value;
  }

  enter(thread) {
    this.thread = thread;
    this.input.value = drafts.load(thread).text;
    this.fit();
  }

  /** Put a text here, as if it had been typed. */
  put(text) {
    this.input.value = text;
    drafts.save(this.thread, text);
    this.fit();
    this.input.focus();
  }

  /** What was sent is taken away; what was typed behind it meanwhile stays, and so does another text. */
  sent(text) {
    if (!this.text.startsWith(text)) return;
    this.input.setRangeText("", 0, text.length); // keeps the caret where it is
    if (this.text) drafts.save(this.thread, this.text);
    this.fit();
  }

  show({ live, busy }) {
    this.live = live;
    this.button.disabled = busy;
    this.button.textContent = live ? "Stop" : "Send";
    this.button.type = live ? "button" : "submit"; // Enter must never stop an answer
    this.button.classList.toggle("stop", live);
  }

  fit() {
    this.input.style.height = "auto";
    this.input.style.height = `${this.input.scrollHeight + SLACK_PX}px`;
  }
}

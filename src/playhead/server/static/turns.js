// The conversation on the page: turns in their order, each with a key, drawn at most once per frame.

import { Answer } from "./answer.js";
import { copyFrom } from "./copy.js";
import { element, iconButton } from "./dom.js";

const NEAR_END_PX = 80;
const SLICE_CHARACTERS = 4000, DRAW_MS = 8; // more than that is drawn over several frames
const FRAME_MS = 16, REST_FACTOR = 2; // a drawing that took long is followed by a pause this much longer, so that the page stays fluid

export class Turns {
  #nodes = new Map();
  #dirty = new Set();
  #pinned = true;
  #top = 0;

  constructor(list, scroller, toEnd) {
    Object.assign(this, { list, scroller, toEnd });
    scroller.addEventListener("scroll", () => this.#look(), { passive: true });
    toEnd.addEventListener("click", () => this.goToEnd());
    new ResizeObserver(() => this.#keepEnd()).observe(scroller);
    list.addEventListener("click", (event) => {
      const from = event.target.closest(".copy-code");
      if (from) copyFrom(from, from.closest("figure").querySelector("code").textContent);
    });
  }

  get isEmpty() {
    return this.#nodes.size === 0;
  }

  clear() {
    this.list.replaceChildren();
    this.#nodes.clear();
    this.#dirty.clear();
    [this.#pinned, this.#top] = [true, 0];
    this.toEnd.hidden = true;
  }

  has(key) {
    return this.#nodes.has(key);
  }

  /** Each key's turn in this order; turns of other keys stay behind them. */
  order(keys) {
    let next = this.list.firstChild;
    for (const key of keys) {
      const turn = this.#nodes.get(key);
      if (!turn) continue;
      if (turn === next) next = next.nextSibling;
      else this.list.insertBefore(turn, next);
    }
  }

  human(key, text) {
    const turn = this.#add(key, "human");
    const said = element("div", "said", text);
    said.dir = "auto";
    const acts = element("div", "acts", iconButton("copy", "Copy message", (event) => copyFrom(event.currentTarget, text)));
    turn.append(said, acts);
    this.#keepEnd();
  }

  answer(key) {
    const answer = new Answer(this.#add(key, "ai"), () => this.#later(answer));
    this.#keepEnd();
    return answer;
  }

  remove(key) {
    this.#nodes.get(key)?.remove();
    this.#nodes.delete(key);
  }

  goToEnd() {
    this.#pinned = true;
    this.#keepEnd();
  }

  #add(key, kind) {
    const turn = element("li", `turn ${kind}`);
    this.#nodes.set(key, turn);
    this.list.append(turn);
    return turn;
  }

  #look() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    if (scrollHeight - scrollTop - clientHeight < NEAR_END_PX) this.#pinned = true;
    else if (scrollTop < this.#top) this.#pinned = false; // moved up, by hand: growing never does that
    this.#top = scrollTop;
    this.toEnd.hidden = this.#pinned;
  }

  #later(answer) {
    this.#dirty.add(answer);
    this.#keepEnd();
  }

  // Once per frame: drawing and measuring for every word would be slow when thousands arrive at once.
  #keepEnd() {
    if (this.frame) return;
    this.frame = requestAnimationFrame((begun) => {
      if (begun < this.restUntil) {
        this.frame = undefined;
        return this.#keepEnd();
      }
      const began = performance.now();
      this.#draw(began + DRAW_MS);
      if (this.#pinned) this.scroller.scrollTop = this.scroller.scrollHeight;
      this.#look();
      const took = performance.now() - began;
      this.restUntil = this.#dirty.size ? 0 : began + took + REST_FACTOR * took - FRAME_MS;
      this.frame = undefined;
      if (this.#dirty.size) this.#keepEnd();
    });
  }

  /** The newest first: that is what is being looked at. */
  #draw(until) {
    for (const answer of [...this.#dirty].reverse()) {
      while (!answer.draw(SLICE_CHARACTERS)) if (performance.now() > until) return;
      this.#dirty.delete(answer);
      if (performance.now() > until) return;
    }
  }
}

// The conversation on the page. All text gets there through text nodes: nothing of it is ever markup.

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
const NEAR_END_PX = 80;

export class Turns {
  constructor(list, scroller, empty) {
    Object.assign(this, { list, scroller, empty, pinned: true });
    scroller.addEventListener("scroll", () => {
      this.pinned = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_END_PX;
    });
  }

  clear() {
    this.list.replaceChildren();
    this.empty.hidden = true;
    this.pinned = true;
  }

  /** All that there is has been drawn: if that is nothing, say so. */
  drawn() {
    this.empty.hidden = this.list.hasChildNodes();
  }

  human(text) {
    this.pinned = true;
    this.#add("human").append(text);
  }

  answer() {
    return new Answer(this.#add("ai"), () => this.#keepEnd());
  }

  #add(kind) {
    const turn = element("li", `turn ${kind}`);
    this.list.append(turn);
    this.empty.hidden = true;
    this.#keepEnd();
    return turn;
  }

  #keepEnd() {
    // Once per frame: measuring for every word would be slow when thousands arrive at once.
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      if (this.pinned) this.scroller.scrollTop = this.scroller.scrollHeight;
    });
  }
}

class Answer {
  #text;

  constructor(turn, changed) {
    Object.assign(this, { turn, changed });
  }

  /** Being written: marked, and read out only when it is complete. */
  write() {
    this.turn.setAttribute("aria-busy", "true");
    return this;
  }

  text(text) {
    if (!this.#text) this.turn.append((this.#text = document.createTextNode("")));
    this.#text.appendData(text);
    this.changed();
  }

  tool(name) {
    this.turn.append(element("span", "tool", `used ${name}`));
    this.#text = undefined;
    this.changed();
  }

  restart() {
    this.turn.replaceChildren();
    this.#text = undefined;
  }

  /** The end: an outcome other than completed leaves a mark; `retry` makes it offer another try. */
  end(outcome, error, retry) {
    this.turn.removeAttribute("aria-busy");
    const marks = this.turn.hasChildNodes() ? MARKS : BEFORE_THE_FIRST_WORD;
    if (marks[outcome]) {
      const text = error && outcome === "failed" ? `${marks.failed}: ${error}` : marks[outcome];
      const mark = element("p", marks === MARKS ? `mark ${outcome}` : `mark alone ${outcome}`, text);
      if (retry && outcome !== "cancelled") mark.append(button("Try again", retry));
      this.turn.append(mark);
    } else if (!this.turn.hasChildNodes()) {
      this.turn.remove();
    }
    this.changed();
  }
}

function button(label, act) {
  const made = element("button", "", label);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

function element(name, kind, text = "") {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (text) made.append(text);
  return made;
}

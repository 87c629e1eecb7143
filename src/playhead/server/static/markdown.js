// Markdown as it streams in, drawn safely: all that comes is put into text nodes of elements made here, links are checked.
//
//     const view = new Markdown(element);
//     view.append(text);   // as often as it comes; `view.source` is all of it, byte for byte
//     view.draw();         // once per frame is enough; draw(4000) draws so many characters more, and tells if that is all
//
// Blocks that are complete are drawn once. Only the unfinished end is read again, and only what changed in it is touched.

import { blocks } from "./markdown/blocks.js";

const LINE_END = /\r\n|\r|\n/, LETTER = /\p{L}/u;
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1eeff}]/u;

export class Markdown {
  source = "";
  #drawn = 0; // characters of the source that were drawn
  #done = 0; // characters in blocks that are final
  #doneBlocks = 0;
  #open = []; // trees of the blocks drawn behind those

  constructor(root) {
    this.root = root;
  }

  append(text) {
    this.source += text;
  }

  /** @returns {boolean} whether everything is drawn now */
  draw(charactersMax = Infinity) {
    const end = Math.min(this.source.length, this.#drawn + charactersMax);
    if (end > this.#drawn) {
      const rest = this.source.slice(this.#done, end), fresh = this.source.slice(Math.max(this.#done, this.#drawn - 1), end);
      const found = blocks(rest.split(LINE_END)).map(({ tree }) => sided(tree));
      patch(this.root, this.#open, found, this.#doneBlocks);
      this.#open = found;
      this.#drawn = end;
      if (LINE_END.test(fresh)) this.#finish(rest);
    }
    return end === this.source.length;
  }

  /** All blocks but the last one of those that whole lines make are final: an unfinished line may yet change its meaning. */
  #finish(rest) {
    const ends = [...rest.matchAll(/\r\n|\r(?!$)|\n/g)].map((end) => end.index + end[0].length);
    const lines = rest.slice(0, ends.at(-1) ?? 0).split(LINE_END).slice(0, -1);
    const last = blocks(lines);
    if (last.length < 2) return;
    this.#done += ends[last.at(-1).start - 1];
    this.#doneBlocks += last.length - 1;
    this.#open = this.#open.slice(last.length - 1);
  }
}

/**
 * A block whose first letter is of a script that runs right to left does so as a whole, with its bullets and bars.
 * dir="auto" would say the same, but costs the browser a search of the block each time something in it changes.
 */
function sided(tree) {
  const letter = firstLetter(tree);
  return letter && RIGHT_TO_LEFT.test(letter) ? { ...tree, attributes: { ...tree.attributes, dir: "rtl" } } : tree;
}

function firstLetter(tree) {
  if (typeof tree === "string") return LETTER.exec(tree)?.[0];
  if (tree.tag === "figure") return undefined;
  for (const kid of tree.kids) {
    const letter = firstLetter(kid);
    if (letter) return letter;
  }
  return undefined;
}

// ---- a tree onto the page ----------------------------------------------------------------------------------

/** Make children (from `first` on) that were drawn from one list of trees show another one, touching only differences. */
function patch(parent, before, after, first = 0) {
  for (let at = after.length; at < before.length; at++) parent.lastChild.remove();
  let child = parent.childNodes[first];
  for (let at = 0; at < after.length; at++) {
    const was = before[at], now = after[at], next = child?.nextSibling;
    if (was === undefined) parent.append(made(now));
    else if (typeof was === "string" && typeof now === "string") retext(child, was, now);
    else if (alike(was, now)) patch(child, was.kids, now.kids);
    else child.replaceWith(made(now));
    child = next;
  }
}

function retext(text, was, now) {
  if (now === was) return; // even nothing, appended, would count as a change
  if (now.startsWith(was)) text.appendData(now.slice(was.length));
  else text.data = now;
}

function alike(was, now) {
  const names = Object.keys(now.attributes ?? {});
  return Boolean(was.tag) && was.tag === now.tag && names.length === Object.keys(was.attributes).length &&
    names.every((name) => was.attributes[name] === now.attributes[name]);
}

function made(tree) {
  if (typeof tree === "string") return document.createTextNode(tree);
  const element = document.createElement(tree.tag);
  for (const [name, value] of Object.entries(tree.attributes)) element.setAttribute(name, value);
  for (const kid of tree.kids) element.append(made(kid));
  return element;
}

// The list of threads: newest activity first, searched by the server, longer while it is scrolled.

import { Refused, ask, sent } from "./api.js";
import { element, iconButton } from "./dom.js";

const PAGE_THREADS = 50, LIST_MAX_THREADS = 1000;
const SEARCH_AFTER_MS = 200, NEWS_AFTER_MS = 300, REFRESH_EVERY_MS = 30_000;
const NEW_CHAT = "New chat", UNNAMED = "New Chat"; // the second is the server's word
const TITLE_MAX_CHARACTERS = 200;

export const titleOf = (thread) => (thread.chat_name && thread.chat_name !== UNNAMED ? thread.chat_name : thread.preview.trim()) || NEW_CHAT;
export const linkTo = (id) => `/?conversationId=${encodeURIComponent(id)}`;

export class Threads {
  #rows = new Map(); // id -> { thread, item, link, title, when }
  #next; // address of the page behind what is shown
  #asked = 0;
  #editing;
  current;

  /** @param {{ open, deleted, renamed, idle, problem, confirm }} on
   *   open(id), deleted(id), renamed(): some title may have changed, idle(): nothing is live on the open one,
   *   problem(text), confirm(title): Promise<boolean> */
  constructor({ list, search, status, scroller, end }, on) {
    Object.assign(this, { list, search, status, on });
    search.addEventListener("input", () => this.#later(SEARCH_AFTER_MS));
    search.addEventListener("keydown", (event) => this.#searchKey(event));
    list.addEventListener("keydown", (event) => this.#listKey(event));
    this.end = end;
    this.nearEnd = new IntersectionObserver((seen) => seen.at(-1).isIntersecting && this.#more(), { root: scroller, rootMargin: "300px" });
    setInterval(() => document.hidden || this.refresh(), REFRESH_EVERY_MS);
    addEventListener("focus", () => this.refresh());
  }

  title(id) {
    const row = this.#rows.get(id);
    return row && titleOf(row.thread);
  }

  /** Mark the one that is open. */
  mark(id, live) {
    this.current = id;
    for (const [each, row] of this.#rows) {
      if (each === id) row.link.setAttribute("aria-current", "page");
      else row.link.removeAttribute("aria-current");
    }
    const row = this.#rows.get(id);
    if (row && live !== undefined) this.#lively(row, live);
    if (!this.list.contains(document.activeElement)) this.#rove(row?.link ?? this.list.querySelector("a"));
  }

  news() {
    this.#later(NEWS_AFTER_MS);
  }

  forget(id) {
    this.#rows.get(id)?.item.remove();
    this.#rows.delete(id);
    this.#tell();
  }

  #later(ms) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.refresh(), ms);
  }

  /** Ask anew for as much as is shown. */
  async refresh() {
    clearTimeout(this.timer);
    const asked = ++this.#asked, search = this.search.value.trim();
    const limit = Math.min(LIST_MAX_THREADS, Math.max(PAGE_THREADS, this.#rows.size));
    try {
      const { body, next } = await ask(`/v1/threads?limit=${limit}${search && `&search=${encodeURIComponent(search)}`}`);
      if (asked !== this.#asked) return;
      this.#next = next;
      this.#show(body, search !== this.shown);
      this.shown = search;
      this.#tell();
      if (this.#rows.get(this.current)?.thread.live === false) this.on.idle();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (asked === this.#asked) this.#tell(error);
    }
  }

  async #more() {
    if (!this.#next) return;
    const [next, asked] = [this.#next, this.#asked];
    this.#next = undefined;
    try {
      const answer = await ask(next);
      if (asked !== this.#asked) return;
      this.#next = answer.next;
      for (const thread of answer.body) this.list.append(this.#row(thread).item);
      this.#watchEnd();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#next ??= next;
    }
    this.mark(this.current);
  }

  #show(threads, anew) {
    if (this.#editing && !anew) return; // nothing moves under the hands of who types a name
    const had = document.activeElement?.closest?.(".thread")?.dataset.id;
    const shown = new Set(threads.map((thread) => thread.id));
    for (const [id, row] of this.#rows) {
      if (shown.has(id)) continue;
      row.item.remove();
      this.#rows.delete(id);
    }
    let next = this.list.firstChild;
    for (const thread of threads) {
      const { item } = this.#row(thread);
      if (item === next) next = next.nextSibling;
      else this.list.insertBefore(item, next);
    }
    if (had && this.#rows.has(had) && !this.list.contains(document.activeElement)) this.#rows.get(had).link.focus();
    this.mark(this.current);
    this.#watchEnd();
    this.on.renamed();
  }

  #row(thread) {
    const row = this.#rows.get(thread.id) ?? this.#made(thread);
    const title = titleOf(thread);
    row.thread = thread;
    if (row.title.textContent !== title) row.title.textContent = title;
    row.link.title = title;
    row.when.dateTime = thread.last_activity_time;
    row.when.textContent = ago(new Date(thread.last_activity_time));
    row.rename.setAttribute("aria-label", `Rename ${title}`);
    row.remove.setAttribute("aria-label", `Delete ${title}`);
    this.#lively(row, thread.live);
    return row;
  }

  #made({ id }) {
    const title = element("span", "title"), when = element("time"), dot = element("span", "dot");
    title.dir = "auto";
    dot.hidden = true;
    dot.setAttribute("role", "img");
    dot.setAttribute("aria-label", "answering now");
    const link = element("a", "", dot, title, when);
    link.href = linkTo(id);
    link.addEventListener("click", (event) => {
      if (event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
      event.preventDefault();
      this.on.open(id);
    });
    const rename = iconButton("rename", "Rename", () => this.#rename(id));
    const remove = iconButton("delete", "Delete", () => this.#delete(id));
    const item = element("li", "thread", link, rename, remove);
    item.dataset.id = id;
    const row = { item, link, title, when, dot, rename, remove };
    for (const stop of [link, rename, remove]) stop.tabIndex = -1;
    this.#rows.set(id, row);
    return row;
  }

  #lively(row, live) {
    row.dot.hidden = !live;
  }

  /** Observed anew, it tells even if the end of the list has not moved. */
  #watchEnd() {
    this.nearEnd.unobserve(this.end);
    this.nearEnd.observe(this.end);
  }

  #tell(error) {
    const empty = this.#rows.size === 0;
    this.status.replaceChildren();
    if (error) {
      const again = element("button", "", "Try again");
      again.type = "button";
      again.addEventListener("click", () => this.refresh());
      this.status.append(element("span", "", `The list could not be loaded. ${error.message}`), again);
    } else if (empty) this.status.append(this.shown ? "Nothing found." : "No chats yet.");
    this.status.hidden = !this.status.hasChildNodes();
  }

  // ---- keyboard: one tab stop for the whole list, arrows within ------------------------------------------------

  #rove(link) {
    for (const row of this.#rows.values()) {
      const index = row.link === link ? 0 : -1;
      for (const stop of [row.link, row.rename, row.remove]) stop.tabIndex = index;
    }
  }

  #searchKey(event) {
    if (event.key === "ArrowDown") this.#focus(this.list.firstElementChild, event);
    else if (event.key === "Escape" && this.search.value) {
      event.stopPropagation();
      this.search.value = "";
      this.refresh();
    }
  }

  #listKey(event) {
    const item = event.target.closest(".thread"), id = item?.dataset.id;
    if (!item || event.target.matches("input")) return;
    const to = { ArrowDown: item.nextElementSibling, ArrowUp: item.previousElementSibling, Home: this.list.firstElementChild, End: this.list.lastElementChild };
    if (event.key in to) this.#focus(to[event.key] ?? (event.key === "ArrowUp" ? this.search : null), event);
    else if (event.key === "F2") this.#rename(id);
    else if (event.key === "Delete") this.#delete(id);
    else return;
    event.preventDefault();
  }

  #focus(target, event) {
    event.preventDefault();
    const link = target?.querySelector?.("a") ?? target;
    if (link?.matches("a")) this.#rove(link);
    link?.focus();
  }

  // ---- rename and delete ---------------------------------------------------------------------------------------

  #rename(id) {
    const row = this.#rows.get(id), input = element("input");
    if (this.#editing) return;
    this.#editing = id;
    Object.assign(input, { value: titleOf(row.thread), maxLength: TITLE_MAX_CHARACTERS, ariaLabel: "New name", dir: "auto" });
    row.item.classList.add("editing");
    row.item.prepend(input);
    input.select();
    const end = async (keep) => {
      if (this.#editing !== id) return;
      this.#editing = undefined;
      const name = input.value.trim(), within = document.activeElement === input;
      input.remove();
      row.item.classList.remove("editing");
      if (within) row.link.focus();
      if (keep && name && name !== titleOf(row.thread)) await this.#save(id, name);
    };
    input.addEventListener("keydown", (event) => {
      if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
      event.preventDefault();
      event.stopPropagation();
      end(event.key === "Enter");
    });
    input.addEventListener("blur", () => end(true));
    input.focus();
  }

  async #save(id, name) {
    const row = this.#rows.get(id), before = row.thread;
    this.#row({ ...before, chat_name: name });
    this.on.renamed();
    try {
      await ask(`/v1/threads/${encodeURIComponent(id)}`, sent("PATCH", { chat_name: name }));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (this.#rows.has(id)) this.#row(before);
      this.on.problem(`The name was not changed. ${error.message}`);
    }
    this.on.renamed();
    this.news();
  }

  async #delete(id) {
    const { item, thread } = this.#rows.get(id);
    if (!(await this.on.confirm(titleOf(thread)))) return;
    const next = item.nextElementSibling ?? item.previousElementSibling;
    try {
      await ask(`/v1/threads/${encodeURIComponent(id)}`, { method: "DELETE" });
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status !== 404) return this.on.problem(`The chat was not deleted. ${error.message}`);
    }
    this.forget(id);
    this.on.deleted(id);
    if (next?.isConnected) this.#rove(next.querySelector("a"));
    (next?.isConnected ? next.querySelector("a") : this.search).focus();
    this.news();
  }
}

/** Time of today, day of this week, else the date; in the reader's own language. */
function ago(time) {
  const days = (new Date().setHours(0, 0, 0, 0) - new Date(time).setHours(0, 0, 0, 0)) / 86_400_000;
  if (days < 1) return time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  if (days < 7) return time.toLocaleDateString([], { weekday: "short" });
  return time.toLocaleDateString([], { day: "numeric", month: "short" });
}

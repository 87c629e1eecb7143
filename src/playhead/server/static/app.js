// The chat page: its address, its threads and the one that is open, and what is shown around it.

import { Refused } from "./api.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { button, uuid } from "./dom.js";
import { drafts } from "./drafts.js";
import { Drawer, sure } from "./drawer.js";
import { Playhead } from "./playhead.js";
import { Threads, linkTo } from "./threads.js";
import { Turns } from "./turns.js";

const LAST_THREAD = "playhead.thread", THREAD_ID_MAX_CHARACTERS = 1000, TITLE_MAX_CHARACTERS = 100;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const STATES = { "catching-up": "catching up", reconnecting: "reconnecting…", connecting: "connecting…", failed: "not connected" };
const UNREACHED = new Set(["connecting", "reconnecting", "offline", "failed", "catching-up"]);
const $ = (id) => document.getElementById(id);

const turns = new Turns($("turns"), $("scroll"), $("to-end"));
const chat = new Chat(new Playhead({ share: true }), turns, { changed: show, news, began, gone, retry: (text) => say(text, { draft: false }) });
const composer = new Composer({ form: $("say"), input: $("message"), button: $("send") }, { send: (text) => say(text), stop });
const drawer = new Drawer({ side: $("side"), rest: $("talk"), veil: $("veil"), menu: $("menu"), close: $("close-side") });
const threads = new Threads(
  { list: $("threads"), search: $("search"), status: $("list-status"), scroller: $("listing"), end: $("list-end") },
  { open, renamed: showTitle, idle: () => chat.doubt(), problem: (text) => note(text), confirm: (title) => sure($("sure"), `“${title}” will be gone for good.`), deleted },
);
const otherTabs = "BroadcastChannel" in window ? new BroadcastChannel("playhead.page") : undefined;
let isGone = false, stopping = false;
let noteEnds; // what makes the note untrue: "connected" or "idle"
let unsure; // what was said without an answer to tell whether it arrived

// ---- which thread ------------------------------------------------------------------------------------------

function enter(id) {
  [isGone, stopping, unsure] = [false, false, undefined];
  localStorage.setItem(LAST_THREAD, id);
  note("");
  chat.enter(id);
  composer.enter(id);
  threads.mark(id);
  show();
}

function open(id) {
  drawer.show(false);
  if (id !== chat.thread || isGone) {
    if (id !== chat.thread) history.pushState(null, "", linkTo(id));
    enter(id);
  }
  $("message").focus({ preventScroll: true });
}

function newChat(text = "") {
  threads.search.value &&= "";
  open(uuid());
  if (text) composer.put(text);
}

function threadOfUrl() {
  const asked = new URLSearchParams(location.search);
  const id = asked.get("conversationId") || asked.get("thread_id") || "";
  if (!id || id.length > THREAD_ID_MAX_CHARACTERS) return undefined;
  return UUID.test(id) ? id.toLowerCase() : id;
}

// ---- what the user does ------------------------------------------------------------------------------------

async function say(text, { draft = true, supersede = false } = {}) {
  if (!text.trim() || chat.sending) return;
  if (isGone) return note("This chat was deleted; your text is kept.", ["New chat", () => newChat(text)]);
  if (chat.isLive && !supersede) return busy("An answer is being written. Your text is kept.", text, draft);
  const here = chat.thread, isDraft = draft && composer.text === text;
  note("");
  try {
    await chat.say(text, { supersede, draft: isDraft });
    if (chat.thread === here && isDraft) composer.sent(text);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (chat.thread === here) notSent(error, text, draft);
  }
}

function notSent(error, text, draft) {
  const kept = draft ? "Your text is kept." : "";
  if (error.code === "thread-busy") busy(`Another answer is being written just now. ${kept}`, text, draft);
  else if (error.code === "thread-not-found") gone();
  else {
    note(`${error.message} ${kept}`, error.status ? undefined : ["Try again", () => say(text, { draft })]);
    if (error.status) return;
    [noteEnds, unsure] = ["connected", text];
    if (chat.heard.has(text)) began(text);
  }
}

/** It did arrive. */
function began(text) {
  if (text !== unsure) return;
  unsure = undefined;
  note("");
  if (drafts.load(chat.thread).text === text) drafts.drop(chat.thread);
  if (composer.text === text) composer.sent(text); // by now it may be another one that only begins alike
}

function busy(why, text, draft) {
  note(why, ["Stop and send", () => say(draft ? composer.text || text : text, { draft, supersede: true })]);
  noteEnds = "idle";
}

async function stop() {
  stopping = true;
  show();
  try {
    await chat.stop();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    stopping = false;
    note(error.message);
    if (!error.status) noteEnds = "connected";
    show();
  }
}

// ---- what is shown -----------------------------------------------------------------------------------------

function show() {
  if (!chat.isLive) stopping = false;
  composer.show({ live: chat.isLive, busy: chat.sending || stopping });
  const state = navigator.onLine ? chat.state : "offline";
  const idle = chat.outcome === "interrupted" ? "interrupted" : "ready";
  const word = UNREACHED.has(state) ? state : chat.problem ? "reconnecting" : chat.isLive ? "live" : idle;
  const pill = $("connection");
  if (pill.dataset.state !== word) {
    if (UNREACHED.has(pill.dataset.state) && !UNREACHED.has(word)) threads.news();
    pill.dataset.state = word;
    pill.textContent = STATES[word] ?? word;
    if (noteEnds === "connected" && (word === "live" || word === idle)) note("");
  }
  trouble();
  $("empty").hidden = !chat.loaded || !turns.isEmpty || isGone || Boolean(chat.problem);
  threads.mark(chat.thread, chat.isLive);
  showTitle();
}

function showTitle() {
  if (!chat.thread) return;
  const first = chat.preview.trim().slice(0, TITLE_MAX_CHARACTERS).replace(/\s+/g, " ");
  const title = isGone ? "Deleted chat" : threads.title(chat.thread) || first || "New chat";
  $("title").textContent = title;
  document.title = `${chat.isLive ? "● " : ""}${title} · Playhead`;
}

function trouble() {
  const [text, label, act] = isGone ? ["This chat was deleted.", "New chat", () => newChat(composer.text)]
    : chat.problem && !chat.loaded ? [`This chat could not be loaded. ${chat.problem.message} Trying again…`, "Try now", () => chat.again()] : [];
  if ($("trouble").dataset.text === (text ?? "")) return;
  $("trouble").dataset.text = text ?? "";
  $("trouble").hidden = !text;
  $("trouble").replaceChildren(...(text ? [text, button(label, act)] : []));
}

function note(text, action) {
  noteEnds = undefined;
  $("note").hidden = !text;
  $("note").replaceChildren(text, ...(action ? [button(action[0], action[1])] : []), ...(text ? [button("Dismiss", () => note(""), "quiet")] : []));
}

function news() {
  if (noteEnds === "idle" && !chat.isLive) note("");
  threads.news();
}

// ---- deleted -----------------------------------------------------------------------------------------------

/** The thread that is open does not exist any more. Its text goes, what is being typed stays. */
function gone() {
  isGone = true;
  chat.leave();
  turns.clear();
  chat.outcome = undefined;
  threads.forget(chat.thread);
  note("");
  show();
  $("trouble").querySelector("button")?.focus();
}

function deleted(id) {
  drafts.drop(id);
  otherTabs?.postMessage({ deleted: id });
  if (id === chat.thread) {
    const next = uuid();
    history.replaceState(null, "", linkTo(next));
    enter(next);
  }
}

otherTabs?.addEventListener("message", ({ data }) => {
  if (data?.deleted === undefined) return;
  if (data.deleted === chat.thread) gone();
  else threads.forget(data.deleted);
});

// ---- begin -------------------------------------------------------------------------------------------------

$("hints").hidden = document.body.dataset.model !== "demo";
$("hints").addEventListener("click", (event) => {
  const say = event.target.closest("[data-say]")?.dataset.say;
  if (say) composer.put(say);
});
$("new").addEventListener("click", () => newChat());
addEventListener("keydown", (event) => {
  if ($("sure").open) return;
  const typing = event.target.closest?.("input, textarea");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    drawer.show(true);
    $("search").focus();
  } else if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey) {
    event.preventDefault();
    newChat();
  }
});
addEventListener("popstate", () => enter(threadOfUrl() ?? chat.thread));
for (const event of ["online", "offline"]) addEventListener(event, () => { chat.again(); show(); });
document.addEventListener("visibilitychange", () => document.hidden || (chat.again(), threads.refresh()));

const first = threadOfUrl() ?? localStorage.getItem(LAST_THREAD) ?? uuid();
history.replaceState(null, "", linkTo(first));
enter(first);
threads.refresh();

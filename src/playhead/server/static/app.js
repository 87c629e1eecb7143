// The chat page: one thread, its history, the stream that is live on it, and what the user does.

import { drafts } from "./drafts.js";
import { follow } from "./follow.js";
import { Turns } from "./turns.js";

const LOOK_EVERY_MS = 1000, LOOK_STREAMS = 10, THREAD = "playhead.thread";
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const $ = (id) => document.getElementById(id);
const turns = new Turns($("turns"), $("scroll"), $("empty"));
const input = $("message"), send = $("send");

let thread, known, live, sending, loaded, visit = 0;

// ---- the thread ------------------------------------------------------------------------------------------

function enter(id) {
  visit += 1;
  live?.leave();
  [thread, known, live, sending, loaded] = [id, new Set(), null, false, false];
  localStorage.setItem(THREAD, id);
  turns.clear();
  note("");
  input.value = drafts.load(id).text;
  fit();
  showButton();
  look();
}

/** Everything that is known of the thread, drawn anew. */
async function load() {
  const here = visit;
  const list = await ask(`/thread?all=true&thread_id=${encodeURIComponent(thread)}`);
  if (here !== visit || live || sending) return; // drawn later, with what has just begun
  turns.clear();
  loaded = true;
  let said = "";
  for (const turn of list) {
    if (turn.stream_id) known.add(turn.stream_id);
    if (turn.type === "human") turns.human((said = turn.content));
    else {
      const answer = turns.answer(), text = said;
      if (turn.content) answer.text(turn.content);
      answer.end(turn.outcome, turn.error, () => say(text));
    }
    if (turn.live) watch(turn.stream_id, said);
  }
  turns.drawn();
}

/** Streams that began elsewhere, in another tab for instance. */
async function look() {
  if (live || sending || document.hidden) return;
  const here = visit;
  try {
    if (!loaded) await load();
    else {
      const { streams } = await ask(`/v1/streams?limit=${LOOK_STREAMS}&thread_id=${encodeURIComponent(thread)}`);
      const fresh = streams.filter((stream) => !known.has(stream.stream_id));
      if (here !== visit || live || sending) return;
      if (fresh.length > 1) await load();
      else if (fresh.length) {
        const said = fresh[0].metadata.user_message?.text ?? "";
        if (said) turns.human(said);
        watch(fresh[0].stream_id, said);
      }
    }
    if (here === visit && !live) connection("ready");
  } catch (error) {
    if (here === visit) connection(error.status ? "reconnecting" : "offline");
  }
}

function watch(streamId, said) {
  const answer = turns.answer().write();
  known.add(streamId);
  const done = () => { live = null; note(""); showButton(); connection("ready"); };
  live = {
    streamId,
    leave: follow(streamId, {
      text: (text) => answer.text(text),
      tool: (name) => answer.tool(name),
      restart: () => answer.restart(),
      state: (state) => connection(navigator.onLine ? state : "offline"),
      gone: () => { done(); loaded = false; look(); },
      close: (end) => { answer.end(end.outcome, end.error, () => say(said)); done(); },
    }),
  };
  showButton();
}

// ---- what the user does ----------------------------------------------------------------------------------

async function say(text) {
  if (!text.trim() || sending) return;
  if (live) return note("An answer is being written. Stop it, or wait for its end; your text is kept.");
  const here = visit, into = thread;
  sending = true;
  showButton();
  note("");
  try {
    const key = input.value === text ? drafts.save(into, text) : crypto.randomUUID();
    const headers = { "content-type": "application/json", "idempotency-key": key };
    const body = JSON.stringify({ message: text, thread_id: into });
    const started = await ask("/v1/chat/message", { method: "POST", headers, body });
    if (drafts.load(into).text === text) drafts.drop(into);
    if (here !== visit) return;
    if (input.value === text) input.value = "";
    fit();
    if (!known.has(started.stream_id)) {
      turns.human(text);
      watch(started.stream_id, text);
    }
  } catch (error) {
    if (here === visit) note(`${error.message} Your text is kept${input.value ? "" : " here: " + text}`);
  } finally {
    if (here === visit) {
      sending = false;
      showButton();
      look();
    }
  }
}

async function stop() {
  send.disabled = true;
  try {
    await ask(`/v1/streams/${encodeURIComponent(live.streamId)}/cancel`, { method: "POST" });
  } catch (error) {
    note(error.message);
    send.disabled = false;
  }
}

// ---- asking and showing ----------------------------------------------------------------------------------

async function ask(path, options) {
  let answer, body;
  try {
    answer = await fetch(path, options);
    body = await answer.json();
  } catch {
    throw new Error("The server cannot be reached.");
  }
  if (answer.ok) return body;
  const detail = body.code === "thread-busy" ? "Another answer is being written just now." : `${body.detail}.`;
  throw Object.assign(new Error(detail), { status: answer.status });
}

function connection(state) {
  const pill = $("connection");
  if (pill.dataset.state === state) return;
  pill.dataset.state = state;
  pill.textContent = state === "reconnecting" ? "reconnecting…" : state;
}

function note(text) {
  $("note").textContent = text;
  $("note").hidden = !text;
}

function showButton() {
  send.disabled = sending;
  send.textContent = live ? "Stop" : "Send";
  send.type = live ? "button" : "submit"; // Enter must never stop an answer
  send.classList.toggle("stop", Boolean(live));
}

function fit() {
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight + 2}px`;
}

// ---- begin -----------------------------------------------------------------------------------------------

$("hints").hidden = document.body.dataset.model !== "demo";
$("hints").addEventListener("click", (event) => {
  if (!event.target.dataset.say) return;
  input.value = event.target.dataset.say;
  input.dispatchEvent(new Event("input"));
  input.focus();
});
$("say").addEventListener("submit", (event) => { event.preventDefault(); say(input.value); });
// The second click of a double click on Send is not meant for the Stop that has taken its place.
send.addEventListener("click", (event) => { if (live && event.detail < 2) stop(); });
input.addEventListener("input", () => { drafts.save(thread, input.value); fit(); });
input.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  say(input.value);
});
$("new").addEventListener("click", () => {
  const id = crypto.randomUUID();
  history.pushState(null, "", `?thread_id=${id}`);
  enter(id);
  input.focus();
});
addEventListener("popstate", () => enter(threadOfUrl() ?? thread));
addEventListener("offline", () => connection("offline"));
addEventListener("online", look);
document.addEventListener("visibilitychange", look);
setInterval(look, LOOK_EVERY_MS);

function threadOfUrl() {
  const id = new URLSearchParams(location.search).get("thread_id");
  return UUID.test(id) ? id : null;
}

const first = threadOfUrl() ?? localStorage.getItem(THREAD) ?? crypto.randomUUID();
history.replaceState(null, "", `?thread_id=${first}`);
enter(first);

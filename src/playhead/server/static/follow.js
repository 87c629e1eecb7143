// Follows one stream over the native door, from its start to its close, through every loss of the connection.

const TEXT = "text", TOOL_CALL = "tool_call", CLOSE = "playhead.close", ERROR = "playhead.error";
const AGAIN_FIRST_MS = 500, AGAIN_MAX_MS = 5000;

/**
 * @param {string} streamId
 * @param {{text, tool, close, restart, gone, state}} on what to do with what comes:
 *   text(string), tool(name), close({outcome, error}), restart() forget what was shown, gone() it exists no more,
 *   state("live" | "reconnecting")
 * @returns {() => void} stops following; the stream goes on.
 */
export function follow(streamId, on) {
  const path = `/v1/streams/${encodeURIComponent(streamId)}`;
  let source, timer, cursor = "", offset = 0, againMs = AGAIN_FIRST_MS, left = false;

  function open() {
    if (document.hidden) return; // until it is shown again
    source = new EventSource(cursor ? `${path}?after=${encodeURIComponent(cursor)}` : path);
    source.onopen = () => { againMs = AGAIN_FIRST_MS; on.state("live"); };
    source.onerror = () => {
      on.state("reconnecting");
      // CONNECTING: the browser comes back by itself, with the last id it saw. CLOSED: it has given up.
      if (source.readyState === EventSource.CLOSED) again();
    };
    listen(TEXT, (event) => on.text(textOf(event)));
    listen(TOOL_CALL, (event) => on.tool(nameOf(event)));
    listen(CLOSE, (end) => { leave(); on.close(end); });
    source.addEventListener(ERROR, (message) => {
      if (!JSON.parse(message.data).retryable) { source.close(); again(); }
    });
  }

  function listen(type, act) {
    source.addEventListener(type, (message) => {
      const event = JSON.parse(message.data);
      if (event.offset <= offset) return;
      offset = event.offset;
      cursor = message.lastEventId;
      act(event);
    });
  }

  function again() {
    clearTimeout(timer);
    timer = setTimeout(recover, againMs);
    againMs = Math.min(2 * againMs, AGAIN_MAX_MS);
  }

  // The server refused the cursor, or is away. What it knows of the stream tells how to go on.
  async function recover() {
    let answer, info;
    try {
      answer = await fetch(`${path}/info`);
      info = await answer.json();
    } catch {
      return left || again();
    }
    if (left) return;
    if (answer.status === 404 || info.status === "expired") { leave(); on.gone(); }
    else if (!answer.ok) again();
    else if (info.outcome && info.cursor === cursor) { leave(); on.close({ ...info.outcome, outcome: info.outcome.kind }); }
    else { cursor = ""; offset = 0; on.restart(); open(); }
  }

  // A browser opens six connections to one server, for all tabs together: those that nobody sees must not use them up.
  function shown() {
    clearTimeout(timer);
    source?.close();
    open();
  }

  function leave() {
    left = true;
    clearTimeout(timer);
    source?.close();
    document.removeEventListener("visibilitychange", shown);
  }

  document.addEventListener("visibilitychange", shown);
  open();
  return leave;
}

function textOf(event) {
  if (event.encoding !== "base64") return event.data;
  return new TextDecoder().decode(Uint8Array.from(atob(event.data), (character) => character.charCodeAt(0)));
}

function nameOf(event) {
  try {
    return String(JSON.parse(textOf(event)).name);
  } catch {
    return "tool";
  }
}

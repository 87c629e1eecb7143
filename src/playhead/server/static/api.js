// Asking the server.

const WAIT_MS = 20_000;

/** Why a question got no answer: `status` and `code` are the server's; without `status` nobody answered. */
export class Refused extends Error {
  constructor(message, facts = {}) {
    super(message);
    this.status = facts.status;
    this.code = facts.code;
    this.streamId = facts.stream_id;
  }
}

/** @returns {Promise<{ body: any, next: string|undefined }>} the answer, and the address of the page after it */
export async function ask(path, options = {}) {
  let answer, body;
  try {
    answer = await fetch(path, { signal: AbortSignal.timeout(WAIT_MS), ...options });
    body = answer.status === 204 ? null : await answer.json();
  } catch {
    throw new Refused("The server cannot be reached.");
  }
  if (!answer.ok) throw new Refused(sentence(body?.detail ?? `The server answered ${answer.status}`), { ...body, status: answer.status });
  return { body, next: /<([^>]+)>; *rel="next"/.exec(answer.headers.get("link") ?? "")?.[1] };
}

export const sent = (method, body) => ({ method, headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

function sentence(text) {
  const said = String(text).trim();
  return said.charAt(0).toUpperCase() + said.slice(1) + (/[.!?]$/.test(said) ? "" : ".");
}

// What is asked of the server beside the streams themselves.

const NEWEST = 50;

/**
 * The newest streams of a thread, newest first; null from a server that lists none.
 *
 * @returns {Promise<{stream_id: string, status: "live" | "closed" | "expired"}[] | null>}
 * Throws: Error when it cannot be told just now.
 */
export async function newestStreams({ url, fetch }, threadId, signal) {
  const query = new URLSearchParams({ thread_id: threadId, limit: String(NEWEST) });
  const response = await fetch(`${url}v1/streams?${query}`, { cache: "no-store", signal });
  if (response.ok) return (await response.json()).streams;
  if (response.status >= 500 || response.status === 429) throw new Error(`status ${response.status}`);
  return null;
}

/** Why a server refused, as a problem document. */
export async function problemOf(response) {
  const { status, statusText } = response;
  const own = { code: `http-${status}`, title: statusText || `Status ${status}`, status, detail: "", retryable: false };
  try {
    return { ...own, ...(await response.json()) };
  } catch {
    return own; // not JSON: somebody between us and the server
  }
}

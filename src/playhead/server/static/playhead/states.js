// What a watch is doing, as one table. Pure: no clock, no network.
//
//     connecting ──► catching-up ──► live ──► closed     the stream is over; for good
//         │  │            │           │
//         │  └────────────┼───────────┤        failed    it cannot be read; for good (from every state)
//         │               ▼           ▼
//         └───────► reconnecting ◄──┘           with the last cursor; back to catching-up or live
//                         ▲
//                         ▼
//                      offline                  the browser says that there is no network
//
// A watch of a thread is never closed: another stream may begin.

export const STATES = Object.freeze([
  "connecting", "catching-up", "live", "reconnecting", "offline", "closed", "failed",
]);

const ENDS = { closed: "closed", failed: "failed" };
const READS = { behind: "catching-up", current: "live", offline: "offline", ...ENDS };

/**
 * state → signal → next state; a signal that is not listed changes nothing.
 *
 * behind    connected, and older events are still to come     lost      the connection is gone, or the server's store
 * current   connected, and all that was there has been read   offline   gone, and there is no network at all
 * closed    the stream's close was read                       online    the network is back
 * failed    it cannot be read
 */
export const TRANSITIONS = Object.freeze({
  connecting: Object.freeze({ ...READS, lost: "reconnecting" }),
  "catching-up": Object.freeze({ ...READS, lost: "reconnecting" }),
  live: Object.freeze({ ...READS, lost: "reconnecting" }),
  reconnecting: Object.freeze({ ...READS }),
  offline: Object.freeze({ ...READS, online: "reconnecting", lost: "reconnecting" }),
  closed: Object.freeze({}),
  failed: Object.freeze({}),
});

/** The state behind a signal. */
export function nextState(state, signal) {
  return TRANSITIONS[state][signal] ?? state;
}

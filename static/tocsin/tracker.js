// @ts-check
/**
 * Shared by both transports: events, positions, errors, and the rules for reconnecting.
 *
 * @typedef {{offset: number, epoch: string}} Position   of a publication in a channel's history
 * @typedef {"connecting" | "connected" | "cut" | "disconnected"} State   only `disconnected` is final
 * @typedef {() => string | Promise<string>} GetToken    called whenever a new token is needed
 * @typedef {object} Publication
 * @property {string} channel
 * @property {any} data
 * @property {number} [offset]   absent if the channel keeps no history
 * @property {string} [epoch]
 * @property {any} [info]        the client that published it, if it was one
 * @property {Object<string, string>} [tags]
 * @property {boolean} [recovered]   from the history, not live (known over a WebSocket only)
 * @property {string} [wire]     the JSON text that contained it
 */

const DELAYS = { min: 500, max: 20_000 }; // milliseconds; the bounds of other clients of this protocol

/** Full jitter: a random delay below a doubling bound, so that many clients do not reconnect at the same time. */
export const jitter = (/** @type {number} */ attempt) =>
  Math.random() * Math.min(DELAYS.max, DELAYS.min * 2 ** Math.min(attempt, 10));

/** Whether a close code forbids reconnecting (docs/protocol.md §8). 1009 is WebSocket's "message too big". */
export const isFinal = (/** @type {number} */ code) =>
  code === 1009 || (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000);

/** The error of a command: `code` is one of the protocol, or below 100 for a failure of this client. */
export class TocsinError extends Error {
  /** @param {number} code @param {string} message @param {boolean} [temporary] */
  constructor(code, message, temporary = false) {
    super(message);
    this.name = "TocsinError";
    this.code = code;
    /** Whether a retry may succeed: after a local failure, an expired token, or an error that the server marks so. */
    this.temporary = temporary || code < 100 || code === 109;
  }
}

/** An EventTarget that dispatches CustomEvents; `detail` has the data. */
export class Emitter extends EventTarget {
  /** @param {string} type @param {any} [detail] */
  emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** The position in one channel. It decides whether a publication is new, a duplicate, or comes after a gap. */
export class PositionTracker {
  /** @type {Position | null} */ position = null;

  /**
   * Advances to a publication. Returns false for a duplicate. Emits `duplicate` and `gap` on `target`.
   * @param {Emitter} target @param {string} channel @param {Position} next
   */
  accept(target, channel, next) {
    const last = this.position;
    const isSameEpoch = last?.epoch === next.epoch;
    if (last && isSameEpoch && next.offset <= last.offset) {
      target.emit("duplicate", { channel, ...next });
      return false;
    }
    this.position = next;
    if (last && isSameEpoch && next.offset > last.offset + 1) {
      target.emit("gap", { channel, from: last, to: { ...next, offset: next.offset - 1 } });
    }
    return true;
  }
}

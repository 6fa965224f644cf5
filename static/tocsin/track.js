// @ts-check
/**
 * What both transports share: events, positions, and the rule for coming back.
 *
 * @typedef {{offset: number, epoch: string}} Position   where a subscriber stands in a channel's log
 * @typedef {"connecting" | "connected" | "cut" | "disconnected"} State   `disconnected` is final; the others are not
 * @typedef {() => string | Promise<string>} GetToken    called whenever a fresh token is needed
 * @typedef {object} Publication
 * @property {string} channel
 * @property {any} data
 * @property {number} [offset]   absent where the channel keeps no log
 * @property {string} [epoch]
 * @property {any} [info]        who published it, if a client did
 * @property {Object<string, string>} [tags]
 * @property {boolean} [recovered]   given by the log on return, not heard live (only a WebSocket knows)
 * @property {string} [wire]     the text that carried it, for those who count bytes
 */

const DELAYS = { min: 500, max: 20_000 }; // milliseconds; the bounds the other clients of this protocol use

/** Full jitter: anywhere between nothing and a doubling bound, so that a thousand clients do not return as one. */
export const jitter = (/** @type {number} */ attempt) =>
  Math.random() * Math.min(DELAYS.max, DELAYS.min * 2 ** Math.min(attempt, 10));

/** Close codes whose range says: do not come back (protocol §8). 1009 is WebSocket's own "message too big". */
export const isFinal = (/** @type {number} */ code) =>
  code === 1009 || (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000);

/** What a call rejects with: the protocol's error codes, or below 100 for a failure on this side. */
export class TocsinError extends Error {
  /** @param {number} code @param {string} message @param {boolean} [temporary] */
  constructor(code, message, temporary = false) {
    super(message);
    this.name = "TocsinError";
    this.code = code;
    /** Worth another attempt: a local failure, an expired token, or one the server calls temporary. */
    this.temporary = temporary || code < 100 || code === 109;
  }
}

/** An EventTarget whose events are CustomEvents; what happened is in `detail`. */
export class Emitter extends EventTarget {
  /** @param {string} type @param {any} [detail] */
  emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** Where we are in one channel, and whether the next offset is new, a repetition, or beyond a gap. */
export class Track {
  /** @type {Position | null} */ position = null;

  /**
   * Moves on to a publication. True if it is news; a repetition or a gap is told to `target`.
   * @param {Emitter} target @param {string} channel @param {Position} next
   */
  take(target, channel, next) {
    const last = this.position;
    const isSameLog = last?.epoch === next.epoch;
    if (last && isSameLog && next.offset <= last.offset) {
      target.emit("duplicate", { channel, ...next });
      return false;
    }
    this.position = next;
    if (last && isSameLog && next.offset > last.offset + 1) {
      target.emit("gap", { channel, from: last, to: { ...next, offset: next.offset - 1 } });
    }
    return true;
  }
}

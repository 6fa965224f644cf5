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
const STEADY = 10_000; // milliseconds; after a connection of this length, earlier failures no longer count
const OVERLOADED_ATTEMPT = 3; // after "too many requests", the first delay is that of this attempt
const FIRST_REFRESH = 1_000;
const LONGEST_TIMER = 2 ** 31 - 1; // milliseconds; browsers fire longer timers at once

/** A time in milliseconds that a timer can keep. @param {number} seconds as a server says @param {number} [least] */
export const timerDelay = (seconds, least = 0) => Math.max(least, Math.min(Number(seconds) * 1000 || 0, LONGEST_TIMER));

/** The error of a message that is not of this protocol. */
export const badProtocol = (/** @type {unknown} */ error) => `not of this protocol: ${error}`.slice(0, 200);

/**
 * The delays between attempts. Each has a fixed part, so that no attempt follows at once, and a random part below a
 * bound that doubles, so that many clients do not reconnect at the same time.
 */
export class Backoff {
  #attempt = 0; // consecutive failures
  #earlyRefreshes = 0; // consecutive refreshes that are later than the server says
  #succeededAt = 0;

  /** An attempt has succeeded. Earlier failures count until it has lasted for `STEADY`. */
  succeed() {
    this.#succeededAt = performance.now();
  }

  /** Forgets earlier failures: the page, not the server, is the cause of the next attempt. */
  reset() {
    this.#attempt = 0;
  }

  /** The milliseconds before the next attempt. @param {number} [code] of the error or disconnect */
  next(code) {
    if (this.#succeededAt && performance.now() - this.#succeededAt >= STEADY) this.#attempt = 0;
    this.#succeededAt = 0;
    if (code === 111 || code === 3013) this.#attempt = Math.max(this.#attempt, OVERLOADED_ATTEMPT);
    const bound = Math.min(DELAYS.max, DELAYS.min * 2 ** Math.min(this.#attempt++, 10));
    return Math.min(DELAYS.max, DELAYS.min + Math.random() * bound);
  }

  /** The same, but 0 for the first attempt after one that has lasted. */
  nextOrAtOnce() {
    const delay = this.next();
    return this.#attempt === 1 ? 0 : delay;
  }

  /** The milliseconds before a token is renewed that lasts `ttl` seconds, as the server says. @param {number} ttl */
  refresh(ttl) {
    const least = Math.min(DELAYS.max, FIRST_REFRESH * 2 ** Math.min(this.#earlyRefreshes, 10));
    const delay = timerDelay(ttl, least);
    this.#earlyRefreshes = delay > ttl * 1000 ? this.#earlyRefreshes + 1 : 0;
    return delay;
  }
}

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

/** Whether a value is an offset of a position. */
export const isOffset = (/** @type {any} */ value) => Number.isSafeInteger(value) && value >= 0;

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
   * Advances to a publication. Returns false for a duplicate. Emits `duplicate` and `gap` on `target`. Throws if the
   * offset is none.
   * @param {Emitter} target @param {string} channel @param {Position} next
   */
  accept(target, channel, next) {
    if (!isOffset(next.offset)) throw new TypeError(`offset ${next.offset}`);
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

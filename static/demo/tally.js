// @ts-check
/**
 * Counting what a connection heard against what the log holds.
 *
 * @typedef {import("../tocsin/track.js").Position} Position
 * @typedef {"before" | "live" | "recovered" | "waiting" | "missed"} Mark
 */

const REMEMBERED = 200; // marks kept for drawing; the counts need none of them

/** The log itself, as far as this page has heard of it from anybody. Event: `change`. */
export class Log extends EventTarget {
  top = 0;
  epoch = "";
  isKept = true; // until the channel turns out to keep none, and so to have no offsets to count by

  /** @returns {Position} of the newest message */
  get position() {
    return { offset: this.top, epoch: this.epoch };
  }

  /** The channel was entered. @param {Position | null} position null where no log is kept */
  entered(position) {
    const isKept = position !== null;
    if (isKept === this.isKept) return;
    this.isKept = isKept;
    this.dispatchEvent(new Event("change"));
  }

  /** @param {Position | null | undefined} position */
  observe(position) {
    if (!position || (position.epoch === this.epoch && position.offset <= this.top)) return;
    this.top = position.offset;
    this.epoch = position.epoch;
    this.dispatchEvent(new Event("change"));
  }
}

/** One connection's account: every offset it should have heard is heard, waiting, or missed. */
export class Tally {
  recovered = 0;
  duplicated = 0;
  #epoch = "";
  #start = 0; // the log's top when we came: nothing up to here is owed to us
  #reach = 0; // everything up to here should have been heard by now
  #heard = 0; // how many of those since #start were
  #lost = 0; // missed in logs that are no more
  /** @type {Map<number, Mark>} */ #marks = new Map();

  /** We came when the log's top was here: nothing before it is owed to us. Only the first call counts. */
  begin(/** @type {Position} */ position) {
    if (!this.#epoch) this.#turnTo(position);
  }

  /** @param {Position} position @param {boolean} isRecovered */
  hear({ offset, epoch }, isRecovered) {
    this.begin({ offset: offset - 1, epoch });
    if (epoch !== this.#epoch) this.#turnTo({ offset: 0, epoch });
    this.#heard++;
    this.#reach = Math.max(this.#reach, offset);
    if (isRecovered) this.recovered++;
    this.#marks.set(offset, isRecovered ? "recovered" : "live");
    this.#marks.delete(offset - REMEMBERED);
  }

  /** The server says that we shall not hear what we have not heard up to here. @param {Position} position */
  skip({ offset, epoch }) {
    if (epoch !== this.#epoch) this.#turnTo({ offset: 0, epoch });
    this.#reach = Math.max(this.#reach, offset);
  }

  /** Time enough has passed for everything up to the log's top to have been heard. @param {Position} top */
  settle({ offset, epoch }) {
    if (epoch === this.#epoch) this.#reach = Math.max(this.#reach, offset);
  }

  /** A new log: what was missed in the old one stays missed. @param {Position} start */
  #turnTo({ offset, epoch }) {
    this.#lost = this.missed;
    this.#epoch = epoch;
    this.#start = this.#reach = offset;
    this.#heard = 0;
    this.#marks.clear();
  }

  get missed() {
    return this.#lost + this.#reach - this.#start - this.#heard;
  }

  /** How many are in the log that we may still hear. @param {Position} top */
  waiting({ offset, epoch }) {
    return epoch === this.#epoch ? Math.max(0, offset - this.#reach) : 0;
  }

  /** @param {number} offset @returns {Mark} */
  mark(offset) {
    if (offset <= this.#start) return "before";
    return this.#marks.get(offset) ?? (offset <= this.#reach ? "missed" : "waiting");
  }
}

// @ts-check
/**
 * Compares what a connection received with what the history holds.
 *
 * @typedef {import("../tocsin/tracker.js").Position} Position
 * @typedef {"before" | "live" | "recovered" | "waiting" | "missed"} Mark
 */

const MARK_LIMIT = 200; // marks kept for drawing; the counts do not need them

/** The channel's history, as far as this page knows it from any source. Event: `change`. */
export class History extends EventTarget {
  top = 0;
  epoch = "";
  isKept = true; // false once a subscribe reply shows that the channel keeps none, and so has no offsets

  /** @returns {Position} of the newest message */
  get position() {
    return { offset: this.top, epoch: this.epoch };
  }

  /** A subscribe reply arrived. @param {Position | null} position null if the channel keeps no history */
  onSubscribed(position) {
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

/** The counts of one connection: every offset since its start is received, waiting or missed. */
export class DeliveryCounter {
  recovered = 0;
  duplicated = 0;
  #epoch = "";
  #start = 0; // the top of the history at the start; offsets up to here do not count
  #expected = 0; // offsets up to here count as missed unless they were received
  #received = 0; // offsets after #start that were received
  #missedBefore = 0; // missed in earlier epochs
  /** @type {Map<number, Mark>} */ #marks = new Map();

  /** Starts counting after this position. Only the first call has an effect. */
  begin(/** @type {Position} */ position) {
    if (!this.#epoch) this.#startEpoch(position);
  }

  /** @param {Position} position @param {boolean} isRecovered */
  receive({ offset, epoch }, isRecovered) {
    this.begin({ offset: offset - 1, epoch });
    if (epoch !== this.#epoch) this.#startEpoch({ offset: 0, epoch });
    this.#received++;
    this.#expected = Math.max(this.#expected, offset);
    if (isRecovered) this.recovered++;
    this.#marks.set(offset, isRecovered ? "recovered" : "live");
    this.#marks.delete(offset - MARK_LIMIT);
  }

  /** The server reported a gap: what has not arrived up to here will not. @param {Position} position */
  skip({ offset, epoch }) {
    if (epoch !== this.#epoch) this.#startEpoch({ offset: 0, epoch });
    this.#expected = Math.max(this.#expected, offset);
  }

  /** Enough time has passed for everything up to this position to arrive. @param {Position} top */
  settle({ offset, epoch }) {
    if (epoch === this.#epoch) this.#expected = Math.max(this.#expected, offset);
  }

  /** Messages missed in the previous epoch stay missed. @param {Position} start */
  #startEpoch({ offset, epoch }) {
    this.#missedBefore = this.missed;
    this.#epoch = epoch;
    this.#start = this.#expected = offset;
    this.#received = 0;
    this.#marks.clear();
  }

  get missed() {
    return this.#missedBefore + this.#expected - this.#start - this.#received;
  }

  /** The number of messages in the history that may still arrive. @param {Position} top */
  waiting({ offset, epoch }) {
    return epoch === this.#epoch ? Math.max(0, offset - this.#expected) : 0;
  }

  /** @param {number} offset @returns {Mark} */
  mark(offset) {
    if (offset <= this.#start) return "before";
    return this.#marks.get(offset) ?? (offset <= this.#expected ? "missed" : "waiting");
  }
}

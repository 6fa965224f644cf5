// @ts-check
/** The messages, newest first, each with how and when each connection came by it. */
import { duration, element, flash } from "./dom.js";

const KEPT = 60;
/** @type {Object<string, string>} */
const WORDS = { live: "", recovered: "recovered, ", waiting: "waiting", missed: "missed", before: "before you came" };
/** @type {Object<string, string>} */
const SHORT = { WebSocket: "WS", EventSource: "ES" };

export class Feed {
  /** @type {Map<string, {row: any, ways: Object<string, any>}>} */ #rows = new Map();

  /** @type {import("./lane.js").Lane[]} */ #lanes = [];

  /** @param {HTMLElement} place @param {import("./tally.js").Log} log */
  constructor(place, log) {
    this.place = place;
    this.log = log;
  }

  /** Every message shown from now on says how this connection came by it. @param {import("./lane.js").Lane} lane */
  follow(lane) {
    this.#lanes.push(lane);
    lane.addEventListener("heard", (/** @type {any} */ { detail }) => this.#heard(lane, detail));
    lane.addEventListener("change", () => this.#refresh(lane));
  }

  /** A message of the log, whether or not a connection has heard it. @param {number} offset @param {any} data */
  show(offset, data) {
    const key = `${this.log.epoch}:${offset}`;
    const known = this.#rows.get(key);
    if (known) return known;
    const ways = Object.fromEntries(this.#lanes.map((lane) => [lane.name, element("span.way")]));
    const row = element(
      "li.message",
      {},
      element("span.offset", {}, `${offset}`),
      element("p.said", {}, element("strong", {}, data.name), " ", data.text),
      element("p.ways", {}, ...Object.values(ways)),
    );
    row.dataset.offset = offset;
    this.#insert(row, offset);
    const entry = { row, ways };
    this.#rows.set(key, entry);
    for (const lane of this.#lanes) this.#mark(ways[lane.name], lane, lane.tally.mark(offset));
    this.#trim();
    return entry;
  }

  /** @param {HTMLElement} row @param {number} offset */
  #insert(row, offset) {
    this.place.querySelector(".empty")?.remove();
    const after = [...this.place.children].find((other) => Number(/** @type {any} */ (other).dataset.offset) < offset);
    this.place.insertBefore(row, after ?? null);
    if (this.#lanes.some((lane) => lane.tally.mark(offset) !== "before")) flash(row);
  }

  /** @param {import("./lane.js").Lane} lane @param {any} publication */
  #heard(lane, { offset, data, isRecovered, delay }) {
    const { ways } = this.show(offset, data);
    this.#mark(ways[lane.name], lane, isRecovered ? "recovered" : "live", Math.max(0, delay));
  }

  /** What was waiting may have been given up. @param {import("./lane.js").Lane} lane */
  #refresh(lane) {
    for (const { row, ways } of this.#rows.values()) {
      const way = ways[lane.name];
      if (way.dataset.mark !== "waiting") continue;
      const mark = lane.tally.mark(Number(row.dataset.offset));
      if (mark === "missed") this.#mark(way, lane, mark);
    }
  }

  /** @param {any} way @param {import("./lane.js").Lane} lane @param {string} mark @param {number} [delay] */
  #mark(way, lane, mark, delay) {
    way.className = `way is-${mark}`;
    way.dataset.mark = mark;
    const short = element("abbr", { title: lane.name }, SHORT[lane.name]);
    way.replaceChildren(short, ` ${WORDS[mark]}${delay === undefined ? "" : duration(delay)}`);
  }

  #trim() {
    for (const [key, { row }] of this.#rows) {
      if (this.#rows.size <= KEPT) return;
      this.#rows.delete(key);
      row.remove();
    }
  }
}

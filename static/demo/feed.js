// @ts-check
/** The messages, newest first, each with how and when each connection came by it. */
import { duration, element, flash } from "./dom.js";
import { readMessage } from "./message.js";

const KEPT = 60;
const TOGETHER = 2_000; // milliseconds in which all live connections hear the same message
/** @type {Object<string, string>} */
const WORDS = {
  live: "",
  recovered: "recovered",
  waiting: "waiting",
  missed: "missed",
  before: "before you came",
  unheard: "–",
};
/** @type {Object<string, string>} */
const SHORT = { WebSocket: "WS", EventSource: "ES" };

export class Feed {
  /** @type {Map<string | symbol, {row: any, ways: Object<string, any>, data: any, since: number}>} */ #rows =
    new Map();

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
    return this.#rows.get(key) ?? this.#add(key, offset, data);
  }

  /**
   * Without a log only what it says makes it the same message: the newest of these words that this connection has not
   * heard and that another has just now.
   * @param {import("./lane.js").Lane} lane @param {any} data
   */
  #showUnlogged(lane, data) {
    const words = JSON.stringify(data);
    const earliest = performance.now() - TOGETHER;
    const isSame = (/** @type {any} */ entry) =>
      entry.since > earliest &&
      entry.ways[lane.name].dataset.mark === "unheard" &&
      JSON.stringify(entry.data) === words;
    return [...this.#rows.values()].reverse().find(isSame) ?? this.#add(Symbol(words), undefined, data);
  }

  /** @param {string | symbol} key @param {number | undefined} offset @param {any} data */
  #add(key, offset, data) {
    const { name, text } = readMessage(data);
    const ways = Object.fromEntries(this.#lanes.map((lane) => [lane.name, element("span.way")]));
    const row = element(
      "li.message",
      {},
      element("span.offset", {}, `${offset ?? ""}`),
      element("p.said", {}, element("strong", {}, name), " ", text),
      element("p.ways", {}, ...Object.values(ways)),
    );
    this.#insert(row, offset);
    const entry = { row, ways, data, since: performance.now() };
    this.#rows.set(key, entry);
    for (const lane of this.#lanes) {
      this.#mark(ways[lane.name], lane, offset === undefined ? "unheard" : lane.tally.mark(offset));
    }
    this.#trim();
    return entry;
  }

  /** @param {HTMLElement} row @param {number | undefined} offset */
  #insert(row, offset) {
    this.place.querySelector(".empty")?.remove();
    if (offset === undefined) {
      this.place.prepend(row);
      return flash(row);
    }
    row.dataset.offset = `${offset}`;
    const after = [...this.place.children].find((other) => Number(/** @type {any} */ (other).dataset.offset) < offset);
    this.place.insertBefore(row, after ?? null);
    if (this.#lanes.some((lane) => lane.tally.mark(offset) !== "before")) flash(row);
  }

  /** @param {import("./lane.js").Lane} lane @param {any} publication */
  #heard(lane, { offset, data, isRecovered, delay }) {
    const { ways } = offset === undefined ? this.#showUnlogged(lane, data) : this.show(offset, data);
    this.#mark(ways[lane.name], lane, isRecovered ? "recovered" : "live", delay);
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

  /** @param {any} way @param {import("./lane.js").Lane} lane @param {string} mark @param {number} [delay] not finite if unknown */
  #mark(way, lane, mark, delay) {
    way.className = `way is-${mark}`;
    way.dataset.mark = mark;
    const short = element("abbr", { title: lane.name }, SHORT[lane.name]);
    const words = [WORDS[mark], Number.isFinite(delay) && duration(Math.max(0, delay ?? 0))].filter(Boolean);
    way.replaceChildren(short, ` ${words.join(", ")}`);
  }

  #trim() {
    for (const [key, { row }] of this.#rows) {
      if (this.#rows.size <= KEPT) return;
      this.#rows.delete(key);
      row.remove();
    }
  }
}

// @ts-check
/** The messages, newest first, each with the way and the delay in which each connection received it. */
import { readMessage } from "./connection.js";
import { duration, element, flash } from "./dom.js";

/** @typedef {import("./connection.js").Connection} Connection */

const ROW_LIMIT = 60;
const SAME_MESSAGE = 2_000; // milliseconds within which all live connections receive the same message
/** @type {Object<string, string>} */
const WORDS = {
  live: "",
  recovered: "recovered",
  waiting: "waiting",
  missed: "missed",
  before: "earlier",
  "not-received": "–",
};
/** @type {Object<string, string>} */
const SHORT_NAMES = { WebSocket: "WS", EventSource: "ES" };

export class Feed {
  /** @type {Map<string | symbol, {row: any, deliveries: Object<string, any>, data: any, since: number}>} */ #rows =
    new Map();

  /** @type {Connection[]} */ #connections = [];

  /** @param {HTMLElement} place @param {import("./delivery-counter.js").History} history */
  constructor(place, history) {
    this.place = place;
    this.history = history;
  }

  /** Adds this connection to every row from now on. @param {Connection} connection */
  follow(connection) {
    this.#connections.push(connection);
    connection.addEventListener("received", (/** @type {any} */ { detail }) => this.#onReceived(connection, detail));
    connection.addEventListener("change", () => this.#updateWaiting(connection));
  }

  /** Shows a message of the history, received or not. @param {number} offset @param {any} data */
  show(offset, data) {
    const key = `${this.history.epoch}:${offset}`;
    return this.#rows.get(key) ?? this.#add(key, offset, data);
  }

  /**
   * Without offsets, the same data means the same message: the newest row of the last seconds with this data that this
   * connection has not received.
   * @param {Connection} connection @param {any} data
   */
  #showWithoutOffset(connection, data) {
    const json = JSON.stringify(data);
    const earliest = performance.now() - SAME_MESSAGE;
    const isSame = (/** @type {any} */ entry) =>
      entry.since > earliest &&
      entry.deliveries[connection.name].dataset.mark === "not-received" &&
      JSON.stringify(entry.data) === json;
    return [...this.#rows.values()].reverse().find(isSame) ?? this.#add(Symbol(json), undefined, data);
  }

  /** @param {string | symbol} key @param {number | undefined} offset @param {any} data */
  #add(key, offset, data) {
    const { name, text } = readMessage(data);
    const deliveries = Object.fromEntries(this.#connections.map(({ name }) => [name, element("span.delivery")]));
    const row = element(
      "li.message",
      {},
      element("span.offset", {}, `${offset ?? ""}`),
      element("p.message-text", {}, element("strong", {}, name), " ", text),
      element("p.deliveries", {}, ...Object.values(deliveries)),
    );
    this.#insert(row, offset);
    const entry = { row, deliveries, data, since: performance.now() };
    this.#rows.set(key, entry);
    for (const connection of this.#connections) {
      const mark = offset === undefined ? "not-received" : connection.counter.mark(offset);
      this.#setMark(deliveries[connection.name], connection, mark);
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
    if (this.#connections.some(({ counter }) => counter.mark(offset) !== "before")) flash(row);
  }

  /** @param {Connection} connection @param {any} publication */
  #onReceived(connection, { offset, data, isRecovered, delay }) {
    const { deliveries } =
      offset === undefined ? this.#showWithoutOffset(connection, data) : this.show(offset, data);
    this.#setMark(deliveries[connection.name], connection, isRecovered ? "recovered" : "live", delay);
  }

  /** Messages that were waiting may count as missed now. @param {Connection} connection */
  #updateWaiting(connection) {
    for (const { row, deliveries } of this.#rows.values()) {
      const delivery = deliveries[connection.name];
      if (delivery.dataset.mark !== "waiting") continue;
      const mark = connection.counter.mark(Number(row.dataset.offset));
      if (mark === "missed") this.#setMark(delivery, connection, mark);
    }
  }

  /** @param {any} delivery @param {Connection} connection @param {string} mark @param {number} [delay] milliseconds */
  #setMark(delivery, connection, mark, delay) {
    delivery.className = `delivery is-${mark}`;
    delivery.dataset.mark = mark;
    const short = element("abbr", { title: connection.name }, SHORT_NAMES[connection.name]);
    const words = [WORDS[mark], Number.isFinite(delay) && duration(Math.max(0, delay ?? 0))].filter(Boolean);
    delivery.replaceChildren(short, ` ${words.join(", ")}`);
  }

  #trim() {
    for (const [key, { row }] of this.#rows) {
      if (this.#rows.size <= ROW_LIMIT) return;
      this.#rows.delete(key);
      row.remove();
    }
  }
}

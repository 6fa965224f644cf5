// @ts-check
/** The card of a node on the map: its state, its figures, and the buttons that disturb it. */
import { age, duration, element, flash, megabytes, seconds } from "./dom.js";

/** @typedef {import("./nodes.js").Node} Node @typedef {import("./nodes.js").Action} Action */

/** @type {Object<string, string>} */
const HINTS = {
  drain: "SIGTERM: it disconnects its clients and stops",
  kill: "SIGKILL: it ends at once",
  deafen: "Its connection to Redis stays open, and nothing arrives over it",
};
/** @type {Object<string, string>} */
const LABELS = { drain: "Drain", kill: "Kill", deafen: "Deafen", restore: "Restore" };

const FACTS = ["connections", "channels", "lag"];

export class NodeCard {
  /** @type {Object<string, HTMLElement>} */ #facts = {};
  /** @type {HTMLButtonElement[]} */ #buttons = [];
  #pid = 0;
  /** @type {Node | null} */ #node = null;

  /** @param {string} name @param {(action: Action) => void} execute */
  constructor(name, execute) {
    this.name = name;
    this.words = element("p.node-state");
    this.details = element("p.node-details");
    for (const fact of FACTS) this.#facts[fact] = element("dd", {}, "–");
    this.#buttons = /** @type {const} */ (["drain", "kill", "deafen"]).map((action) => this.#button(action, execute));
    const facts = Object.entries(this.#facts).map(([fact, value]) => {
      value.dataset.fact = fact;
      return element("div", {}, element("dt", {}, fact), value);
    });
    /** @type {HTMLElement} */
    this.place = element(
      "li.node",
      {},
      element("div.node-head", {}, element("h3", {}, name), this.words, this.details),
      element("dl.node-facts", {}, ...facts),
      element("div.node-actions", {}, ...this.#buttons),
    );
    this.place.dataset.node = name;
  }

  get state() {
    return this.place.dataset.state ?? "";
  }

  get receives() {
    return this.state !== "deaf" && this.state !== "deafened";
  }

  /** Whether it delivers publications of a channel: it is ready and has subscribers. @param {string} channel */
  delivers(channel) {
    return this.state === "ready" && Boolean(this.#node?.report?.channels[channel]);
  }

  /** @param {Node} node @param {number} now */
  draw(node, now) {
    const { condition, pid, report } = node;
    this.#node = node;
    this.drawState(now);
    const isRunning = report && condition !== "ended" && condition !== "starting";
    this.#setFacts({
      connections: isRunning ? report.num_clients : "–",
      channels: isRunning ? Object.keys(report.channels).length : "–",
      lag: isRunning && report.state !== "deaf" ? duration(report.lag_seconds * 1000) : "–",
    });
    if (this.#pid && pid !== this.#pid) flash(this.place);
    this.#pid = pid;
    const [, , deafen] = this.#buttons;
    deafen.dataset.action = node.deaf_until ? "restore" : "deafen";
    this.#setLabel(deafen);
    for (const button of this.#buttons) button.setAttribute("aria-disabled", String(condition !== "running"));
  }

  /** Draws the state, which contains countdowns. @param {number} now */
  drawState(now) {
    if (!this.#node) return;
    const { state, words, details } = stateOf(this.#node, now);
    this.place.dataset.state = state;
    write(this.words, words);
    write(this.details, details);
  }

  /** @param {Action} action @param {(action: Action) => void} execute */
  #button(action, execute) {
    const button = element("button.button.is-small", { type: "button", title: HINTS[action] });
    button.dataset.action = action;
    button.addEventListener("click", () => execute(button.dataset.action));
    return this.#setLabel(button);
  }

  /** @param {any} button */
  #setLabel(button) {
    const label = LABELS[button.dataset.action];
    if (button.textContent !== label) {
      button.textContent = label;
      button.setAttribute("aria-label", `${label} ${this.name}`);
    }
    return button;
  }

  /** @param {Object<string, string | number>} facts */
  #setFacts(facts) {
    for (const [fact, value] of Object.entries(facts)) write(this.#facts[fact], String(value));
  }
}

/** Writes only changes, so that a screen reader is not interrupted. @param {HTMLElement} place @param {string} text */
function write(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

/**
 * The state of a node: a word for the style sheet, words and details for people.
 * @param {Node} node @param {number} now in the same milliseconds as its times
 * @returns {{state: string, words: string, details: string}}
 */
function stateOf(node, now) {
  const { condition, report, deaf_until: deafUntil } = node;
  if (condition === "ended") return { state: "ended", words: "ended", details: restartOf(node, now) };
  if (condition === "starting") return { state: "starting", words: "starting", details: "" };
  if (condition === "draining")
    return { state: "draining", words: "draining", details: "It disconnects its clients, which reconnect elsewhere." };
  const end = deafUntil ? `It receives again in ${until(deafUntil, now)}.` : "It is subscribing again.";
  if (report?.state === "deaf")
    return { state: "deaf", words: "deaf, not ready", details: `${report.unready_reason} ${end}` };
  if (deafUntil) return { state: "deafened", words: "receives nothing, and has not noticed yet", details: end };
  const memory = report ? `, ${megabytes(report.memory_bytes)}` : "";
  return { state: "ready", words: `ready, up ${age(now - node.started_at)}`, details: `Process ${node.pid}${memory}` };
}

/** @param {Node} node @param {number} now */
function restartOf({ lease_expires_by: expiresBy, restarts_at: restartsAt }, now) {
  const lease = expiresBy ? `Its lease expires within ${until(expiresBy, now)}.` : "Its lease has ended.";
  return `${lease} Another process takes its name in ${until(restartsAt, now)}.`;
}

/** @param {number} moment @param {number} now */
const until = (moment, now) => seconds(Math.max(0, moment - now));

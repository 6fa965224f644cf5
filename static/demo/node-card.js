// @ts-check
/** How a node looks on the map. */
import { duration, element, flash } from "./dom.js";
import { stateOf } from "./node-state.js";

/** @typedef {import("./nodes.js").Node} Node @typedef {import("./nodes.js").Deed} Deed */

/** @type {Object<string, string>} */
const HINTS = {
  drain: "SIGTERM: it sends its clients elsewhere and leaves",
  kill: "SIGKILL: it is gone without a word",
  deafen: "Its link to Redis stays open, and nothing comes through",
};
/** @type {Object<string, string>} */
const WORDS = { drain: "Drain", kill: "Kill", deafen: "Deafen", heal: "Heal" };

const FACTS = ["connections", "channels", "lag"];

export class NodeCard {
  /** @type {Object<string, HTMLElement>} */ #facts = {};
  /** @type {HTMLButtonElement[]} */ #buttons = [];
  #pid = 0;
  /** @type {Node | null} */ #node = null;

  /** @param {string} name @param {(deed: Deed) => void} act */
  constructor(name, act) {
    this.name = name;
    this.words = element("p.node-state");
    this.more = element("p.node-more");
    for (const fact of FACTS) this.#facts[fact] = element("dd", {}, "–");
    this.#buttons = /** @type {const} */ (["drain", "kill", "deafen"]).map((deed) => this.#button(deed, act));
    const facts = Object.entries(this.#facts).map(([fact, value]) => {
      value.dataset.fact = fact;
      return element("div", {}, element("dt", {}, fact), value);
    });
    /** @type {HTMLElement} */
    this.place = element(
      "li.node",
      {},
      element("div.node-head", {}, element("h3", {}, name), this.words, this.more),
      element("dl.node-facts", {}, ...facts),
      element("div.node-actions", {}, ...this.#buttons),
    );
    this.place.dataset.node = name;
  }

  get state() {
    return this.place.dataset.state ?? "";
  }

  get hears() {
    return this.state !== "deaf" && this.state !== "silent";
  }

  /** Whether it delivers what is published on a channel: it hears, and has subscribers. @param {string} channel */
  delivers(channel) {
    return this.state === "ready" && Boolean(this.#node?.report?.channels[channel]);
  }

  /** @param {Node} node @param {number} now */
  draw(node, now) {
    const { condition, pid, report } = node;
    this.#node = node;
    this.tick(now);
    const isThere = report && condition !== "ended" && condition !== "starting";
    this.#set({
      connections: isThere ? report.num_clients : "–",
      channels: isThere ? Object.keys(report.channels).length : "–",
      lag: isThere && report.state !== "deaf" ? duration(report.lag_seconds * 1000) : "–",
    });
    if (this.#pid && pid !== this.#pid) flash(this.place);
    this.#pid = pid;
    const [, , deafen] = this.#buttons;
    deafen.dataset.deed = node.silent_until ? "heal" : "deafen";
    this.#name(deafen);
    for (const button of this.#buttons) button.setAttribute("aria-disabled", String(condition !== "running"));
  }

  /** Time has passed. @param {number} now */
  tick(now) {
    if (!this.#node) return;
    const { state, words, more } = stateOf(this.#node, now);
    this.place.dataset.state = state;
    write(this.words, words);
    write(this.more, more);
  }

  /** @param {Deed} deed @param {(deed: Deed) => void} act */
  #button(deed, act) {
    const button = element("button.button.is-small", { type: "button", title: HINTS[deed] });
    button.dataset.deed = deed;
    button.addEventListener("click", () => act(button.dataset.deed));
    return this.#name(button);
  }

  /** @param {any} button */
  #name(button) {
    const word = WORDS[button.dataset.deed];
    if (button.textContent !== word) {
      button.textContent = word;
      button.setAttribute("aria-label", `${word} ${this.name}`);
    }
    return button;
  }

  /** @param {Object<string, string | number>} facts */
  #set(facts) {
    for (const [fact, value] of Object.entries(facts)) write(this.#facts[fact], String(value));
  }
}

/** @param {HTMLElement} place @param {string} text */
function write(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

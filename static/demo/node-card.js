// @ts-check
/** How a node looks on the map. */
import { element, flash } from "./dom.js";

/** @typedef {import("./nodes.js").Node} Node */

/** @type {Object<string, string>} */
const HINTS = { drain: "SIGTERM: it sends its clients elsewhere and leaves", kill: "SIGKILL: it is gone without a word" };

export class NodeCard {
  /** @type {Object<string, HTMLElement>} */ #facts = {};
  /** @type {HTMLButtonElement[]} */ #buttons = [];
  #pid = 0;

  /** @param {string} name @param {(deed: "kill" | "drain") => void} act */
  constructor(name, act) {
    this.name = name;
    this.state = element("p.node-state");
    for (const fact of ["connections", "channels", "process"]) this.#facts[fact] = element("dd", {}, "–");
    this.#buttons = /** @type {const} */ (["drain", "kill"]).map((deed) =>
      element("button.button.is-small", {
        type: "button",
        title: HINTS[deed],
        "aria-label": `${deed === "kill" ? "Kill" : "Drain"} ${name}`,
        textContent: deed === "kill" ? "Kill" : "Drain",
        onclick: () => act(deed),
      }),
    );
    const facts = Object.entries(this.#facts).map(([fact, value]) =>
      element("div", {}, element("dt", {}, fact), value),
    );
    /** @type {HTMLElement} */
    this.place = element(
      "li.node",
      {},
      element("div", {}, element("h3", {}, name), this.state),
      element("dl.node-facts", {}, ...facts),
      element("div.node-actions", {}, ...this.#buttons),
    );
    this.place.dataset.node = name;
  }

  /** What it said of itself last stays until it says something else, or is gone. @param {Node} node @param {string} trouble */
  draw({ condition, pid, report }, trouble) {
    const state = condition === "running" ? (report?.state ?? this.place.dataset.state ?? "ready") : condition;
    this.place.dataset.state = state === "starting" && report ? "ready" : state;
    this.state.textContent = words(this.place.dataset.state, trouble);
    if (report) this.#set({ connections: report.num_clients, channels: report.num_channels });
    if (condition === "ended") this.#set({ connections: "–", channels: "–" });
    this.#set({ process: condition === "ended" ? "–" : pid });
    if (this.#pid && pid !== this.#pid) flash(this.place);
    this.#pid = pid;
    for (const button of this.#buttons) button.setAttribute("aria-disabled", String(condition !== "running"));
  }

  /** @param {Object<string, string | number>} facts */
  #set(facts) {
    for (const [fact, value] of Object.entries(facts)) {
      if (this.#facts[fact].textContent !== String(value)) this.#facts[fact].textContent = String(value);
    }
  }
}

/** @param {string} state @param {string} trouble */
function words(state, trouble) {
  if (state !== "ended") return state;
  return trouble ? "gone · its lease has not lapsed yet" : "gone · its lease has lapsed";
}

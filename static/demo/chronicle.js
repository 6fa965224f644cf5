// @ts-check
/** What happened to the nodes, what came of it, and what became of the visitor's own connections. */
import { duration, element, plural } from "./dom.js";

/** @typedef {import("./nodes.js").Incident} Incident @typedef {import("./lane.js").Lane} Lane */

const KEPT = 20; // incidents that are shown
const KNOWN = 5_000; // milliseconds after a connection's return in which we have heard of what happened to its node
const LEAVES = { before: 1_000, after: 5_000 }; // milliseconds around an incident in which a connection leaves due to it
const LATE = 1_500; // milliseconds under way after which a publication did not come by announcement

/** @type {Object<string, string>} */
const TITLES = { kill: "was killed", drain: "is told to leave", deafen: "hears nothing any more", end: "is gone" };

/** @type {Object<string, (seconds: number) => string>} */
const CLAUSES = {
  lapsed: (seconds) => `lease lapsed after ${time(seconds)}, and was reaped`,
  gone: (seconds) => `empty and gone after ${time(seconds)}`,
  back: (seconds) => `started again after ${time(seconds)}`,
  deaf: (seconds) => `noticed after ${time(seconds)}: not ready, new connections go elsewhere`,
  healed: (seconds) => `link healed after ${time(seconds)}`,
  ready: (seconds) => `ready again after ${time(seconds)}`,
};

/**
 * @typedef {{incident: Incident, row: HTMLElement, clauses: HTMLElement, told: Set<string>, late: Map<Lane, number>,
 *   isPast: boolean}} Entry   `told`: what has been said of it; `late`: connections that its node had, and how much the
 *   log brought them; `isPast`: it was over before this page heard of it
 * @typedef {{from: string, to: string, took: number, recovered: number}} Way   of a connection from one node to another
 */

export class Chronicle {
  /** @type {Map<number, Entry>} */ #entries = new Map();
  /** @type {Lane[]} */ #lanes = [];
  /** @type {{lane: Lane, way: Way, at: number}[]} */ #returns = []; // not explained yet; `at`: when it had left

  /** @param {HTMLElement} place @param {() => number} now by the clock of the incidents */
  constructor(place, now) {
    this.place = place;
    this.now = now;
  }

  /** @param {Lane} lane */
  follow(lane) {
    this.#lanes.push(lane);
    lane.addEventListener("heard", (/** @type {any} */ { detail }) => this.#heard(lane, detail));
    lane.addEventListener("returned", (/** @type {any} */ { detail }) => {
      this.#returns.push({ lane, way: detail, at: this.now() - detail.took });
      this.#explain();
    });
  }

  /** @param {Incident[]} incidents the latest, oldest first */
  draw(incidents) {
    for (const incident of incidents) {
      const entry = this.#entries.get(incident.number) ?? this.#begin(incident);
      entry.incident = incident;
      for (const step of incident.steps) {
        this.#add(entry, step.what, CLAUSES[step.what]?.(step.seconds));
        if (step.what === "ready" && !entry.isPast) this.#stayed(entry);
      }
    }
    this.#explain();
  }

  /** @param {Incident} incident @returns {Entry} */
  #begin(incident) {
    const at = new Date(incident.at);
    const clauses = element("ul.clauses");
    const row = element(
      "li.incident",
      {},
      element("time", { dateTime: at.toISOString() }, at.toLocaleTimeString([], { hour12: false })),
      element("p", {}, element("strong", {}, incident.name), ` ${TITLES[incident.kind]}`),
      clauses,
    );
    this.place.querySelector(".empty")?.remove();
    this.place.prepend(row);
    const there = this.#lanes.filter(({ node, state }) => node === incident.name && state === "connected");
    const late = new Map(there.map((lane) => [lane, 0]));
    const isPast = incident.steps.some(({ what }) => what === "ready");
    const entry = { incident, row, clauses, told: new Set(), late, isPast };
    this.#entries.set(incident.number, entry);
    if (this.#entries.size > KEPT) this.#forget([...this.#entries.keys()][0]);
    return entry;
  }

  /** @param {number} number */
  #forget(number) {
    this.#entries.get(number)?.row.remove();
    this.#entries.delete(number);
  }

  /** @param {Entry} entry @param {string} key @param {string | undefined} clause */
  #add(entry, key, clause) {
    if (!clause || entry.told.has(key)) return;
    entry.told.add(key);
    entry.clauses.append(element("li", {}, clause));
  }

  /** Connections that came back did so because something had happened to the node they were at. */
  #explain() {
    this.#returns = this.#returns.filter(({ lane, way, at }) => {
      const cause = [...this.#entries.values()].reverse().find(({ incident: { name, kind, at: since } }) => {
        const isThen = at > since - LEAVES.before && at < since + LEAVES.after;
        return name === way.from && kind !== "deafen" && isThen;
      });
      if (cause) this.#returned(cause, lane, way);
      return !cause && this.now() - at - way.took < KNOWN; // perhaps we have not heard of it yet
    });
  }

  /** @param {Entry} entry @param {Lane} lane @param {Way} way */
  #returned(entry, lane, { from, to, took, recovered }) {
    const moved = to === from ? "came back to it" : `moved to ${to}`;
    const clause = `${lane.name} ${moved} in ${time(took / 1000)}: ${recovered} recovered, ${lane.tally.missed} missed`;
    this.#add(entry, lane.name, clause);
  }

  /** While its node hears nothing, only the log can have brought it. @param {Lane} lane @param {{delay: number}} publication */
  #heard(lane, { delay }) {
    const isLate = Number.isFinite(delay) && delay > LATE;
    for (const { late, told } of this.#entries.values())
      if (late.has(lane) && !told.has("ready") && (isLate || !told.has("healed"))) late.set(lane, (late.get(lane) ?? 0) + 1);
  }

  /** Connections of a node that was deaf have not noticed anything but that some came late. @param {Entry} entry */
  #stayed(entry) {
    if (!entry.late.size) this.#add(entry, "stayed", "none of your connections was there");
    for (const [lane, late] of entry.late) {
      if (lane.node !== entry.incident.name) continue;
      const mended = late ? `${plural(late, "message")} brought from the log` : "nothing to bring from the log";
      const sums = `${lane.tally.missed} missed, ${lane.tally.duplicated} duplicated`;
      this.#add(entry, lane.name, `${lane.name} stayed connected: ${mended}, ${sums}`);
    }
  }
}

/** @param {number} seconds */
const time = (seconds) => duration(seconds * 1000).replace(" ", "\u00a0");

// @ts-check
/** What happened to the nodes, what came of it, and what became of the visitor's own connections. */
import { duration, element, plural } from "./dom.js";

/** @typedef {import("./nodes.js").Incident} Incident @typedef {import("./lane.js").Lane} Lane */

const ATTRIBUTED = 20_000; // milliseconds in which a connection's return belongs to what happened to its node
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

export class Chronicle {
  /** @type {Map<number, {incident: Incident, row: HTMLElement, clauses: HTMLElement, told: Set<string>, late: Map<Lane, number>}>} */
  #entries = new Map();
  /** @type {Lane[]} */ #lanes = [];

  /** @param {HTMLElement} place */
  constructor(place) {
    this.place = place;
  }

  /** @param {Lane} lane */
  follow(lane) {
    this.#lanes.push(lane);
    lane.addEventListener("returned", (/** @type {any} */ { detail }) => this.#returned(lane, detail));
    lane.addEventListener("heard", (/** @type {any} */ { detail }) => this.#heard(lane, detail));
  }

  /** @param {Incident[]} incidents the latest, oldest first */
  draw(incidents) {
    for (const incident of incidents) {
      const entry = this.#entry(incident);
      entry.incident = incident;
      for (const step of incident.steps) {
        this.#add(entry, step.what, CLAUSES[step.what]?.(step.seconds));
        if (step.what === "ready") this.#stayed(entry);
      }
    }
  }

  /** @param {Incident} incident */
  #entry(incident) {
    const known = this.#entries.get(incident.number);
    if (known) return known;
    const at = new Date(incident.at);
    const clauses = element("ul.clauses");
    const row = element(
      "li.incident",
      {},
      element("time", { dateTime: at.toISOString() }, at.toLocaleTimeString([], { hour12: false })),
      element("p", {}, element("strong", {}, incident.name), ` ${TITLES[incident.kind]}`),
      clauses,
    );
    row.dataset.kind = incident.kind;
    this.place.querySelector(".empty")?.remove();
    this.place.prepend(row);
    const there = this.#lanes.filter(({ node, state }) => node === incident.name && state === "connected");
    const late = new Map(there.map((lane) => [lane, 0]));
    const entry = { incident, row, clauses, told: new Set(), late };
    this.#entries.set(incident.number, entry);
    return entry;
  }

  /** @param {any} entry @param {string} key @param {string | undefined} clause */
  #add(entry, key, clause) {
    if (!clause || entry.told.has(key)) return;
    entry.told.add(key);
    entry.clauses.append(element("li", {}, clause));
  }

  /** A connection came back from the node it was at. @param {Lane} lane @param {{from: string, to: string, took: number, recovered: number}} way */
  #returned(lane, { from, to, took, recovered }) {
    const entry = [...this.#entries.values()].reverse().find(({ incident }) => incident.name === from);
    if (!entry || entry.incident.kind === "deafen" || Date.now() - entry.incident.at > ATTRIBUTED) return;
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

  /** Connections of a node that was deaf have not noticed anything but that some came late. @param {any} entry */
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

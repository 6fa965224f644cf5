// @ts-check
/** The incidents: what happened to the nodes, the consequences, and the effect on the visitor's own connections. */
import { duration, element, plural } from "./dom.js";

/** @typedef {import("./nodes.js").Incident} Incident @typedef {import("./connection.js").Connection} Connection */

const LIMIT = 20; // incidents that are shown
const MATCH_WITHIN = 5_000; // milliseconds after a reconnect in which the incident that caused it becomes known
const CAUSES = { before: 1_000, after: 5_000 }; // milliseconds around an incident in which it causes a reconnect
const LATE = 1_500; // milliseconds of delay after which a publication must have been read from the history

/** @type {Object<string, string>} */
const TITLES = { kill: "was killed", drain: "drains", deafen: "was deafened", end: "ended unexpectedly" };

/** @type {Object<string, (seconds: number) => string>} */
const CLAUSES = {
  expired: (seconds) => `lease expired after ${time(seconds)}, presence entries reaped`,
  stopped: (seconds) => `stopped after ${time(seconds)}, without clients`,
  restarted: (seconds) => `restarted after ${time(seconds)}`,
  deaf: (seconds) => `noticed after ${time(seconds)}: not ready, new connections go to other nodes`,
  restored: (seconds) => `receives again after ${time(seconds)}`,
  ready: (seconds) => `ready again after ${time(seconds)}`,
};

/**
 * @typedef {{incident: Incident, row: HTMLElement, clauses: HTMLElement, shown: Set<string>,
 *   late: Map<Connection, number>, isPast: boolean}} Entry   `shown`: the keys of its clauses; `late`: the visitor's
 *   connections that its node held, with the number of their messages that came from the history; `isPast`: it was over
 *   before this page was opened
 * @typedef {{from: string, to: string, took: number, recovered: number}} Reconnect   from one node to another
 */

export class IncidentLog {
  /** @type {Map<number, Entry>} */ #entries = new Map();
  /** @type {Connection[]} */ #connections = [];
  /**
   * Reconnects without a known cause; `at`: when the connection was lost.
   * @type {{connection: Connection, reconnect: Reconnect, at: number}[]}
   */
  #unmatched = [];

  /** @param {HTMLElement} place @param {() => number} now the clock of the incidents */
  constructor(place, now) {
    this.place = place;
    this.now = now;
  }

  /** @param {Connection} connection */
  follow(connection) {
    this.#connections.push(connection);
    connection.addEventListener("received", (/** @type {any} */ { detail }) => this.#onReceived(connection, detail));
    connection.addEventListener("reconnected", (/** @type {any} */ { detail }) => {
      this.#unmatched.push({ connection, reconnect: detail, at: this.now() - detail.took });
      this.#matchReconnects();
    });
  }

  /** @param {Incident[]} incidents the latest, oldest first */
  draw(incidents) {
    for (const incident of incidents) {
      const entry = this.#entries.get(incident.number) ?? this.#addEntry(incident);
      entry.incident = incident;
      for (const step of incident.steps) {
        this.#addClause(entry, step.kind, CLAUSES[step.kind]?.(step.seconds));
        if (step.kind === "ready" && !entry.isPast) this.#addStayedConnected(entry);
      }
    }
    this.#matchReconnects();
  }

  /** @param {Incident} incident @returns {Entry} */
  #addEntry(incident) {
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
    const held = this.#connections.filter(({ node, state }) => node === incident.name && state === "connected");
    const late = new Map(held.map((connection) => [connection, 0]));
    const isPast = incident.steps.some(({ kind }) => kind === "ready");
    const entry = { incident, row, clauses, shown: new Set(), late, isPast };
    this.#entries.set(incident.number, entry);
    if (this.#entries.size > LIMIT) this.#remove([...this.#entries.keys()][0]);
    return entry;
  }

  /** @param {number} number */
  #remove(number) {
    this.#entries.get(number)?.row.remove();
    this.#entries.delete(number);
  }

  /** @param {Entry} entry @param {string} key @param {string | undefined} clause */
  #addClause(entry, key, clause) {
    if (!clause || entry.shown.has(key)) return;
    entry.shown.add(key);
    entry.clauses.append(element("li", {}, clause));
  }

  /** Adds each reconnect to the incident that caused it: one of the node that had held the connection. */
  #matchReconnects() {
    this.#unmatched = this.#unmatched.filter(({ connection, reconnect, at }) => {
      const cause = [...this.#entries.values()].reverse().find(({ incident: { name, kind, at: since } }) => {
        const isInTime = at > since - CAUSES.before && at < since + CAUSES.after;
        return name === reconnect.from && kind !== "deafen" && isInTime;
      });
      if (cause) this.#addReconnect(cause, connection, reconnect);
      return !cause && this.now() - at - reconnect.took < MATCH_WITHIN;
    });
  }

  /** @param {Entry} entry @param {Connection} connection @param {Reconnect} reconnect */
  #addReconnect(entry, connection, { from, to, took, recovered }) {
    const moved = to === from ? "reconnected to it" : `moved to ${to}`;
    const counts = `${recovered} recovered, ${connection.counter.missed} missed`;
    this.#addClause(entry, connection.name, `${connection.name} ${moved} in ${time(took / 1000)}: ${counts}`);
  }

  /**
   * Counts the messages of a deaf node: all of them came from the history.
   * @param {Connection} connection @param {{delay: number}} publication
   */
  #onReceived(connection, { delay }) {
    const isLate = Number.isFinite(delay) && delay > LATE;
    for (const { late, shown } of this.#entries.values())
      if (late.has(connection) && !shown.has("ready") && (isLate || !shown.has("restored")))
        late.set(connection, (late.get(connection) ?? 0) + 1);
  }

  /** Connections of a node that was deaf stay, and receive some messages late. @param {Entry} entry */
  #addStayedConnected(entry) {
    if (!entry.late.size) this.#addClause(entry, "stayed", "it held none of your connections");
    for (const [connection, late] of entry.late) {
      if (connection.node !== entry.incident.name) continue;
      const backfilled = late ? `${plural(late, "message")} backfilled from the history` : "nothing to backfill";
      const counts = `${connection.counter.missed} missed, ${connection.counter.duplicated} duplicated`;
      this.#addClause(entry, connection.name, `${connection.name} stayed connected: ${backfilled}, ${counts}`);
    }
  }
}

/** @param {number} seconds */
const time = (seconds) => duration(seconds * 1000).replace(" ", "\u00a0");

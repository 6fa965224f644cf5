// @ts-check
/**
 * Shows publications as dots on the lines of the map: node that accepted it -> Redis -> nodes that deliver it -> page.
 *
 * Only known legs are drawn. The tags of a publication name the node that accepted it. The nodes report which of them
 * deliver it. The last leg is drawn once a connection of this page has received it. A recovered publication comes from
 * Redis, so it has no first leg.
 */
import { element } from "./dom.js";

const LEG = 420; // milliseconds on one line
const INTERVAL = 110; // milliseconds between two departures, at least, so that each dot is visible
const LONGEST_WAIT = 1_200; // milliseconds; publications that would depart later are not drawn
const LATE = 1_500; // milliseconds of delay after which a publication must have been read from the history
const JOURNEY_LIMIT = 50;

/** @typedef {{leaves: number, isDrawn: boolean}} Journey   `leaves`: when it leaves Redis */
/** @typedef {{channel: string, epoch?: string, offset?: number, tags?: Object<string, string>, isRecovered: boolean,
 *   delay?: number}} Received   `delay`: milliseconds since it was sent, if known */

const prefersReducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

export class MessageAnimation {
  /** @type {Map<string, Journey>} */ #journeys = new Map();
  #lastDeparture = 0;

  /**
   * @param {HTMLElement} map @param {import("./connection-lines.js").ConnectionLines} lines
   * @param {() => Iterable<import("./node-card.js").NodeCard>} cards
   * @param {HTMLElement} note describes the last publication in words
   */
  constructor(map, lines, cards, note) {
    this.map = map;
    this.lines = lines;
    this.cards = cards;
    this.note = note;
  }

  /**
   * A connection of this page has received a publication.
   * @param {{name: string, node: string}} connection @param {Received} received
   */
  onReceived(connection, received) {
    const isDeaf = [...this.cards()].some(({ name, receives }) => name === connection.node && !receives);
    const isFromHistory = received.isRecovered || isDeaf || (received.delay ?? 0) > LATE;
    const journey = isFromHistory ? this.#recoveredJourney(connection) : this.#journey(connection, received);
    if (!journey.isDrawn) return;
    this.#dot(connection.name, { at: journey.leaves + LEG, isBack: true, isRecovered: isFromHistory });
  }

  /**
   * The journey of this publication; it departs when the first connection receives it.
   * @param {{name: string, node: string}} connection @param {Received} received
   */
  #journey(connection, received) {
    const key = `${received.channel} ${received.epoch} ${received.offset ?? Math.random()}`;
    const known = this.#journeys.get(key);
    if (known) return known;
    const receivers = [...this.cards()].filter(
      (card) => card.delivers(received.channel) || card.name === connection.node,
    );
    this.#describe(received, receivers);
    const journey = this.#depart();
    this.#journeys.set(key, journey);
    if (this.#journeys.size > JOURNEY_LIMIT) this.#journeys.delete([...this.#journeys.keys()][0]);
    const acceptedBy = received.tags?.node;
    if (!journey.isDrawn) return journey;
    if (acceptedBy) {
      this.#dot(acceptedBy, { at: journey.leaves });
      journey.leaves += LEG;
    }
    for (const { name } of receivers) this.#dot(name, { at: journey.leaves, isBack: true });
    return journey;
  }

  /** From the history to the node that reads it. @param {{node: string}} connection */
  #recoveredJourney({ node }) {
    const journey = this.#depart();
    if (journey.isDrawn) this.#dot(node, { at: journey.leaves, isBack: true, isRecovered: true });
    return journey;
  }

  /** @returns {Journey} */
  #depart() {
    const now = performance.now();
    const leaves = Math.max(now, this.#lastDeparture + INTERVAL);
    const isDrawn = !prefersReducedMotion.matches && !document.hidden && leaves < now + LONGEST_WAIT;
    if (isDrawn) this.#lastDeparture = leaves;
    return { leaves, isDrawn };
  }

  /** @param {string} line @param {{at: number, isBack?: boolean, isRecovered?: boolean}} options */
  #dot(line, { at, isBack = false, isRecovered = false }) {
    const path = this.lines.path(line);
    if (!path) return;
    const dot = element(isRecovered ? "i.dot.is-recovered" : "i.dot", { "aria-hidden": "true" });
    dot.style.offsetPath = `path("${path}")`;
    this.map.append(dot);
    const [from, to] = isBack ? ["100%", "0%"] : ["0%", "100%"];
    const frames = [
      { offsetDistance: from, opacity: 1 },
      { offsetDistance: to, opacity: 1 },
    ];
    const delay = Math.max(0, at - performance.now());
    const motion = dot.animate(frames, { duration: LEG, delay, easing: "cubic-bezier(.45, .05, .4, 1)" });
    motion.onfinish = motion.oncancel = () => dot.remove();
  }

  /** @param {Received} received @param {import("./node-card.js").NodeCard[]} receivers */
  #describe({ channel, offset, tags }, receivers) {
    const publication = offset ? `${channel} ${offset}` : channel;
    const accepted = tags?.node ? `accepted by ${tags.node}, ` : "";
    this.note.textContent = `${publication}: ${accepted}through Redis to ${list(receivers.map(({ name }) => name))}`;
  }
}

/** @param {string[]} names */
const list = (names) => [names.slice(0, -1).join(", "), names.at(-1)].filter(Boolean).join(" and ");

// @ts-check
/**
 * Publications on their way, as dots on the map's lines: node that took it -> Redis -> nodes that deliver -> visitor.
 *
 * Every leg is known, or not drawn. Which node took it is in the publication's tags; which nodes deliver, the nodes say
 * themselves; and the last leg begins when a connection of this page has heard it. What was read from the log on return
 * comes from Redis, and from nobody who takes it now.
 */
import { element } from "./dom.js";

const LEG = 420; // milliseconds on one line
const APART = 110; // milliseconds between two departures, at least: what an eye can follow
const BACKLOG = 1_200; // milliseconds; what would depart later than that is not shown
const LATE = 1_500; // milliseconds under way after which a publication did not come by announcement
const REMEMBERED = 50;

/** @typedef {{leaves: number, isDrawn: boolean}} Journey   `leaves`: when it leaves Redis */
/** @typedef {{channel: string, epoch?: string, offset?: number, tags?: Object<string, string>, isRecovered: boolean,
 *   delay?: number}} Told   `delay`: milliseconds since it was said, if known */

const prefersStillness = matchMedia("(prefers-reduced-motion: reduce)");

export class Travel {
  /** @type {Map<string, Journey>} */ #journeys = new Map();
  #departure = 0;

  /**
   * @param {HTMLElement} ground @param {import("./wires.js").Wires} wires
   * @param {() => Iterable<import("./node-card.js").NodeCard>} cards
   * @param {HTMLElement} note which says it in words
   */
  constructor(ground, wires, cards, note) {
    this.ground = ground;
    this.wires = wires;
    this.cards = cards;
    this.note = note;
  }

  /** A connection of this page has heard a publication. @param {{name: string, node: string}} lane @param {Told} told */
  heard(lane, told) {
    const isDeaf = [...this.cards()].some(({ name, hears }) => name === lane.node && !hears);
    const isReread = told.isRecovered || isDeaf || (told.delay ?? 0) > LATE; // or its node has mended from the log
    const journey = isReread ? this.#reread(lane) : this.#journey(lane, told);
    if (journey.isDrawn) this.#dot(lane.name, { at: journey.leaves + LEG, isBack: true, isRecovered: isReread });
  }

  /** The one that this publication is on; it departs when the first of our connections hears it. @param {any} lane @param {Told} told */
  #journey(lane, told) {
    const key = `${told.channel} ${told.epoch} ${told.offset ?? Math.random()}`;
    const known = this.#journeys.get(key);
    if (known) return known;
    const receivers = [...this.cards()].filter((card) => card.delivers(told.channel) || card.name === lane.node);
    this.#say(told, receivers);
    const journey = this.#depart();
    this.#journeys.set(key, journey);
    if (this.#journeys.size > REMEMBERED) this.#journeys.delete([...this.#journeys.keys()][0]);
    const taker = told.tags?.node;
    if (!journey.isDrawn) return journey;
    if (taker) {
      this.#dot(taker, { at: journey.leaves });
      journey.leaves += LEG;
    }
    for (const { name } of receivers) this.#dot(name, { at: journey.leaves, isBack: true });
    return journey;
  }

  /** From the log to the one node that reads it. @param {{node: string}} lane */
  #reread({ node }) {
    const journey = this.#depart();
    if (journey.isDrawn) this.#dot(node, { at: journey.leaves, isBack: true, isRecovered: true });
    return journey;
  }

  /** @returns {Journey} */
  #depart() {
    const now = performance.now();
    const leaves = Math.max(now, this.#departure + APART);
    const isDrawn = !prefersStillness.matches && !document.hidden && leaves < now + BACKLOG;
    if (isDrawn) this.#departure = leaves;
    return { leaves, isDrawn };
  }

  /** @param {string} line @param {{at: number, isBack?: boolean, isRecovered?: boolean}} look */
  #dot(line, { at, isBack = false, isRecovered = false }) {
    const way = this.wires.way(line);
    if (!way) return;
    const dot = element(isRecovered ? "i.dot.is-recovered" : "i.dot", { "aria-hidden": "true" });
    dot.style.offsetPath = `path("${way}")`;
    this.ground.append(dot);
    const [from, to] = isBack ? ["100%", "0%"] : ["0%", "100%"];
    const frames = [
      { offsetDistance: from, opacity: 1 },
      { offsetDistance: to, opacity: 1 },
    ];
    const delay = Math.max(0, at - performance.now());
    const motion = dot.animate(frames, { duration: LEG, delay, easing: "cubic-bezier(.45, .05, .4, 1)" });
    motion.onfinish = motion.oncancel = () => dot.remove();
  }

  /** @param {Told} told @param {import("./node-card.js").NodeCard[]} receivers */
  #say({ channel, offset, tags }, receivers) {
    const what = offset ? `${channel} ${offset}` : channel;
    const taken = tags?.node ? `taken by ${tags.node}, ` : "";
    this.note.textContent = `${what}: ${taken}through Redis to ${list(receivers.map(({ name }) => name))}`;
  }
}

/** @param {string[]} names */
const list = (names) => [names.slice(0, -1).join(", "), names.at(-1)].filter(Boolean).join(" and ");

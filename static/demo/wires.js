// @ts-check
/** The lines of the map: from each of the visitor's connections to the node that holds it, from nodes to Redis. */

const SVG = "http://www.w3.org/2000/svg";
const BEND = 12; // pixels; radius of a corner
const MARGIN = 18; // from the right edge to the line that leads to Redis, where all nodes are in one column

/** @typedef {{x: number, y: number, width: number, height: number}} Box */

export class Wires {
  /** @type {Map<string, SVGPathElement>} */ #paths = new Map();

  /** @param {SVGElement} svg which lies over `ground` @param {HTMLElement} ground */
  constructor(svg, ground) {
    this.svg = svg;
    this.ground = ground;
  }

  /**
   * Draws a line anew if it leads elsewhere, and only moves it if its ends have moved. Without `to` there is none.
   * @param {string} name @param {HTMLElement} from @param {HTMLElement | null} to
   * @param {{state: string, lane?: number}} look   `lane`: which of the visitor's lines it is, so that none hides another
   */
  draw(name, from, to, { state, lane }) {
    const path = this.#path(name);
    const target = to?.dataset.node ?? (to && "redis") ?? "";
    if (path.dataset.to !== target) {
      path.dataset.to = target;
      path.replaceWith(path); // restarts its animation
    }
    path.dataset.state = state;
    path.dataset.kind = lane === undefined ? "store" : "visitor";
    if (!to) return path.removeAttribute("d");
    const [start, end] = [this.#box(from), this.#box(to)];
    const isStacked = (lane === undefined ? start : end).width > this.ground.clientWidth * 0.6;
    path.setAttribute("d", lane === undefined ? this.#down(start, end, isStacked) : up(start, end, isStacked, lane));
  }

  /** The way a line takes, from the visitor to a node or from a node to Redis; "" if there is none. @param {string} name */
  way(name) {
    return this.#paths.get(name)?.getAttribute("d") ?? "";
  }

  /** From a node to Redis. @param {Box} start @param {Box} end @param {boolean} isStacked */
  #down(start, end, isStacked) {
    if (!isStacked) return straight(start, end);
    const x = this.ground.clientWidth - MARGIN;
    const [y, bottom] = [start.y + 26, end.y + end.height / 2];
    return (
      `M${start.x + start.width} ${y}H${x - BEND}Q${x} ${y} ${x} ${y + BEND}` +
      `V${bottom - BEND}Q${x} ${bottom} ${x - BEND} ${bottom}H${end.x + end.width}`
    );
  }

  /** @param {string} name */
  #path(name) {
    const known = this.#paths.get(name);
    if (known) return known;
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("pathLength", "1");
    this.#paths.set(name, path);
    this.svg.append(path);
    return path;
  }

  /** @param {HTMLElement} place @returns {Box} seen from the ground */
  #box(place) {
    const [{ left, top }, box] = [this.ground.getBoundingClientRect(), place.getBoundingClientRect()];
    return { x: box.left - left, y: box.top - top, width: box.width, height: box.height };
  }
}

/** From one of the visitor's connections. @param {Box} start @param {Box} end @param {boolean} isStacked @param {number} lane */
const up = (start, end, isStacked, lane) => (isStacked ? alongside(start, end) : across(start, end, lane));

/** From above into the top of a node, in a soft curve. @param {Box} start @param {Box} end @param {number} lane */
function across(start, end, lane) {
  const from = { x: start.x + start.width / 2, y: start.y + start.height };
  const to = { x: end.x + end.width / 2 + (lane ? 14 : -14), y: end.y };
  const middle = (from.y + to.y) / 2;
  return `M${from.x} ${from.y}C${from.x} ${middle} ${to.x} ${middle} ${to.x} ${to.y}`;
}

/** Down the margin, then into the side of a node, where all are in one column. @param {Box} start @param {Box} end */
function alongside(start, end) {
  const x = start.x + 6;
  const y = end.y + 26 + (start.y > 20 ? 10 : 0);
  return `M${x} ${start.y + start.height}V${y - BEND}Q${x} ${y} ${x + BEND} ${y}H${end.x}`;
}

/** @param {Box} start @param {Box} end */
function straight(start, end) {
  const x = start.x + start.width / 2;
  return `M${x} ${start.y + start.height}V${end.y}`;
}

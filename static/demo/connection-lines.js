// @ts-check
/** The lines of the map: from each of the visitor's connections to the node that holds it, and from nodes to Redis. */

const SVG = "http://www.w3.org/2000/svg";
const RADIUS = 12; // pixels; of a corner
const MARGIN = 18; // pixels from the right edge to the line to Redis, where all nodes are in one column

/** @typedef {{x: number, y: number, width: number, height: number}} Box */

export class ConnectionLines {
  /** @type {Map<string, SVGPathElement>} */ #paths = new Map();

  /** @param {SVGElement} svg covers the map @param {HTMLElement} map */
  constructor(svg, map) {
    this.svg = svg;
    this.map = map;
  }

  /**
   * Draws a line, or removes it if `to` is null. A line to a new target is animated.
   * @param {string} name @param {HTMLElement} from @param {HTMLElement | null} to
   * @param {{state: string, index?: number}} options   `index`: of the visitor's connection, so that lines do not overlap
   */
  draw(name, from, to, { state, index }) {
    const path = this.#path(name);
    const target = to?.dataset.node ?? (to && "redis") ?? "";
    if (path.dataset.to !== target) {
      path.dataset.to = target;
      path.replaceWith(path); // restarts its animation
    }
    path.dataset.state = state;
    path.dataset.kind = index === undefined ? "redis" : "visitor";
    if (!to) return path.removeAttribute("d");
    const [start, end] = [this.#box(from), this.#box(to)];
    const isStacked = (index === undefined ? start : end).width > this.map.clientWidth * 0.6;
    const drawn = index === undefined ? this.#toRedis(start, end, isStacked) : toNode(start, end, isStacked, index);
    path.setAttribute("d", drawn);
  }

  /** The SVG path of a line; "" if there is none. @param {string} name */
  path(name) {
    return this.#paths.get(name)?.getAttribute("d") ?? "";
  }

  /** From a node to Redis. @param {Box} start @param {Box} end @param {boolean} isStacked */
  #toRedis(start, end, isStacked) {
    if (!isStacked) return straight(start, end);
    const x = this.map.clientWidth - MARGIN;
    const [y, bottom] = [start.y + 26, end.y + end.height / 2];
    return (
      `M${start.x + start.width} ${y}H${x - RADIUS}Q${x} ${y} ${x} ${y + RADIUS}` +
      `V${bottom - RADIUS}Q${x} ${bottom} ${x - RADIUS} ${bottom}H${end.x + end.width}`
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

  /** @param {HTMLElement} place @returns {Box} in coordinates of the map */
  #box(place) {
    const [{ left, top }, box] = [this.map.getBoundingClientRect(), place.getBoundingClientRect()];
    return { x: box.left - left, y: box.top - top, width: box.width, height: box.height };
  }
}

/**
 * From one of the visitor's connections.
 * @param {Box} start @param {Box} end @param {boolean} isStacked @param {number} index
 */
const toNode = (start, end, isStacked, index) => (isStacked ? alongMargin(start, end) : curve(start, end, index));

/** From above into the top of a node. @param {Box} start @param {Box} end @param {number} index */
function curve(start, end, index) {
  const from = { x: start.x + start.width / 2, y: start.y + start.height };
  const to = { x: end.x + end.width / 2 + (index ? 14 : -14), y: end.y };
  const middle = (from.y + to.y) / 2;
  return `M${from.x} ${from.y}C${from.x} ${middle} ${to.x} ${middle} ${to.x} ${to.y}`;
}

/** Down the margin, then into the side of a node, where all are in one column. @param {Box} start @param {Box} end */
function alongMargin(start, end) {
  const x = start.x + 6;
  const y = end.y + 26 + (start.y > 20 ? 10 : 0);
  return `M${x} ${start.y + start.height}V${y - RADIUS}Q${x} ${y} ${x + RADIUS} ${y}H${end.x}`;
}

/** @param {Box} start @param {Box} end */
function straight(start, end) {
  const x = start.x + start.width / 2;
  return `M${x} ${start.y + start.height}V${end.y}`;
}

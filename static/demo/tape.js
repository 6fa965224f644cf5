// @ts-check
/** The strip of marks that shows the last offsets of the log, one cell each, newest at the right. */
import { element } from "./dom.js";

const CELLS = 48;

export class Tape {
  /** @param {HTMLElement} place */
  constructor(place) {
    this.cells = Array.from({ length: CELLS }, () => element("i.mark"));
    place.replaceChildren(...this.cells);
  }

  /** @param {number} top the newest offset @param {(offset: number) => string} mark what to show of each */
  draw(top, mark) {
    this.cells.forEach((cell, index) => {
      const offset = top - CELLS + 1 + index;
      const name = offset > 0 ? `mark is-${mark(offset)}` : "mark";
      if (cell.className !== name) cell.className = name;
    });
  }
}

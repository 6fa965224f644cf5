// @ts-check
/** The row of one connection, and the strip of offsets that it shares with the row of the history. */
import { element } from "./dom.js";

const CELLS = 48;

/** @type {Object<string, string>} */
const STATES = { connecting: "connecting", connected: "live", cut: "cut", disconnected: "closed" };

/** @type {Object<string, string>} */
const ACTIONS = { cut: "Resume", disconnected: "Reload" };

/** @param {HTMLElement} place @param {import("./connection.js").Connection} connection */
export function showConnection(place, connection) {
  const state = element("p.connection-state");
  const button = element("button.button", { type: "button", onclick: () => connection.toggle() });
  const cells = element("div.strip", { role: "img" });
  const facts = {
    node: fact("node"),
    received: fact("received"),
    position: fact("position"),
    recovered: fact("recovered"),
  };
  const counts = { missed: fact("missed"), duplicated: fact("duplicated") };
  place.append(
    element("div.connection-head", {}, element("h3", {}, connection.name), state),
    cells,
    button,
    element("dl.facts", {}, ...[...Object.values(facts), ...Object.values(counts)].map(({ group }) => group)),
  );
  const strip = new OffsetStrip(cells);

  const draw = () => {
    const { counter, history, waiting, position } = connection;
    place.dataset.state = connection.state;
    state.textContent = STATES[connection.state] + (waiting ? ` · ${waiting} waiting` : "");
    button.textContent = ACTIONS[connection.state] ?? "Cut";
    button.setAttribute("aria-label", `${button.textContent} the ${connection.name}`);
    button.classList.toggle("is-primary", button.textContent !== "Cut");
    facts.node.set(connection.node);
    facts.node.group.hidden = !connection.node;
    facts.received.set(connection.received);
    facts.received.group.hidden = history.isKept;
    for (const { group } of [facts.position, facts.recovered, ...Object.values(counts)]) group.hidden = !history.isKept;
    facts.position.set(position ? `${position.offset}@${position.epoch}` : "–");
    facts.recovered.set(counter.recovered);
    for (const name of /** @type {const} */ (["missed", "duplicated"])) {
      counts[name].set(counter[name]);
      counts[name].group.classList.toggle("is-bad", counter[name] > 0);
    }
    strip.draw(history.top, (offset) => counter.mark(offset));
    cells.setAttribute("aria-label", `Up to message ${history.top}: ${waiting} waiting, ${counter.missed} missed`);
  };
  connection.addEventListener("change", draw);
  draw();
}

/** @param {string} name */
function fact(name) {
  const value = element("dd", {}, "–");
  value.dataset.fact = name;
  return {
    group: element("div", {}, element("dt", {}, name), value),
    set: (/** @type {string | number} */ text) => {
      if (value.textContent !== String(text)) value.textContent = String(text);
    },
  };
}

/** The last offsets of the history, one cell each, the newest at the right. */
export class OffsetStrip {
  /** @param {HTMLElement} place */
  constructor(place) {
    this.cells = Array.from({ length: CELLS }, () => element("i.mark"));
    place.replaceChildren(...this.cells);
  }

  /** @param {number} top the newest offset @param {(offset: number) => string} mark returns the mark of an offset */
  draw(top, mark) {
    this.cells.forEach((cell, index) => {
      const offset = top - CELLS + 1 + index;
      const name = offset > 0 ? `mark is-${mark(offset)}` : "mark";
      if (cell.className !== name) cell.className = name;
    });
  }
}

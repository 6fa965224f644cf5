// @ts-check
/** How a connection looks on the page. */
import { element } from "./dom.js";
import { Tape } from "./tape.js";

/** @type {Object<string, string>} */
const WORDS = { connecting: "connecting", connected: "live", cut: "cut", disconnected: "closed" };

/** @type {Object<string, string>} */
const ACTIONS = { cut: "Resume", disconnected: "Reload" };

/** @param {HTMLElement} place @param {import("./lane.js").Lane} lane */
export function showLane(place, lane) {
  const state = element("p.lane-state");
  const button = element("button.button", { type: "button", onclick: () => lane.toggle() });
  const tape = element("div.tape", { role: "img" });
  const facts = { node: fact("node"), heard: fact("heard"), position: fact("position"), recovered: fact("recovered") };
  const counts = { missed: fact("missed"), duplicated: fact("duplicated") };
  place.append(
    element("div.lane-head", {}, element("h3", {}, lane.name), state),
    tape,
    button,
    element("dl.facts", {}, ...[...Object.values(facts), ...Object.values(counts)].map(({ group }) => group)),
  );
  const strip = new Tape(tape);

  const draw = () => {
    const { tally, log, waiting, position } = lane;
    place.dataset.state = lane.state;
    state.textContent = WORDS[lane.state] + (waiting ? ` · ${waiting} waiting` : "");
    button.textContent = ACTIONS[lane.state] ?? "Cut";
    button.setAttribute("aria-label", `${button.textContent} the ${lane.name}`);
    button.classList.toggle("is-primary", button.textContent !== "Cut");
    facts.node.set(lane.node);
    facts.node.group.hidden = !lane.node;
    facts.heard.set(lane.heard);
    facts.heard.group.hidden = log.isKept;
    for (const { group } of [facts.position, facts.recovered, ...Object.values(counts)]) group.hidden = !log.isKept;
    facts.position.set(position ? `${position.offset}@${position.epoch}` : "–");
    facts.recovered.set(tally.recovered);
    for (const name of /** @type {const} */ (["missed", "duplicated"])) {
      counts[name].set(tally[name]);
      counts[name].group.classList.toggle("is-bad", tally[name] > 0);
    }
    strip.draw(log.top, (offset) => tally.mark(offset));
    tape.setAttribute("aria-label", `Up to message ${log.top}: ${waiting} waiting, ${tally.missed} missed`);
  };
  lane.addEventListener("change", draw);
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

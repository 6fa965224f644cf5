// @ts-check
/** Asking, and being told: the same links in two columns, and the form that adds one. */
import { byId } from "./dom.js";
import { showColumn } from "./link-column.js";
import { desk } from "./link-desk.js";
import { PolledLinks } from "./polled.js";
import { ToldLinks } from "./told.js";

/** @param {import("../tocsin.js").Client} client over which the one column is told */
export function showKnowing(client) {
  const polled = new PolledLinks();
  const told = new ToldLinks(client);
  const follow = (/** @type {{id: string}} */ check) => polled.follow(check.id);
  showColumn(byId("column-polled"), polled, follow);
  showColumn(byId("column-told"), told, follow);
  client.addEventListener("state", () => {
    byId("told-state").textContent = client.state === "connected" ? "over the WebSocket" : "the WebSocket is away";
  });

  const behind = () => {
    const changes = told.version - polled.version;
    byId("polled-behind").textContent = changes > 0 ? `${changes} behind` : "";
  };
  polled.addEventListener("change", behind);
  told.addEventListener("change", behind);

  const interval = /** @type {HTMLSelectElement} */ (byId("interval"));
  interval.addEventListener("change", () => polled.every(Number(interval.value)));
  polled.every(Number(interval.value));
  wireAdder(byId("adder"), byId("adder-problem"));
}

/** @param {HTMLFormElement} adder @param {HTMLElement} problem */
function wireAdder(adder, problem) {
  adder.addEventListener("submit", async (event) => {
    event.preventDefault();
    const { title, url } = Object.fromEntries(new FormData(adder));
    problem.textContent = "";
    try {
      await desk.add({ title: String(title), url: String(url) });
      adder.reset();
    } catch (error) {
      problem.textContent = `Not added: ${/** @type {Error} */ (error).message}.`;
    }
  });
}

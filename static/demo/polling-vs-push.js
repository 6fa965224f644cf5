// @ts-check
/** Polling and push: the same links in two columns, and the form that adds a link. */
import { byId } from "./dom.js";
import { showColumn } from "./link-column.js";
import { linksApi } from "./link-list.js";
import { PolledLinks } from "./polled-links.js";
import { PushedLinks } from "./pushed-links.js";

/** @param {import("../tocsin.js").Client} client brings the publications of the push column */
export function showPollingVsPush(client) {
  const polled = new PolledLinks();
  const pushed = new PushedLinks(client);
  const onCheckStarted = (/** @type {{id: string}} */ check) => polled.followCheck(check.id);
  showColumn(byId("column-polled"), polled, onCheckStarted);
  showColumn(byId("column-pushed"), pushed, onCheckStarted);
  client.addEventListener("state", () => {
    const isConnected = client.state === "connected";
    byId("pushed-state").textContent = isConnected ? "over the WebSocket" : "WebSocket not connected";
  });

  const drawLag = () => {
    const changes = pushed.version - polled.version;
    byId("polled-lag").textContent = changes > 0 ? `${changes} behind` : "";
  };
  polled.addEventListener("change", drawLag);
  pushed.addEventListener("change", drawLag);

  const interval = /** @type {HTMLSelectElement} */ (byId("interval"));
  interval.addEventListener("change", () => polled.pollEvery(Number(interval.value)));
  polled.pollEvery(Number(interval.value));
  connectLinkForm(byId("link-form"), byId("link-form-problem"));
}

/** @param {HTMLFormElement} form @param {HTMLElement} problem */
function connectLinkForm(form, problem) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const { title, url } = Object.fromEntries(new FormData(form));
    problem.textContent = "";
    try {
      await linksApi.add({ title: String(title), url: String(url) });
      form.reset();
    } catch (error) {
      problem.textContent = `Not added: ${/** @type {Error} */ (error).message}.`;
    }
  });
}

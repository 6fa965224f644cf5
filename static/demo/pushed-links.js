// @ts-check
/** The links by push: one request at the beginning, then a publication for each change. */
import { LinkList, frameBytes, responseBytes } from "./link-list.js";

export class PushedLinks extends LinkList {
  #newestVersion = 0; // of all events so far
  #isRequesting = false;

  /** @param {import("../tocsin.js").Client} client */
  constructor(client) {
    super();
    const subscription = client.subscribe("links");
    subscription.addEventListener("subscribed", (/** @type {any} */ { detail }) => {
      this.addCost({ bytes: frameBytes(detail.wire) }); // this frame contains what is recovered
      if (!detail.recovered) this.#request();
    });
    subscription.addEventListener("gap", () => this.#request());
    subscription.addEventListener("publication", (/** @type {any} */ { detail }) => this.#onPublication(detail));
  }

  /** @param {{data: any, wire?: string}} publication */
  #onPublication({ data, wire }) {
    if (wire) this.addCost({ bytes: frameBytes(wire) });
    if (data.event === "check") return this.onCheck(data);
    this.onEvent(data);
    this.#newestVersion = Math.max(this.#newestVersion, data.version);
    if (this.version < this.#newestVersion) this.#request(); // an earlier event is missing, or still to arrive
  }

  /** Requests all links the first time, and later the changes since the known version. */
  async #request() {
    if (this.#isRequesting) return;
    this.#isRequesting = true;
    try {
      const response = await fetch(this.version ? `links?since=${this.version}` : "links", { cache: "no-store" });
      const body = await response.text();
      this.addCost({ requests: 1, bytes: responseBytes(response, body) });
      if (response.ok) this.onResponse(JSON.parse(body));
      else this.#newestVersion = 0;
    } catch {
      this.#newestVersion = 0; // the next event leads to another request
    } finally {
      this.#isRequesting = false;
    }
    if (this.version < this.#newestVersion) this.#request();
  }
}

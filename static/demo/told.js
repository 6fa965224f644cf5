// @ts-check
/** Knowing by being told: one request to begin with, then a push for each change. */
import { LinkList, answerBytes, frameBytes } from "./link-list.js";

export class ToldLinks extends LinkList {
  #wanted = 0; // the newest version we have heard of
  #isAsking = false;

  /** @param {import("../tocsin.js").Client} client */
  constructor(client) {
    super();
    const channel = client.subscribe("links");
    channel.addEventListener("subscribed", (/** @type {any} */ { detail }) => {
      this.spent({ bytes: frameBytes(detail.wire) }); // what is recovered comes inside this frame
      if (!detail.recovered) this.#ask();
    });
    channel.addEventListener("gap", () => this.#ask());
    channel.addEventListener("publication", (/** @type {any} */ { detail }) => this.#hear(detail));
  }

  /** @param {{data: any, wire?: string}} publication */
  #hear({ data, wire }) {
    if (wire) this.spent({ bytes: frameBytes(wire) });
    if (data.event === "check") return this.checked(data);
    this.told(data);
    this.#wanted = Math.max(this.#wanted, data.version);
    if (this.version < this.#wanted) this.#ask(); // a change before this one was not told, or is still on its way
  }

  /** All of it the first time, later what came after the version we know. */
  async #ask() {
    if (this.#isAsking) return;
    this.#isAsking = true;
    try {
      const response = await fetch(this.version ? `links?since=${this.version}` : "links", { cache: "no-store" });
      const body = await response.text();
      this.spent({ requests: 1, bytes: answerBytes(response, body) });
      if (response.ok) this.read(JSON.parse(body));
      else this.#wanted = 0;
    } catch {
      this.#wanted = 0; // the next news asks again
    } finally {
      this.#isAsking = false;
    }
    if (this.version < this.#wanted) this.#ask();
  }
}

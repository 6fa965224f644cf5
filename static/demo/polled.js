// @ts-check
/** Knowing by asking: the same request again and again, for what is new since the last answer. */
import { LinkList, answerBytes } from "./link-list.js";

export class PolledLinks extends LinkList {
  interval = 2_000;
  #isAsking = false;
  #timer = 0;
  /** @type {Set<string>} */ #checks = new Set(); // that we know of and have not seen end

  /** @param {number} interval milliseconds */
  every(interval) {
    this.interval = interval;
    if (!this.#isAsking) this.#turn();
  }

  /** A check that we began ourselves; of others' we hear nothing. @param {string} checkId */
  follow(checkId) {
    this.#checks.add(checkId);
  }

  async #turn() {
    const began = performance.now();
    clearTimeout(this.#timer);
    this.#isAsking = true;
    await this.#ask().catch(() => {}); // the next turn asks again
    this.#isAsking = false;
    this.#timer = window.setTimeout(() => this.#turn(), Math.max(0, this.interval - (performance.now() - began)));
  }

  async #ask() {
    const changes = await this.#get(`links?since=${this.version}`, { "If-None-Match": `"${this.version}"` });
    if (changes) this.read(changes);
    for (const id of this.#checks) {
      const { findings, verdict, ...check } = await this.#get(`checks/${id}`);
      if (check.state !== "running") this.#checks.delete(id);
      this.checked({ ...check, done: findings.length, says: verdict ?? findings.at(-1)?.says ?? "" });
    }
  }

  /** @param {string} path @param {Object<string, string>} [headers] @returns {Promise<any>} null if nothing is new */
  async #get(path, headers = {}) {
    const response = await fetch(path, { headers, cache: "no-store" });
    const body = await response.text();
    this.spent({ requests: 1, bytes: answerBytes(response, body) });
    if (response.status === 304) return null;
    if (!response.ok) throw new Error(`the application answered ${response.status}`);
    return JSON.parse(body);
  }
}

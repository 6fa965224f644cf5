// @ts-check
/** The links by polling: the same request at an interval, for the changes since the last response. */
import { LinkList, responseBytes } from "./link-list.js";

export class PolledLinks extends LinkList {
  interval = 2_000;
  #isRequesting = false;
  #timer = 0;
  /** @type {Set<string>} */ #checks = new Set(); // ids of checks that are not known to have ended

  /** @param {number} interval milliseconds */
  pollEvery(interval) {
    this.interval = interval;
    if (!this.#isRequesting) this.#poll();
  }

  /** Polls a check that this page started; polling shows no others. @param {string} checkId */
  followCheck(checkId) {
    this.#checks.add(checkId);
  }

  async #poll() {
    const began = performance.now();
    clearTimeout(this.#timer);
    this.#isRequesting = true;
    await this.#request().catch(() => {}); // the next poll repeats it
    this.#isRequesting = false;
    this.#timer = window.setTimeout(() => this.#poll(), Math.max(0, this.interval - (performance.now() - began)));
  }

  async #request() {
    const changes = await this.#get(`links?since=${this.version}`, { "If-None-Match": `"${this.version}"` });
    if (changes) this.onResponse(changes);
    for (const id of this.#checks) {
      const { findings, verdict, ...check } = await this.#get(`checks/${id}`);
      if (check.state !== "running") this.#checks.delete(id);
      this.onCheck({ ...check, done: findings.length, text: verdict ?? findings.at(-1)?.text ?? "" });
    }
  }

  /** @param {string} path @param {Object<string, string>} [headers] @returns {Promise<any>} null after a 304 */
  async #get(path, headers = {}) {
    const response = await fetch(path, { headers, cache: "no-store" });
    const body = await response.text();
    this.addCost({ requests: 1, bytes: responseBytes(response, body) });
    if (response.status === 304) return null;
    if (!response.ok) throw new Error(`the application responded ${response.status}`);
    return JSON.parse(body);
  }
}

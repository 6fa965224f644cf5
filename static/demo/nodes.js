// @ts-check
/** The demo's nodes, asked for again and again: whichever node is reached asks all of them. */
import { pause } from "./dom.js";

/**
 * @typedef {{state: string, num_clients: number, num_channels: number, lag_seconds: number}} Report
 * @typedef {{name: string, condition: "starting" | "running" | "draining" | "ended", pid: number,
 *   report: Report | null}} Node   `report` is what the node says itself, null while it says nothing
 */

const PAUSE = 1_000; // milliseconds between an answer and the next question
const PATIENCE = 3_000; // after which a node that has the question and does not answer is asked no longer

/** Events: `change`. */
export class Nodes extends EventTarget {
  /** @type {Node[]} */ all = [];
  trouble = ""; // why no node says anything of itself just now
  #hurry = () => {};

  /** Asks until the page is left; at once if there is nobody to ask about but a single node. */
  async follow() {
    do {
      if (!document.hidden) await this.#ask();
      await Promise.race([pause(PAUSE), new Promise((/** @type {any} */ resolve) => (this.#hurry = resolve))]);
    } while (this.all.length !== 1);
  }

  /** Something has just happened to them. */
  refresh() {
    this.#hurry();
  }

  /** Rejects with a sentence. @param {"kill" | "drain"} deed @param {string} name */
  async do(deed, name) {
    const response = await fetch(`demo/nodes/${name}/${deed}`, { method: "POST" });
    if (!response.ok) throw new Error((await response.json()).error.message);
    this.refresh();
  }

  async #ask() {
    try {
      const response = await fetch("demo/nodes", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
      if (!response.ok) throw new Error(`the application answered ${response.status}`);
      const { nodes, trouble } = await response.json();
      Object.assign(this, { all: nodes, trouble });
    } catch {
      this.trouble = "no node answers"; // the next turn asks again
    }
    this.dispatchEvent(new Event("change"));
  }
}

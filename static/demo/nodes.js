// @ts-check
/** The demo's nodes, polled: every node knows the status of all of them. */
import { pause } from "./dom.js";

/**
 * @typedef {{state: string, unready_reason: string, num_clients: number, channels: Object<string, number>,
 *   memory_bytes: number, lag_seconds: number}} Report
 * @typedef {{name: string, condition: "starting" | "running" | "draining" | "ended", pid: number, started_at: number,
 *   report: Report | null, deaf_until: number, lease_expires_by: number, restarts_at: number}} Node
 *   `report` comes from the node itself; times are in milliseconds of `Nodes.now`, 0 if there is none
 * @typedef {{kind: string, seconds: number, text: string}} Step
 * @typedef {{number: number, name: string, kind: string, at: number, steps: Step[]}} Incident
 * @typedef {"kill" | "drain" | "deafen" | "restore"} Action
 */

const INTERVAL = 1_000; // milliseconds between a response and the next request
const SHORT_INTERVAL = 300; // the same while the state of a node is changing
const TIMEOUT = 3_000; // milliseconds after which a request counts as failed

/** Events: `change`. */
export class Nodes extends EventTarget {
  /** @type {Node[]} */ all = [];
  /** @type {Incident[]} */ incidents = [];
  isReached = true;
  #clockOffset = 0; // of the nodes' clock to this page's
  #wakeUp = () => {};

  /** Polls until the page is closed, except while it is hidden; a single node is requested only once. */
  async poll() {
    addEventListener("visibilitychange", () => this.#wakeUp());
    do {
      if (document.hidden) await this.#woken();
      await this.#request();
      await Promise.race([pause(this.isChanging ? SHORT_INTERVAL : INTERVAL), this.#woken()]);
    } while (this.all.length !== 1);
  }

  /** Polls at once: something has just happened to the nodes. */
  refresh() {
    this.#wakeUp();
  }

  /** Milliseconds since 1970 by the nodes' clock. */
  get now() {
    return performance.now() + this.#clockOffset;
  }

  /** Whether the state of a node is about to change. */
  get isChanging() {
    return !this.isReached || this.all.some((node) => !isReady(node));
  }

  /** Whether this node receives publications, as far as it is known. @param {string} name */
  receives(name) {
    const node = this.all.find((one) => one.name === name);
    return !node?.deaf_until && node?.report?.state !== "deaf";
  }

  /** Rejects with a sentence. @param {Action} action @param {string} name */
  async execute(action, name) {
    const response = await fetch(`demo/nodes/${name}/${action}`, { method: "POST" });
    if (!response.ok) throw new Error((await response.json()).error.message);
    this.refresh();
  }

  #woken() {
    return new Promise((/** @type {any} */ resolve) => (this.#wakeUp = resolve));
  }

  async #request() {
    try {
      const response = await fetch("demo/nodes", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT) });
      if (!response.ok) throw new Error(`the application responded ${response.status}`);
      const { nodes, incidents, now } = await response.json();
      this.#clockOffset = now - performance.now();
      Object.assign(this, { all: nodes, incidents, isReached: true });
    } catch {
      this.isReached = false; // the next poll repeats the request
    }
    this.dispatchEvent(new Event("change"));
  }
}

/** Whether the node runs, is ready, and receives everything. @param {Node} node */
const isReady = ({ condition, report, deaf_until: deafUntil }) =>
  condition === "running" && report?.state === "ready" && !deafUntil;

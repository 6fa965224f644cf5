// @ts-check
/** The demo's nodes, asked for again and again: whichever node is reached knows how it stands with all of them. */
import { pause } from "./dom.js";

/**
 * @typedef {{state: string, trouble: string, num_clients: number, channels: Object<string, number>,
 *   memory_bytes: number, lag_seconds: number}} Report
 * @typedef {{name: string, condition: "starting" | "running" | "draining" | "ended", pid: number, started_at: number,
 *   report: Report | null, silent_until: number, lapses_by: number, returns_at: number}} Node
 *   `report` is what the node says itself; times are in milliseconds of `Nodes.now`, 0 if there is none
 * @typedef {{what: string, seconds: number, says: string}} Step
 * @typedef {{number: number, name: string, kind: string, at: number, steps: Step[]}} Incident
 * @typedef {"kill" | "drain" | "deafen" | "heal"} Deed
 */

const PAUSE = 1_000; // milliseconds between an answer and the next question
const RESTLESS = 300; // the same while something happens to a node
const PATIENCE = 3_000; // after which a node that has the question and does not answer is asked no longer

/** Events: `change`. */
export class Nodes extends EventTarget {
  /** @type {Node[]} */ all = [];
  /** @type {Incident[]} */ incidents = [];
  isReached = true;
  #ahead = 0; // of this page's clock, the nodes' is
  #hurry = () => {};

  /** Asks until the page is left, though not while nobody looks; only once if there is but a single node. */
  async follow() {
    addEventListener("visibilitychange", () => this.#hurry());
    do {
      if (document.hidden) await this.#hurried();
      await this.#ask();
      await Promise.race([pause(this.isRestless ? RESTLESS : PAUSE), this.#hurried()]);
    } while (this.all.length !== 1);
  }

  /** Something has just happened to them. */
  refresh() {
    this.#hurry();
  }

  /** Milliseconds since 1970 by the nodes' clock. */
  get now() {
    return performance.now() + this.#ahead;
  }

  /** Whether something is on its way with one of them. */
  get isRestless() {
    return !this.isReached || this.all.some((node) => !isWell(node));
  }

  /** Whether what is published reaches this node, as far as we know. @param {string} name */
  hears(name) {
    const node = this.all.find((one) => one.name === name);
    return !node?.silent_until && node?.report?.state !== "deaf";
  }

  /** Rejects with a sentence. @param {Deed} deed @param {string} name */
  async do(deed, name) {
    const response = await fetch(`demo/nodes/${name}/${deed}`, { method: "POST" });
    if (!response.ok) throw new Error((await response.json()).error.message);
    this.refresh();
  }

  #hurried() {
    return new Promise((/** @type {any} */ resolve) => (this.#hurry = resolve));
  }

  async #ask() {
    try {
      const response = await fetch("demo/nodes", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
      if (!response.ok) throw new Error(`the application answered ${response.status}`);
      const { nodes, incidents, now } = await response.json();
      this.#ahead = now - performance.now();
      Object.assign(this, { all: nodes, incidents, isReached: true });
    } catch {
      this.isReached = false; // the next turn asks again
    }
    this.dispatchEvent(new Event("change"));
  }
}

/** It runs, is ready, and nothing is swallowed. @param {Node} node */
export const isWell = ({ condition, report, silent_until: silent }) =>
  condition === "running" && report?.state === "ready" && !silent;

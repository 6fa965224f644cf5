// @ts-check
/** The map of the cluster: its nodes, what they share, and which of them hold the visitor's two connections. */
import { Chronicle } from "./chronicle.js";
import { byId, element, pause } from "./dom.js";
import { NodeCard } from "./node-card.js";
import { Nodes } from "./nodes.js";
import { Travel } from "./travel.js";
import { Wires } from "./wires.js";

/** @typedef {import("./lane.js").Lane} Lane */

const TICK = 100; // milliseconds between two looks at the clock, while something is counted down

export class ClusterMap {
  nodes = new Nodes();
  /** @type {Map<string, NodeCard>} */ #cards = new Map();
  /** @type {{lane: Lane, end: HTMLElement, held: HTMLElement}[]} */ #ends = [];
  #wires = new Wires(byId("wires"), byId("map"));
  #travel = new Travel(byId("map"), this.#wires, () => this.#cards.values(), byId("travel-note"));
  #chronicle = new Chronicle(byId("chronicle"), () => this.nodes.now);
  #isTicking = false;

  constructor() {
    this.nodes.addEventListener("change", () => this.#draw());
    new ResizeObserver(() => this.#drawWires()).observe(byId("map"));
    this.nodes.follow();
  }

  /** Shows which node holds this connection from now on, and what comes over it. @param {Lane} lane */
  follow(lane) {
    const held = element("span.visually-hidden");
    const end = element("li.end", {}, lane.name, held);
    this.#ends.push({ lane, end, held });
    byId("ends").append(end);
    lane.mayMiss = () => this.nodes.hears(lane.node);
    lane.addEventListener("change", () => this.#drawWires());
    lane.addEventListener("turn", () => this.nodes.refresh());
    lane.addEventListener("heard", (/** @type {any} */ { detail }) => this.#travel.heard(lane, detail));
    this.#chronicle.follow(lane);
    this.#drawWires();
  }

  /** Shows too what comes in another channel over the same connection. @param {EventTarget} channel @param {{node: string}} client */
  listen(channel, client) {
    channel.addEventListener("publication", (/** @type {any} */ { detail }) =>
      this.#travel.heard(
        { name: "WebSocket", node: client.node },
        { ...detail, isRecovered: Boolean(detail.recovered) },
      ),
    );
  }

  #draw() {
    document.body.dataset.nodes = this.nodes.all.length > 1 ? "several" : "one";
    for (const node of this.nodes.all) this.#card(node.name).draw(node, this.nodes.now);
    byId("nodes-note").textContent = this.#note();
    this.#chronicle.draw(this.nodes.incidents);
    this.#drawWires();
    this.#tick();
  }

  #note() {
    if (!this.nodes.isReached) return "No node answers just now.";
    return `${this.nodes.all.length} processes on one port. What they share is in Redis.`;
  }

  /** Counts down what is counted down, as long as anything is. */
  async #tick() {
    if (this.#isTicking) return;
    this.#isTicking = true;
    while (this.nodes.isRestless && !document.hidden) {
      for (const card of this.#cards.values()) card.tick(this.nodes.now);
      await pause(TICK);
    }
    this.#isTicking = false;
  }

  /** @param {string} name */
  #card(name) {
    let card = this.#cards.get(name);
    if (!card) {
      card = new NodeCard(name, (deed) => this.#do(deed, name));
      this.#cards.set(name, card);
      byId("node-list").append(card.place);
    }
    return card;
  }

  /** @param {import("./nodes.js").Deed} deed @param {string} name */
  async #do(deed, name) {
    const problem = byId("nodes-problem");
    problem.textContent = "";
    try {
      await this.nodes.do(deed, name);
    } catch (error) {
      problem.textContent = `Not done: ${/** @type {Error} */ (error).message}.`;
    }
  }

  #drawWires() {
    this.#ends.forEach(({ lane, end, held }, number) => {
      const card = lane.state === "connected" ? this.#cards.get(lane.node) : undefined;
      end.dataset.state = lane.state;
      held.textContent = card ? `, held by ${card.name}` : ", held by no node";
      this.#wires.draw(lane.name, end, card?.place ?? null, { state: card?.state ?? "", lane: number });
    });
    for (const { name, place, state } of this.#cards.values())
      this.#wires.draw(name, place, byId("store"), { state });
  }
}

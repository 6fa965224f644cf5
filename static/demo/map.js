// @ts-check
/** The map of the cluster: its nodes, what they share, and which of them hold the visitor's two connections. */
import { byId, element } from "./dom.js";
import { NodeCard } from "./node-card.js";
import { Nodes } from "./nodes.js";
import { Wires } from "./wires.js";

/** @typedef {import("./lane.js").Lane} Lane */

export class ClusterMap {
  nodes = new Nodes();
  /** @type {Map<string, NodeCard>} */ #cards = new Map();
  /** @type {{lane: Lane, end: HTMLElement, held: HTMLElement}[]} */ #ends = [];
  #wires = new Wires(byId("wires"), byId("map"));

  constructor() {
    this.nodes.addEventListener("change", () => this.#draw());
    new ResizeObserver(() => this.#drawWires()).observe(byId("map"));
    this.nodes.follow();
  }

  /** Shows which node holds this connection from now on. @param {Lane} lane */
  follow(lane) {
    const held = element("span.visually-hidden");
    const end = element("li.end", {}, lane.name, held);
    this.#ends.push({ lane, end, held });
    byId("ends").append(end);
    lane.addEventListener("change", () => this.#drawWires());
    lane.addEventListener("turn", () => this.nodes.refresh());
    lane.addEventListener("heard", () => pulse(end));
    this.#drawWires();
  }

  #draw() {
    document.body.dataset.nodes = this.nodes.all.length > 1 ? "several" : "one";
    for (const node of this.nodes.all) this.#card(node.name).draw(node, this.nodes.trouble);
    byId("nodes-note").textContent = this.#note();
    this.#drawWires();
  }

  #note() {
    if (this.nodes.trouble === "no node answers") return "No node answers just now.";
    return `${this.nodes.all.length} processes on one port. What they share is in Redis.`;
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

  /** @param {"kill" | "drain"} deed @param {string} name */
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
      this.#wires.draw(lane.name, end, card?.place ?? null, { state: lane.state, lane: number });
    });
    for (const { name, place } of this.#cards.values())
      this.#wires.draw(name, place, byId("store"), { state: place.dataset.state ?? "" });
  }
}

/** Shows that something has just come over it. @param {HTMLElement} end */
function pulse(end) {
  end.classList.remove("is-fresh");
  requestAnimationFrame(() => end.classList.add("is-fresh"));
}

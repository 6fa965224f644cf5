// @ts-check
/** The map of the nodes: their cards, Redis, and lines to the nodes that hold the visitor's two connections. */
import { ConnectionLines } from "./connection-lines.js";
import { byId, element, pause } from "./dom.js";
import { IncidentLog } from "./incident-log.js";
import { MessageAnimation } from "./message-animation.js";
import { NodeCard } from "./node-card.js";
import { Nodes } from "./nodes.js";

/** @typedef {import("./connection.js").Connection} Connection */

const TICK = 100; // milliseconds between two steps of a countdown

export class NodeMap {
  nodes = new Nodes();
  /** @type {Map<string, NodeCard>} */ #cards = new Map();
  /** @type {{connection: Connection, place: HTMLElement, holder: HTMLElement}[]} */ #endpoints = [];
  #lines = new ConnectionLines(byId("lines"), byId("map"));
  #animation = new MessageAnimation(byId("map"), this.#lines, () => this.#cards.values(), byId("animation-note"));
  #incidentLog = new IncidentLog(byId("incidents"), () => this.nodes.now);
  #isTicking = false;

  constructor() {
    this.nodes.addEventListener("change", () => this.#draw());
    new ResizeObserver(() => this.#drawLines()).observe(byId("map"));
    this.nodes.poll();
  }

  /** Shows the node of this connection, and the publications that it receives. @param {Connection} connection */
  follow(connection) {
    const holder = element("span.visually-hidden");
    const place = element("li.endpoint", {}, connection.name, holder);
    this.#endpoints.push({ connection, place, holder });
    byId("endpoints").append(place);
    connection.mayMiss = () => this.nodes.receives(connection.node);
    connection.addEventListener("change", () => this.#drawLines());
    connection.addEventListener("statechange", () => this.nodes.refresh());
    connection.addEventListener("received", (/** @type {any} */ { detail }) =>
      this.#animation.onReceived(connection, detail),
    );
    this.#incidentLog.follow(connection);
    this.#drawLines();
  }

  /**
   * Shows the publications of another subscription of the WebSocket.
   * @param {EventTarget} subscription @param {{node: string}} client
   */
  followSubscription(subscription, client) {
    subscription.addEventListener("publication", (/** @type {any} */ { detail }) =>
      this.#animation.onReceived(
        { name: "WebSocket", node: client.node },
        { ...detail, isRecovered: Boolean(detail.recovered) },
      ),
    );
  }

  #draw() {
    document.body.dataset.nodes = this.nodes.all.length > 1 ? "several" : "one";
    for (const node of this.nodes.all) this.#card(node.name).draw(node, this.nodes.now);
    byId("nodes-note").textContent = this.#note();
    this.#incidentLog.draw(this.nodes.incidents);
    this.#drawLines();
    this.#tick();
  }

  #note() {
    if (!this.nodes.isReached) return "No node responds at the moment.";
    return `${this.nodes.all.length} processes on one port. They share state in Redis.`;
  }

  /** Redraws countdowns while there are any. */
  async #tick() {
    if (this.#isTicking) return;
    this.#isTicking = true;
    while (this.nodes.isChanging && !document.hidden) {
      for (const card of this.#cards.values()) card.drawState(this.nodes.now);
      await pause(TICK);
    }
    this.#isTicking = false;
  }

  /** @param {string} name */
  #card(name) {
    let card = this.#cards.get(name);
    if (!card) {
      card = new NodeCard(name, (action) => this.#execute(action, name));
      this.#cards.set(name, card);
      byId("node-list").append(card.place);
    }
    return card;
  }

  /** @param {import("./nodes.js").Action} action @param {string} name */
  async #execute(action, name) {
    const problem = byId("nodes-problem");
    problem.textContent = "";
    try {
      await this.nodes.execute(action, name);
    } catch (error) {
      problem.textContent = `Not done: ${/** @type {Error} */ (error).message}.`;
    }
  }

  #drawLines() {
    this.#endpoints.forEach(({ connection, place, holder }, index) => {
      const card = connection.state === "connected" ? this.#cards.get(connection.node) : undefined;
      place.dataset.state = connection.state;
      holder.textContent = card ? `, held by ${card.name}` : ", held by no node";
      this.#lines.draw(connection.name, place, card?.place ?? null, { state: card?.state ?? "", index });
    });
    for (const { name, place, state } of this.#cards.values())
      this.#lines.draw(name, place, byId("redis"), { state });
  }
}

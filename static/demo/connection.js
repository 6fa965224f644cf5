// @ts-check
/** One live connection as the page shows it: what it received, what it has not received yet, and how it reconnected. */
import { duration, plural } from "./dom.js";
import { DeliveryCounter } from "./delivery-counter.js";
import { serverNow } from "./visitor-session.js";

const SETTLE = 2_000; // milliseconds after which a live connection has received everything that the history holds
const RECOVER = 250; // milliseconds after a reconnect in which everything that was missed has arrived

/**
 * Events: `change` · `statechange` · `received` {channel, offset, epoch, tags, data, isRecovered, delay} ·
 * `reconnected` {from, to, took, recovered}: from one node to another · `status`: a sentence about what just happened.
 */
export class Connection extends EventTarget {
  counter = new DeliveryCounter();
  received = 0;
  /** @type {import("./delivery-counter.js").Position | null} */ position = null;
  #connectingSince = 0; // milliseconds of this page's clock
  #previousNode = ""; // the node that held the connection before
  /** The last reconnect: when, the top of the history, the count recovered before it, and whether there was a gap. */
  #reconnect = { at: 0, top: 0, recovered: 0, hasGap: false };
  #isSettling = false;
  /** Whether messages that did not arrive are missed by now. False while the node is deaf: they arrive late. */
  mayMiss = () => true;

  /**
   * @param {string} name for people
   * @param {any} transport which has `state`, `node`, `cut` and `resume` @param {EventTarget} source of publications
   * @param {import("./delivery-counter.js").History} history
   */
  constructor(name, transport, source, history) {
    super();
    this.name = name;
    this.transport = transport;
    this.history = history;
    const on = (/** @type {EventTarget} */ target, /** @type {string} */ type, /** @type {Function} */ react) =>
      target.addEventListener(type, (/** @type {any} */ { detail }) => {
        react(detail);
        this.#emitChange();
      });
    on(transport, "state", (/** @type {any} */ detail) => this.#onState(detail));
    on(transport, "connected", () => {}); // `node` is known now
    on(source, "subscribed", (/** @type {any} */ { position }) => this.startAt(position));
    on(source, "publication", (/** @type {any} */ detail) => this.#onPublication(detail));
    on(source, "duplicate", () => this.counter.duplicated++);
    on(source, "gap", (/** @type {any} */ { from, to }) => this.#onGap(from, to));
    history.addEventListener("change", () => {
      this.#settle();
      this.#emitChange();
    });
  }

  get state() {
    return this.transport.state;
  }

  get node() {
    return this.transport.node;
  }

  get waiting() {
    return this.counter.waiting(this.history.position);
  }

  /**
   * Counts from this position on; later calls change nothing.
   * @param {import("./delivery-counter.js").Position | null} position
   */
  startAt(position) {
    if (!position) return;
    this.counter.begin(position);
    this.position ??= position;
    this.history.observe(position);
    this.#emitChange();
  }

  /** The action of the button: cut, resume, or reload the page if the server has closed the connection for good. */
  toggle() {
    if (this.state === "disconnected") location.reload();
    else if (this.state === "cut") this.transport.resume();
    else this.transport.cut();
  }

  /** @param {any} publication its epoch is undefined if the channel keeps no history */
  #onPublication({ channel, offset, epoch, tags, data, recovered }) {
    const { sent = Infinity } = readMessage(data);
    const isRecovered = recovered ?? (offset <= this.#reconnect.top || sent < this.#reconnect.at);
    this.received++;
    if (epoch !== undefined) this.#advance({ offset, epoch }, isRecovered);
    const detail = { channel, offset: epoch && offset, epoch, tags, data, isRecovered, delay: serverNow() - sent };
    this.dispatchEvent(new CustomEvent("received", { detail }));
  }

  /** @param {import("./delivery-counter.js").Position} position @param {boolean} isRecovered */
  #advance(position, isRecovered) {
    this.counter.receive(position, isRecovered);
    this.position = position;
    this.history.observe(position);
  }

  /** @param {import("./delivery-counter.js").Position} from @param {import("./delivery-counter.js").Position} to */
  #onGap(from, to) {
    this.counter.skip(to);
    this.#reconnect.hasGap = true;
    this.position = to;
    this.history.observe(to);
    const lost =
      from.epoch === to.epoch
        ? `${plural(to.offset - from.offset, "message")} up to ${to.offset} are not in the history any longer`
        : "the history was replaced by another one";
    this.#setStatus(`${this.name} has a gap: ${lost}.`);
  }

  /** @param {{state: string, code: number, reason: string}} detail */
  #onState({ state, code, reason }) {
    const consequence = this.history.isKept
      ? "Messages sent now wait for it in the history."
      : "Messages sent now are lost to it.";
    if (state === "cut") this.#setStatus(`${this.name} is cut. ${consequence}`);
    if (state === "disconnected") this.#setStatus(`${this.name} was closed: ${reason} (${code}).`);
    if (state === "connecting" && reason)
      this.#setStatus(`${this.name} lost ${this.node || "its node"} and reconnects. ${consequence}`);
    if (state === "connecting") [this.#connectingSince, this.#previousNode] = [performance.now(), this.node];
    if (state === "connected") this.#onConnected();
    this.dispatchEvent(new Event("statechange"));
  }

  #onConnected() {
    const took = performance.now() - this.#connectingSince;
    const isFirst = !this.#connectingSince;
    this.#reconnect = { at: 0, top: 0, recovered: this.counter.recovered, hasGap: false };
    if (!isFirst) Object.assign(this.#reconnect, { at: serverNow(), top: this.history.top });
    this.#settle();
    if (!isFirst) setTimeout(() => this.#reportReconnect(took, this.#reconnect), RECOVER);
  }

  /** @param {number} took @param {{recovered: number, hasGap: boolean}} reconnect */
  #reportReconnect(took, reconnect) {
    if (reconnect !== this.#reconnect || reconnect.hasGap || this.state !== "connected") return;
    if (!this.history.isKept)
      return this.#setStatus(`${this.name} reconnected in ${duration(took)}, without the messages sent meanwhile.`);
    const recovered = this.counter.recovered - reconnect.recovered;
    const detail = { from: this.#previousNode, to: this.node, took, recovered };
    this.dispatchEvent(new CustomEvent("reconnected", { detail }));
    const result = recovered ? `recovered ${plural(recovered, "message")}` : "had missed none";
    const where = this.node && this.node !== this.#previousNode ? ` to ${this.node}` : "";
    this.#setStatus(`${this.name} reconnected${where} in ${duration(took)} and ${result}.`);
  }

  /** After a while, counts as missed what the history holds now and has not arrived, unless the state changes. */
  #settle() {
    if (this.#isSettling || this.state !== "connected") return;
    const top = this.history.position;
    const reconnect = this.#reconnect;
    this.#isSettling = true;
    setTimeout(() => {
      this.#isSettling = false;
      if (this.state !== "connected") return;
      const mayMiss = this.mayMiss();
      if (reconnect === this.#reconnect && mayMiss) this.counter.settle(top);
      if (!mayMiss || this.history.top > top.offset || reconnect !== this.#reconnect) this.#settle();
      this.#emitChange();
    }, SETTLE);
  }

  /** @param {string} sentence */
  #setStatus(sentence) {
    this.dispatchEvent(new CustomEvent("status", { detail: sentence }));
  }

  #emitChange() {
    this.dispatchEvent(new Event("change"));
  }
}

/**
 * Reads the data of a publication. Other programs may publish data of any shape.
 * @param {any} data @returns {{text: string, name: string, sent: number | undefined}} `sent` in milliseconds since 1970
 */
export function readMessage(data) {
  const { text, name, sent } = Object(data);
  return {
    text: typeof text === "string" ? text : typeof data === "string" ? data : JSON.stringify(data),
    name: typeof name === "string" ? name : "",
    sent: typeof sent === "number" ? sent : undefined,
  };
}

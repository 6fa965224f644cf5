// @ts-check
/** One live connection, as the page follows it: what it heard, what waits for it, and how it came back. */
import { duration, plural } from "./dom.js";
import { serverNow } from "./identity.js";
import { readMessage } from "./message.js";
import { Tally } from "./tally.js";

const SETTLE = 2_000; // milliseconds in which a live connection should have heard what the log holds
const RETURN = 250; // milliseconds after a return in which what was missed has arrived

/**
 * Events: `change` · `turn` it came or went · `heard` {channel, offset, epoch, tags, data, isRecovered, delay} ·
 * `returned` {from, to, took, recovered} from one node to another · `story` a sentence about what just happened.
 */
export class Lane extends EventTarget {
  tally = new Tally();
  heard = 0;
  /** @type {import("./tally.js").Position | null} */ position = null;
  #left = 0; // when it was last resumed, in milliseconds of this page
  #leftNode = ""; // which held it then
  /** The last return: when, what the log held, what had been recovered before, and whether it found a gap. */
  #back = { at: 0, top: 0, recovered: 0, hasGap: false };
  #isSettling = false;
  /** Whether what it does not hear is missed by now, and not only late: its node may know that it hears nothing. */
  mayMiss = () => true;

  /**
   * @param {string} name for people
   * @param {any} transport which has `state`, `node`, `cut` and `resume` @param {EventTarget} source of the publications
   * @param {import("./tally.js").Log} log
   */
  constructor(name, transport, source, log) {
    super();
    this.name = name;
    this.transport = transport;
    this.log = log;
    const on = (/** @type {EventTarget} */ target, /** @type {string} */ type, /** @type {Function} */ react) =>
      target.addEventListener(type, (/** @type {any} */ { detail }) => {
        react(detail);
        this.#changed();
      });
    on(transport, "state", (/** @type {any} */ detail) => this.#turned(detail));
    on(transport, "connected", () => {}); // it knows its node now
    on(source, "subscribed", (/** @type {any} */ { position }) => this.stand(position));
    on(source, "publication", (/** @type {any} */ detail) => this.#hear(detail));
    on(source, "duplicate", () => this.tally.duplicated++);
    on(source, "gap", (/** @type {any} */ { from, to }) => this.#skip(from, to));
    log.addEventListener("change", () => {
      this.#settle();
      this.#changed();
    });
  }

  get state() {
    return this.transport.state;
  }

  get node() {
    return this.transport.node;
  }

  get waiting() {
    return this.tally.waiting(this.log.position);
  }

  /** Begins the account where the connection stands. @param {import("./tally.js").Position | null} position */
  stand(position) {
    if (!position) return;
    this.tally.begin(position);
    this.position ??= position;
    this.log.observe(position);
    this.#changed();
  }

  /** What the button does: cut, resume, or begin anew where the server has closed us for good. */
  toggle() {
    if (this.state === "disconnected") location.reload();
    else if (this.state === "cut") this.transport.resume();
    else this.transport.cut();
  }

  /** @param {any} publication of which only a log's has an epoch */
  #hear({ channel, offset, epoch, tags, data, recovered }) {
    const { sent = Infinity } = readMessage(data);
    const isRecovered = recovered ?? (offset <= this.#back.top || sent < this.#back.at);
    this.heard++;
    if (epoch !== undefined) this.#move({ offset, epoch }, isRecovered);
    const heard = { channel, offset: epoch && offset, epoch, tags, data, isRecovered, delay: serverNow() - sent };
    this.dispatchEvent(new CustomEvent("heard", { detail: heard }));
  }

  /** @param {import("./tally.js").Position} position @param {boolean} isRecovered */
  #move(position, isRecovered) {
    this.tally.hear(position, isRecovered);
    this.position = position;
    this.log.observe(position);
  }

  /** @param {import("./tally.js").Position} from @param {import("./tally.js").Position} to */
  #skip(from, to) {
    this.tally.skip(to);
    this.#back.hasGap = true;
    this.position = to;
    this.log.observe(to);
    const what =
      from.epoch === to.epoch ? plural(to.offset - from.offset, "message") : "the log was replaced; everything";
    this.#tell(`${this.name} was told of a gap: ${what} before ${to.offset} cannot be had any more.`);
  }

  /** @param {{state: string, code: number, reason: string}} turn */
  #turned({ state, code, reason }) {
    const fate = this.log.isKept ? "waits for it in the log" : "is lost to it";
    if (state === "cut") this.#tell(`${this.name} is cut. What is sent now ${fate}.`);
    if (state === "disconnected") this.#tell(`${this.name} was closed: ${reason} (${code}).`);
    if (state === "connecting" && reason)
      this.#tell(`${this.name} lost ${this.node || "its node"} and comes back by itself. What is sent now ${fate}.`);
    if (state === "connecting") [this.#left, this.#leftNode] = [performance.now(), this.node];
    if (state === "connected") this.#returned();
    this.dispatchEvent(new Event("turn"));
  }

  #returned() {
    const took = performance.now() - this.#left;
    const isFirst = !this.#left;
    this.#back = { at: 0, top: 0, recovered: this.tally.recovered, hasGap: false };
    if (!isFirst) Object.assign(this.#back, { at: serverNow(), top: this.log.top });
    this.#settle();
    if (!isFirst) setTimeout(() => this.#tellReturn(took, this.#back), RETURN);
  }

  /** @param {number} took @param {{recovered: number, hasGap: boolean}} back */
  #tellReturn(took, back) {
    if (back !== this.#back || back.hasGap || this.state !== "connected") return;
    if (!this.log.isKept)
      return this.#tell(`${this.name} came back in ${duration(took)}, without what was said meanwhile.`);
    const recovered = this.tally.recovered - back.recovered;
    const detail = { from: this.#leftNode, to: this.node, took, recovered };
    this.dispatchEvent(new CustomEvent("returned", { detail }));
    const what = recovered ? `recovered ${plural(recovered, "message")}` : "had missed nothing";
    const where = this.node && this.node !== this.#leftNode ? ` to ${this.node}` : "";
    this.#tell(`${this.name} came back${where} in ${duration(took)} and ${what}.`);
  }

  /** What the log holds now must have been heard a while from now, unless the connection goes away meanwhile. */
  #settle() {
    if (this.#isSettling || this.state !== "connected") return;
    const top = this.log.position;
    const back = this.#back;
    this.#isSettling = true;
    setTimeout(() => {
      this.#isSettling = false;
      if (this.state !== "connected") return;
      const mayMiss = this.mayMiss();
      if (back === this.#back && mayMiss) this.tally.settle(top);
      if (!mayMiss || this.log.top > top.offset || back !== this.#back) this.#settle();
      this.#changed();
    }, SETTLE);
  }

  /** @param {string} sentence */
  #tell(sentence) {
    this.dispatchEvent(new CustomEvent("story", { detail: sentence }));
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

// @ts-check
/** Live channels over the browser's EventSource. */
import { Backoff, Emitter, PositionTracker, badProtocol, isFinal, isOffset } from "./tracker.js";

/** @typedef {import("./tracker.js").Position} Position */
/** @typedef {import("./tracker.js").State} State */

/**
 * The EventSource reconnects and recovers by itself. This class adds readable positions, `cut` and `resume`, and a new
 * token after the server has refused the old one. When connections do not last, it reconnects itself, with backoff: an
 * EventSource that is told `retry: 0` tries hundreds of times a second.
 *
 * Events: `state` {state, code, reason} · `connected` {client, node} · `publication`, see
 * {@link import("./tracker.js").Publication} · `gap` {channel, from, to} · `duplicate` {channel, offset} ·
 * `disconnect` {code, reason}: the server's last event of the stream.
 */
export class EventStream extends Emitter {
  /** @type {EventSource | null} */ #source = null;
  /** @type {Map<string, PositionTracker>} */ #trackers;
  #backoff = new Backoff();
  #openCount = 0; // identifies the latest call of #open
  #timer = 0;

  /**
   * @param {string} url of `/events`
   * @param {{channels: string[], getToken?: import("./tracker.js").GetToken, since?: Object<string, Position>}} options
   *   `since`: the position in each channel to recover from; by default, only later publications
   */
  constructor(url, { channels, getToken, since = {} }) {
    super();
    this.url = url;
    this.getToken = getToken;
    /** @type {State} */
    this.state = "connecting";
    this.node = ""; // the node that holds the stream, or held it last
    this.#trackers = new Map(channels.map((channel) => [channel, new PositionTracker()]));
    for (const [channel, tracker] of this.#trackers) tracker.position = since[channel] ?? null;
    addEventListener("online", this.#onOnline);
    this.#open();
  }

  /** @param {string} channel @returns {Position | null} */
  position(channel) {
    return this.#trackers.get(channel)?.position ?? null;
  }

  /** All positions in the form of the server's `id:`, in the order of the channels. */
  get lastEventId() {
    const positions = [...this.#trackers.values()].map(({ position }) => position);
    const parts = positions.map((position) => position && `${position.offset}@${position.epoch}`);
    return parts.some(Boolean) ? parts.map((part) => part ?? "").join(",") : "";
  }

  /** Closes the stream until `resume`, as a lost network would. */
  cut() {
    if (this.state !== "disconnected") this.#closeSource("cut", 0, "cut on purpose");
  }

  /** Connects at once: after `cut`, or instead of waiting for the next attempt. */
  resume() {
    if (this.#source || this.state === "disconnected") return;
    this.#open();
  }

  /** Closes the stream for good. */
  close() {
    this.#closeSource("disconnected", 0, "close called");
  }

  /** The network is back: connect now, seconds before the browser would. */
  #onOnline = () => {
    if (this.state !== "connecting") return;
    this.#source?.close();
    this.#open();
  };

  async #open() {
    clearTimeout(this.#timer);
    this.#setState("connecting");
    const opening = ++this.#openCount;
    try {
      const address = await this.#fullUrl();
      if (opening === this.#openCount) this.#addListeners((this.#source = new EventSource(address)));
    } catch (error) {
      if (opening === this.#openCount) this.#reconnectLater(0, `no token: ${error}`, this.#backoff.next());
    }
  }

  async #fullUrl() {
    const address = new URL(this.url, location.href);
    for (const channel of this.#trackers.keys()) address.searchParams.append("channel", channel);
    if (this.getToken) address.searchParams.set("token", await this.getToken());
    if (this.lastEventId) address.searchParams.set("last_event_id", this.lastEventId);
    return address;
  }

  /** @param {EventSource} source */
  #addListeners(source) {
    source.onopen = () => {
      this.#backoff.succeed();
      this.#setState("connected");
    };
    source.onerror = () => {
      // CONNECTING: the browser reconnects. CLOSED: the server refused, and the browser gives up; a new token may help.
      if (source.readyState === EventSource.CLOSED) return this.#reconnectLater(0, "refused", this.#backoff.next());
      const delay = this.#backoff.nextOrAtOnce();
      if (delay) this.#reconnectLater(0, "connection lost", delay);
      else this.#setState("connecting", 0, "connection lost");
    };
    source.onmessage = (event) => this.#handle(() => this.#onMessage(event));
    source.addEventListener("connect", (event) => this.#handle(() => this.#onConnectEvent(event)));
    source.addEventListener("gap", (event) => this.#handle(() => this.#onGap(JSON.parse(event.data))));
    source.addEventListener("disconnect", (event) =>
      this.#handle(() => this.#onDisconnectEvent(JSON.parse(event.data))),
    );
  }

  /** Handles an event. One that is not of this protocol closes the stream for good. @param {() => void} step */
  #handle(step) {
    try {
      step();
    } catch (error) {
      this.#closeSource("disconnected", 2, badProtocol(error));
    }
  }

  /** @param {MessageEvent} event */
  #onConnectEvent(event) {
    const positions = readPositions(event.lastEventId);
    [...this.#trackers.values()].forEach((tracker, index) => (tracker.position ??= positions[index] ?? null));
    const connection = JSON.parse(event.data);
    this.node = connection.node ?? "";
    this.emit("connected", connection);
  }

  /** @param {MessageEvent} event */
  #onMessage(event) {
    const { channel, pub } = JSON.parse(event.data);
    const tracker = this.#trackers.get(channel);
    if (!tracker || !pub) return;
    const epoch = readPositions(event.lastEventId)[[...this.#trackers.keys()].indexOf(channel)]?.epoch;
    const hasPosition = pub.offset && epoch !== undefined;
    if (hasPosition && !tracker.accept(this, channel, { offset: pub.offset, epoch })) return;
    this.emit("publication", { ...pub, channel, epoch, wire: event.data });
  }

  /** @param {{channel: string, from: Position, to: Position}} gap */
  #onGap(gap) {
    const tracker = this.#trackers.get(gap.channel);
    if (!isOffset(gap.to?.offset)) throw new TypeError("a gap without its end");
    if (tracker) tracker.position = gap.to;
    this.emit("gap", gap);
  }

  /** @param {{code: number, reason: string}} disconnect */
  #onDisconnectEvent(disconnect) {
    this.emit("disconnect", disconnect);
    if (isFinal(disconnect.code)) this.#closeSource("disconnected", disconnect.code, disconnect.reason);
  }

  /** @param {number} code @param {string} reason @param {number} delay in milliseconds */
  #reconnectLater(code, reason, delay) {
    this.#closeSource("connecting", code, reason);
    this.#timer = window.setTimeout(() => this.#open(), delay);
  }

  /** @param {State} state @param {number} code @param {string} reason */
  #closeSource(state, code, reason) {
    this.#source?.close();
    this.#source = null;
    this.#openCount++;
    clearTimeout(this.#timer);
    if (state === "disconnected") removeEventListener("online", this.#onOnline);
    this.#setState(state, code, reason);
  }

  /** @param {State} state @param {number} [code] @param {string} [reason] */
  #setState(state, code = 0, reason = "") {
    if (state === this.state) return;
    this.state = state;
    this.emit("state", { state, code, reason });
  }
}

/**
 * `12@abc,,7@def` → positions in the order of the channels. Throws for anything else.
 * @param {string} id @returns {(Position | null)[]}
 */
function readPositions(id) {
  return id.split(",").map((part) => {
    const [offset, epoch] = part.split("@");
    if (epoch === undefined) return null;
    if (!isOffset(Number(offset))) throw new TypeError(`id ${part}`);
    return { offset: Number(offset), epoch };
  });
}

// @ts-check
/** Live channels over the browser's own EventSource: what Tocsin offers to those who want no client at all. */
import { Emitter, Track, isFinal, jitter } from "./track.js";

/** @typedef {import("./track.js").Position} Position */
/** @typedef {import("./track.js").State} State */

/**
 * A thin layer: the EventSource reconnects and resumes by itself. This adds positions that can be read, `cut` and
 * `resume` across two EventSources, and a fresh token when the server refuses the old one.
 *
 * Events: `state` {state, code, reason} · `connected` {client, node} if the server introduces itself · `publication`,
 * see {@link import("./track.js").Publication} · `gap` {channel, from, to} · `duplicate` {channel, offset} ·
 * `disconnect` {code, reason} said by the server before it ends the stream.
 */
export class EventStream extends Emitter {
  /** @type {EventSource | null} */ #source = null;
  /** @type {Map<string, Track>} */ #tracks;
  #attempt = 0; // how often we failed in a row
  #opening = 0; // which call of #open is the current one
  #timer = 0;

  /**
   * @param {string} url of `/events`
   * @param {{channels: string[], getToken?: import("./track.js").GetToken, since?: Object<string, Position>}} options
   *   `since`: where to begin in a channel; by default with what comes next
   */
  constructor(url, { channels, getToken, since = {} }) {
    super();
    this.url = url;
    this.getToken = getToken;
    /** @type {State} */
    this.state = "connecting";
    this.node = ""; // which node holds the stream, or held it last, if it says so
    this.#tracks = new Map(channels.map((channel) => [channel, new Track()]));
    for (const [channel, track] of this.#tracks) track.position = since[channel] ?? null;
    addEventListener("online", this.#online);
    this.#open();
  }

  /** @param {string} channel @returns {Position | null} */
  position(channel) {
    return this.#tracks.get(channel)?.position ?? null;
  }

  /** All positions as the server writes them in `id:`, in the order of the channels. */
  get lastEventId() {
    const parts = [...this.#tracks.values()].map(({ position }) => position && `${position.offset}@${position.epoch}`);
    return parts.some(Boolean) ? parts.map((part) => part ?? "").join(",") : "";
  }

  /** Breaks the stream on purpose and stays away until `resume`. */
  cut() {
    if (this.state !== "disconnected") this.#drop("cut", 0, "cut on purpose");
  }

  /** Comes back at once, after `cut` or from the middle of a pause. */
  resume() {
    if (this.#source || this.state === "disconnected") return;
    this.#open();
  }

  /** Leaves for good. */
  close() {
    this.#drop("disconnected", 0, "close called");
  }

  /** The network is back: do not wait for the browser's own next attempt, which is seconds away. */
  #online = () => {
    if (this.state !== "connecting") return;
    this.#source?.close();
    this.#open();
  };

  async #open() {
    clearTimeout(this.#timer);
    this.#become("connecting");
    const opening = ++this.#opening;
    try {
      const address = await this.#address();
      if (opening === this.#opening) this.#listen((this.#source = new EventSource(address)));
    } catch (error) {
      if (opening === this.#opening) this.#retry(0, `no token: ${error}`);
    }
  }

  async #address() {
    const address = new URL(this.url, location.href);
    for (const channel of this.#tracks.keys()) address.searchParams.append("channel", channel);
    if (this.getToken) address.searchParams.set("token", await this.getToken());
    if (this.lastEventId) address.searchParams.set("last_event_id", this.lastEventId);
    return address;
  }

  /** @param {EventSource} source */
  #listen(source) {
    source.onopen = () => {
      this.#attempt = 0;
      this.#become("connected");
    };
    source.onerror = () => {
      // CONNECTING: the browser comes back by itself. CLOSED: it was refused and will not; a fresh token may help.
      if (source.readyState === EventSource.CLOSED) this.#retry(0, "refused");
      else this.#become("connecting", 0, "connection lost");
    };
    source.onmessage = (event) => this.#heard(event);
    source.addEventListener("connect", (event) => this.#introduced(event));
    source.addEventListener("gap", (event) => this.#missed(JSON.parse(event.data)));
    source.addEventListener("disconnect", (event) => this.#dismissed(JSON.parse(event.data)));
  }

  /** @param {MessageEvent} event */
  #introduced(event) {
    const positions = readPositions(event.lastEventId);
    [...this.#tracks.values()].forEach((track, index) => (track.position ??= positions[index] ?? null));
    const introduction = JSON.parse(event.data);
    this.node = introduction.node ?? "";
    this.emit("connected", introduction);
  }

  /** @param {MessageEvent} event */
  #heard(event) {
    const { channel, pub } = JSON.parse(event.data);
    const track = this.#tracks.get(channel);
    if (!track || !pub) return;
    const epoch = readPositions(event.lastEventId)[[...this.#tracks.keys()].indexOf(channel)]?.epoch;
    const isLogged = pub.offset && epoch !== undefined;
    if (isLogged && !track.take(this, channel, { offset: pub.offset, epoch })) return;
    this.emit("publication", { ...pub, channel, epoch, wire: event.data });
  }

  /** @param {{channel: string, from: Position, to: Position}} gap */
  #missed(gap) {
    const track = this.#tracks.get(gap.channel);
    if (track) track.position = gap.to;
    this.emit("gap", gap);
  }

  /** @param {{code: number, reason: string}} farewell */
  #dismissed(farewell) {
    this.emit("disconnect", farewell);
    if (isFinal(farewell.code)) this.#drop("disconnected", farewell.code, farewell.reason);
  }

  /** @param {number} code @param {string} reason */
  #retry(code, reason) {
    this.#drop("connecting", code, reason);
    this.#timer = window.setTimeout(() => this.#open(), jitter(this.#attempt++));
  }

  /** @param {State} state @param {number} code @param {string} reason */
  #drop(state, code, reason) {
    this.#source?.close();
    this.#source = null;
    this.#opening++;
    clearTimeout(this.#timer);
    if (state === "disconnected") removeEventListener("online", this.#online);
    this.#become(state, code, reason);
  }

  /** @param {State} state @param {number} [code] @param {string} [reason] */
  #become(state, code = 0, reason = "") {
    if (state === this.state) return;
    this.state = state;
    this.emit("state", { state, code, reason });
  }
}

/** `12@abc,,7@def` → positions in the order of the channels. @param {string} id @returns {(Position | null)[]} */
function readPositions(id) {
  return id.split(",").map((part) => {
    const [offset, epoch] = part.split("@");
    return epoch === undefined ? null : { offset: Number(offset), epoch };
  });
}

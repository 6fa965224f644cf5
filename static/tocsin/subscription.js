// @ts-check
/** One channel over a WebSocket, for as long as it is wanted, across connections. */
import { Emitter, Track, jitter } from "./track.js";

/**
 * Events: `subscribed` {recovered, wasRecovering, position, wire} each time the server grants it · `publication`, see
 * {@link import("./track.js").Publication} · `join` and `leave` {client, user, conn_info} · `gap` {from, to}: what
 * lies between is lost to us, reload what it described · `duplicate` {offset} came twice and was dropped ·
 * `unsubscribed` {code, reason}, final.
 */
export class Subscription extends Emitter {
  #client;
  #track = new Track();
  #attempt = 0;
  #timer = 0;

  /**
   * @param {import("../tocsin.js").Client} client
   * @param {string} channel
   * @param {import("./track.js").Position} [since]
   */
  constructor(client, channel, since) {
    super();
    this.#client = client;
    this.channel = channel;
    /** @type {"subscribing" | "subscribed" | "unsubscribed"} */
    this.state = "subscribing";
    this.#track.position = since ?? null;
  }

  /** The position of the last publication heard; null where the channel keeps no log. */
  get position() {
    return this.#track.position;
  }

  /** Leaves the channel. Publications that are already under way are not delivered. */
  unsubscribe() {
    if (this.state === "subscribed") this.#client.call("unsubscribe", { channel: this.channel }).catch(() => {});
    this.#end(0, "unsubscribe called");
  }

  /** @internal the body of a subscribe command that continues where we are */
  get request() {
    const position = this.position;
    return {
      channel: this.channel,
      positioned: true,
      recoverable: true,
      ...(position && { recover: true, ...position }),
    };
  }

  /** @internal @param {any} result of the subscribe command @param {string} wire */
  granted(result, wire) {
    const before = this.position;
    const { recovered = false, was_recovering: wasRecovering = false, publications = [] } = result;
    this.state = "subscribed";
    this.#attempt = 0;
    this.#track.position = result.recoverable ? { offset: result.offset ?? 0, epoch: result.epoch ?? "" } : null;
    const position = this.position;
    this.emit("subscribed", { recovered, wasRecovering, position, wire });
    if (before && wasRecovering && !recovered) this.emit("gap", { channel: this.channel, from: before, to: position });
    for (const pub of publications) this.heard(pub, true);
  }

  /** @internal @param {import("./track.js").TocsinError} error of the subscribe command */
  refused(error) {
    if (!error.temporary) return this.#end(error.code, error.message);
    this.#timer = window.setTimeout(() => this.#client.ask(this), jitter(this.#attempt++));
  }

  /** @internal @param {any} pub @param {boolean} recovered @param {string} [wire] */
  heard(pub, recovered, wire) {
    if (this.state !== "subscribed") return;
    const epoch = this.position?.epoch;
    const isLogged = pub.offset && epoch !== undefined;
    if (isLogged && !this.#track.take(this, this.channel, { offset: pub.offset, epoch })) return;
    this.emit("publication", { ...pub, channel: this.channel, epoch, recovered, wire });
  }

  /** @internal the server took the channel away; codes from 2500 say ask again (protocol §9)
   *  @param {number} code @param {string} reason */
  revoked(code, reason) {
    if (code < 2500) return this.#end(code, reason);
    if (code === 2502) this.forget();
    this.lost();
    this.#client.ask(this);
  }

  /** @internal the connection went away */
  lost() {
    clearTimeout(this.#timer);
    this.state = "subscribing";
  }

  /** @internal what we know of the log is void */
  forget() {
    this.#track.position = null;
  }

  /** @param {number} code @param {string} reason */
  #end(code, reason) {
    if (this.state === "unsubscribed") return;
    clearTimeout(this.#timer);
    this.state = "unsubscribed";
    this.#client.forget(this);
    this.emit("unsubscribed", { code, reason });
  }
}

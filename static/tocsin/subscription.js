// @ts-check
/** The subscription to one channel over a WebSocket, across connections. */
import { Backoff, Emitter, PositionTracker, isOffset } from "./tracker.js";

/**
 * Events: `subscribed` {recovered, wasRecovering, position, wire} after each subscribe reply · `publication`, see
 * {@link import("./tracker.js").Publication} · `join` and `leave` {client, user, conn_info} · `gap` {from, to}: the
 * publications between cannot be recovered, so reload the state that they describe · `duplicate` {offset}: dropped ·
 * `unsubscribed` {code, reason}: final.
 */
export class Subscription extends Emitter {
  #client;
  #tracker = new PositionTracker();
  #backoff = new Backoff();
  #timer = 0;

  /**
   * @param {import("../tocsin.js").Client} client
   * @param {string} channel
   * @param {import("./tracker.js").Position} [since]
   */
  constructor(client, channel, since) {
    super();
    this.#client = client;
    this.channel = channel;
    /** @type {"subscribing" | "subscribed" | "unsubscribed"} */
    this.state = "subscribing";
    this.#tracker.position = since ?? null;
  }

  /** The position of the last publication; null if the channel keeps no history. */
  get position() {
    return this.#tracker.position;
  }

  /** Unsubscribes for good. Publications that are in flight are not delivered. */
  unsubscribe() {
    if (this.state === "subscribed") this.#client.call("unsubscribe", { channel: this.channel }).catch(() => {});
    this.#end(0, "unsubscribe called");
  }

  /** @internal The body of the subscribe command, which recovers from the current position. */
  get request() {
    const position = this.position;
    return {
      channel: this.channel,
      positioned: true,
      recoverable: true,
      ...(position && { recover: true, ...position }),
    };
  }

  /** @internal Throws if the result is not one. @param {any} result of the subscribe command @param {string} wire */
  onSubscribed(result, wire) {
    const before = this.position;
    const { recovered = false, was_recovering: wasRecovering = false, publications = [] } = result;
    if (!isOffset(result.offset ?? 0)) throw new TypeError(`offset ${result.offset}`);
    this.state = "subscribed";
    this.#backoff.succeed();
    this.#tracker.position = result.recoverable ? { offset: result.offset ?? 0, epoch: result.epoch ?? "" } : null;
    const position = this.position;
    this.emit("subscribed", { recovered, wasRecovering, position, wire });
    if (before && wasRecovering && !recovered) this.emit("gap", { channel: this.channel, from: before, to: position });
    for (const pub of publications) this.onPublication(pub, true);
  }

  /** @internal @param {import("./tracker.js").TocsinError} error of the subscribe command */
  onSubscribeError(error) {
    if (!error.temporary) return this.#end(error.code, error.message);
    this.#subscribeAfter(this.#backoff.next(error.code));
  }

  /** @param {number} delay in milliseconds */
  #subscribeAfter(delay) {
    if (delay) this.#timer = window.setTimeout(() => this.#client.sendSubscribe(this), delay);
    else this.#client.sendSubscribe(this);
  }

  /** @internal @param {any} pub @param {boolean} recovered @param {string} [wire] */
  onPublication(pub, recovered, wire) {
    if (this.state !== "subscribed") return;
    const epoch = this.position?.epoch;
    const hasPosition = pub.offset && epoch !== undefined;
    if (hasPosition && !this.#tracker.accept(this, this.channel, { offset: pub.offset, epoch })) return;
    this.emit("publication", { ...pub, channel: this.channel, epoch, recovered, wire });
  }

  /** @internal The server ended the subscription; codes from 2500 on mean: subscribe again (docs/protocol.md §9).
   *  @param {number} code @param {string} reason */
  onUnsubscribed(code, reason) {
    if (code < 2500) return this.#end(code, reason);
    if (code === 2502) this.resetPosition();
    this.onConnectionLost();
    this.#subscribeAfter(this.#backoff.nextOrAtOnce());
  }

  /** @internal */
  onConnectionLost() {
    clearTimeout(this.#timer);
    this.state = "subscribing";
  }

  /** @internal The known position is invalid. */
  resetPosition() {
    this.#tracker.position = null;
  }

  /** @param {number} code @param {string} reason */
  #end(code, reason) {
    if (this.state === "unsubscribed") return;
    clearTimeout(this.#timer);
    this.state = "unsubscribed";
    this.#client.remove(this);
    this.emit("unsubscribed", { code, reason });
  }
}

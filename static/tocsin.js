// @ts-check
/**
 * Tocsin in the browser: live channels over a WebSocket, or over the browser's own EventSource.
 *
 *     import { connect, EventStream } from "./tocsin.js";
 *     const client = connect("wss://push.example/connection/websocket", { getToken });
 *     const news = client.subscribe("news");
 *     news.addEventListener("publication", ({ detail }) => console.log(detail.offset, detail.data));
 *
 * Both remember where they are in every channel and resume from there, on whichever node they come back to. What
 * arrives twice is dropped and told as `duplicate`; what cannot be had any more is told as `gap`. No dependency, no
 * build: this file and the folder `tocsin/` beside it. Speaks the JSON form of the Centrifuge client protocol.
 */
import { Subscription } from "./tocsin/subscription.js";
import { Emitter, TocsinError, isFinal, jitter } from "./tocsin/track.js";

export { EventStream } from "./tocsin/eventstream.js";
export { Subscription, TocsinError };

/** @typedef {import("./tocsin/track.js").Position} Position */
/** @typedef {import("./tocsin/track.js").State} State */
/** @typedef {import("./tocsin/track.js").GetToken} GetToken */
/** @typedef {{method: string, subscription?: Subscription, resolve: Function, reject: Function, timer: number}} Call */

const COMMAND_TIMEOUT = 5_000; // milliseconds, as the other clients of this protocol
const OPEN_TIMEOUT = 10_000; // a network that swallows packets must not hold us for the browser's own two minutes
const PING_GRACE = 10_000; // how much later than promised a ping may come
const LONGEST_TIMER = 2 ** 31 - 1; // milliseconds; browsers fire a longer one at once

/** @param {string} url @param {{token?: string, getToken?: GetToken, name?: string}} [options] */
export const connect = (url, options) => new Client(url, options);

/**
 * One WebSocket connection that comes back by itself, with every subscription where it was.
 *
 * Events: `state` {state, code, reason} · `connected` the server's connect result {client, node, …}.
 */
export class Client extends Emitter {
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {Map<string, Subscription>} */ #subscriptions = new Map();
  /** @type {Map<number, Call>} */ #calls = new Map();
  #timers = { retry: 0, watchdog: 0, refresh: 0 };
  #token;
  #lastId = 0;
  #attempt = 0;
  #isIntroduced = false; // our connect command is on its way, so others may follow
  #silence = 0; // milliseconds without a word that mean the server is gone; 0 = it promised no pings
  #wantsPong = false;

  /** @param {string} url @param {{token?: string, getToken?: GetToken, name?: string}} [options] */
  constructor(url, { token = "", getToken, name = "tocsin.js" } = {}) {
    super();
    this.url = url;
    this.getToken = getToken;
    this.name = name;
    this.#token = token;
    /** @type {State} */
    this.state = "connecting";
    this.node = ""; // which node holds the connection, or held it last
    addEventListener("online", this.#online);
    this.#open();
  }

  /**
   * Subscribes, now and again after every reconnect. The same channel gives the same subscription.
   * @param {string} channel
   * @param {{since?: Position}} [options] `since`: begin by recovering what came after this position
   */
  subscribe(channel, { since } = {}) {
    const known = this.#subscriptions.get(channel);
    if (known) return known;
    const subscription = new Subscription(this, channel, since);
    this.#subscriptions.set(channel, subscription);
    this.ask(subscription);
    return subscription;
  }

  /** Resolves once the server has taken it. @param {string} channel @param {any} data */
  publish(channel, data) {
    return this.call("publish", { channel, data });
  }

  /**
   * {publications, offset, epoch}; without `limit` only the position of the log's top.
   * @param {string} channel
   * @param {{limit?: number, since?: Position, reverse?: boolean}} [options]
   */
  history(channel, options = {}) {
    return this.call("history", { channel, ...options });
  }

  /** Who is in the channel: {presence: {clientId: info}}. @param {string} channel */
  presence(channel) {
    return this.call("presence", { channel });
  }

  /** How many are in the channel: {num_clients, num_users}. @param {string} channel */
  presenceStats(channel) {
    return this.call("presence_stats", { channel });
  }

  /** Breaks the connection on purpose and stays away until `resume`: what a lost network looks like from here. */
  cut() {
    if (this.state !== "disconnected") this.#drop("cut", 0, "cut on purpose");
  }

  /** Comes back at once, after `cut` or from the middle of a pause. */
  resume() {
    if (this.#socket || this.state === "disconnected") return;
    this.#attempt = 0;
    this.#open();
  }

  /** Leaves for good. */
  close() {
    this.#drop("disconnected", 0, "close called");
  }

  /**
   * Sends one command; resolves with its result, rejects with a {@link TocsinError}.
   * @param {string} method @param {any} body @returns {Promise<any>}
   */
  call(method, body) {
    if (this.state !== "connected") return Promise.reject(new TocsinError(1, "not connected"));
    const [line, reply] = this.#command(method, body);
    this.#socket?.send(line);
    return reply;
  }

  /** @internal @param {Subscription} subscription */
  ask(subscription) {
    if (this.#isIntroduced) this.#socket?.send(this.#subscribe(subscription));
  }

  /** @internal @param {Subscription} subscription */
  forget(subscription) {
    this.#subscriptions.delete(subscription.channel);
  }

  #online = () => {
    if (this.state === "connecting") this.resume();
  };

  /**
   * @param {string} method @param {any} body @param {Subscription} [subscription]
   * @returns {[string, Promise<any>]} the line to send, and the reply to come
   */
  #command(method, body, subscription) {
    const id = ++this.#lastId;
    const reply = new Promise((resolve, reject) => {
      const timer = window.setTimeout(() => {
        this.#calls.delete(id);
        reject(new TocsinError(2, `no reply to ${method}`));
      }, COMMAND_TIMEOUT);
      this.#calls.set(id, { method, subscription, resolve, reject, timer });
    });
    return [JSON.stringify({ id, [method]: body }), reply];
  }

  /** The line that asks for a channel; what its refusal means is settled here. @param {Subscription} subscription */
  #subscribe(subscription) {
    const [line, reply] = this.#command("subscribe", subscription.request, subscription);
    const socket = this.#socket;
    reply.catch((error) => {
      if (socket !== this.#socket || subscription.state === "unsubscribed") return;
      if (error.code === 2) this.#retry(3, "subscribe timeout");
      else subscription.refused(error);
    });
    return line;
  }

  /** Opens a socket, then says in one frame who we are and everything we want. */
  async #open() {
    clearTimeout(this.#timers.retry);
    const socket = (this.#socket = new WebSocket(this.url));
    const opened = new Promise((resolve) => (socket.onopen = resolve));
    socket.onclose = ({ code, reason }) => this.#closed(code, reason);
    socket.onmessage = ({ data }) => this.#received(data);
    this.#watch(OPEN_TIMEOUT);
    this.#become("connecting");
    try {
      if (!this.#token && this.getToken) this.#token = await this.getToken();
    } catch (error) {
      if (socket === this.#socket) this.#retry(0, `no token: ${error}`);
    }
    await opened;
    if (socket === this.#socket) this.#introduce(socket);
  }

  /** @param {WebSocket} socket */
  #introduce(socket) {
    const [line, reply] = this.#command("connect", { ...(this.#token && { token: this.#token }), name: this.name });
    reply.catch((error) => socket === this.#socket && this.#refused(error));
    const wanted = [...this.#subscriptions.values()].map((subscription) => this.#subscribe(subscription));
    socket.send([line, ...wanted].join("\n"));
    this.#isIntroduced = true;
  }

  /** @param {any} result of the connect command */
  #welcomed(result) {
    this.#attempt = 0;
    this.#silence = result.ping ? result.ping * 1000 + PING_GRACE : 0;
    this.#wantsPong = Boolean(result.pong);
    this.#watch(this.#silence);
    this.#refreshIn(result);
    this.node = result.node ?? "";
    this.#become("connected");
    this.emit("connected", result);
  }

  /** @param {TocsinError} error */
  #refused(error) {
    if (error.code === 109) this.#token = "";
    const mayReturn = error.code === 109 ? this.getToken : error.temporary;
    if (mayReturn) this.#retry(error.code, error.message);
    else this.#drop("disconnected", error.code, error.message);
  }

  /** Brings a fresh token when the server asks for one. @param {{expires?: boolean, ttl?: number}} result */
  #refreshIn({ expires, ttl = 0 }) {
    clearTimeout(this.#timers.refresh);
    if (!expires || !this.getToken) return;
    const refresh = async () => {
      try {
        this.#token = (await this.getToken?.()) ?? "";
        this.#refreshIn(await this.call("refresh", { token: this.#token }));
      } catch {
        this.#token = ""; // the server will close us when the old one ends; we come back with a new one
      }
    };
    this.#timers.refresh = window.setTimeout(refresh, Math.min(ttl * 1000, LONGEST_TIMER));
  }

  /** @param {string} frame replies, pushes and pings, one to a line */
  #received(frame) {
    const socket = this.#socket;
    if (this.state === "connected") this.#watch(this.#silence);
    for (const line of frame.split("\n")) {
      if (line && socket === this.#socket) this.#handle(JSON.parse(line), line);
    }
  }

  /** @param {any} message @param {string} wire */
  #handle(message, wire) {
    if (message.id) this.#replied(message, wire);
    else if (message.push) this.#pushed(message.push, wire);
    else if (this.#wantsPong) this.#socket?.send("{}");
  }

  /** @param {any} reply @param {string} wire */
  #replied(reply, wire) {
    const call = this.#calls.get(reply.id);
    if (!call) return;
    this.#calls.delete(reply.id);
    clearTimeout(call.timer);
    const { error } = reply;
    if (error) return call.reject(new TocsinError(error.code, error.message, error.temporary));
    // These two take effect here and not a promise's turn later: a push on the next line must find them done.
    if (call.method === "connect") this.#welcomed(reply.connect);
    if (call.subscription && call.subscription.state !== "unsubscribed")
      call.subscription.granted(reply.subscribe, wire);
    call.resolve(reply[call.method]);
  }

  /** @param {any} push @param {string} wire */
  #pushed(push, wire) {
    const subscription = this.#subscriptions.get(push.channel);
    if (push.pub) subscription?.heard(push.pub, false, wire);
    else if (push.join) subscription?.emit("join", push.join.info);
    else if (push.leave) subscription?.emit("leave", push.leave.info);
    else if (push.unsubscribe) subscription?.revoked(push.unsubscribe.code, push.unsubscribe.reason);
  }

  /** Any word from the server says that it is there; too long none, that it is gone. @param {number} patience */
  #watch(patience) {
    clearTimeout(this.#timers.watchdog);
    if (patience) this.#timers.watchdog = window.setTimeout(() => this.#retry(2, "no ping"), patience);
  }

  /** @param {number} code @param {string} reason */
  #closed(code, reason) {
    if (code === 3005 || code === 3014) this.#token = "";
    if (code === 3014) for (const subscription of this.#subscriptions.values()) subscription.forget();
    if (isFinal(code)) this.#drop("disconnected", code, reason);
    else this.#retry(code, reason || "connection lost");
  }

  /** @param {number} code @param {string} reason */
  #retry(code, reason) {
    this.#drop("connecting", code, reason);
    this.#timers.retry = window.setTimeout(() => this.#open(), jitter(this.#attempt++));
  }

  /**
   * Lets go of the socket and of everything that hung on it.
   * @param {State} state @param {number} code @param {string} reason
   */
  #drop(state, code, reason) {
    const socket = this.#socket;
    this.#socket = null;
    this.#isIntroduced = false;
    if (socket) socket.onopen = socket.onclose = socket.onmessage = null;
    socket?.close();
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    for (const { reject, timer } of this.#calls.values()) {
      clearTimeout(timer);
      reject(new TocsinError(1, "connection closed"));
    }
    this.#calls.clear();
    for (const subscription of this.#subscriptions.values()) subscription.lost();
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

// @ts-check
/**
 * Tocsin in the browser: live channels over a WebSocket, or over the browser's own EventSource.
 *
 *     import { connect, EventStream } from "./tocsin.js";
 *     const client = connect("wss://push.example/connection/websocket", { getToken });
 *     const news = client.subscribe("news");
 *     news.addEventListener("publication", ({ detail }) => console.log(detail.offset, detail.data));
 *
 * Both keep the position of every channel, reconnect by themselves, and recover what they missed from any node. A
 * publication that arrives twice is dropped and reported as `duplicate`. Publications that cannot be recovered are
 * reported as `gap`. There are no dependencies and no build step: copy this file and the folder `tocsin/` beside it.
 * Speaks the JSON form of the Centrifuge client protocol. The API is described in docs/browser.md.
 */
import { Subscription } from "./tocsin/subscription.js";
import { Backoff, Emitter, TocsinError, badProtocol, isFinal, timerDelay } from "./tocsin/tracker.js";

export { EventStream } from "./tocsin/eventstream.js";
export { Subscription, TocsinError };

/** @typedef {import("./tocsin/tracker.js").Position} Position */
/** @typedef {import("./tocsin/tracker.js").State} State */
/** @typedef {import("./tocsin/tracker.js").GetToken} GetToken */
/**
 * @typedef {{method: string, subscription?: Subscription, resolve: Function, reject: Function, timer: number}}
 *   PendingCommand
 */

const COMMAND_TIMEOUT = 5_000; // milliseconds; the default of other clients of this protocol
const OPEN_TIMEOUT = 10_000; // if packets are lost, browsers would wait for two minutes
const PING_GRACE = 10_000; // milliseconds by which a ping may be late
const MESSAGE_CHARACTERS = 64 * 1024 * 1024; // of a frame, as in other clients of this protocol
const UNSENT_BYTES = 64 * 1024 * 1024; // that a server may leave unread

/** @param {string} url @param {{token?: string, getToken?: GetToken, name?: string}} [options] */
export const connect = (url, options) => new Client(url, options);

/**
 * One WebSocket connection. It reconnects by itself and recovers every subscription from its position.
 *
 * Events: `state` {state, code, reason} · `connected` the server's connect result {client, node, …}.
 */
export class Client extends Emitter {
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {Map<string, Subscription>} */ #subscriptions = new Map();
  /** @type {Map<number, PendingCommand>} */ #pending = new Map();
  #timers = { retry: 0, watchdog: 0, refresh: 0 };
  #token;
  #lastId = 0;
  #backoff = new Backoff();
  #hasSentConnect = false; // other commands may be sent after the connect command
  #silenceLimit = 0; // milliseconds without a frame after which the connection is lost; 0: the server sends no pings
  #wantsPong = false;
  #owesPong = false; // one for all pings of a frame

  /** @param {string} url @param {{token?: string, getToken?: GetToken, name?: string}} [options] */
  constructor(url, { token = "", getToken, name = "tocsin.js" } = {}) {
    super();
    this.url = url;
    this.getToken = getToken;
    this.name = name;
    this.#token = token;
    /** @type {State} */
    this.state = "connecting";
    this.node = ""; // the node that holds the connection, or held it last
    addEventListener("online", this.#onOnline);
    this.#open();
  }

  /**
   * Subscribes now and after every reconnect. For the same channel, returns the same subscription.
   * @param {string} channel
   * @param {{since?: Position}} [options] `since`: first recover what was published after this position
   */
  subscribe(channel, { since } = {}) {
    const known = this.#subscriptions.get(channel);
    if (known) return known;
    const subscription = new Subscription(this, channel, since);
    this.#subscriptions.set(channel, subscription);
    this.sendSubscribe(subscription);
    return subscription;
  }

  /** Resolves once the server has accepted the publication. @param {string} channel @param {any} data */
  publish(channel, data) {
    return this.call("publish", { channel, data });
  }

  /**
   * Resolves with {publications, offset, epoch}. Without `limit`, resolves with the top of the history only.
   * @param {string} channel
   * @param {{limit?: number, since?: Position, reverse?: boolean}} [options]
   */
  history(channel, options = {}) {
    return this.call("history", { channel, ...options });
  }

  /** Resolves with the clients in a channel: {presence: {clientId: info}}. @param {string} channel */
  presence(channel) {
    return this.call("presence", { channel });
  }

  /** Resolves with the number of clients in a channel: {num_clients, num_users}. @param {string} channel */
  presenceStats(channel) {
    return this.call("presence_stats", { channel });
  }

  /** Closes the connection until `resume`, as a lost network would. */
  cut() {
    if (this.state !== "disconnected") this.#closeSocket("cut", 0, "cut on purpose");
  }

  /** Connects at once: after `cut`, or instead of waiting for the next attempt. */
  resume() {
    if (this.#socket || this.state === "disconnected") return;
    this.#backoff.reset();
    this.#open();
  }

  /** Closes the connection for good. */
  close() {
    this.#closeSocket("disconnected", 0, "close called");
  }

  /**
   * Sends one command; resolves with its result, rejects with a {@link TocsinError}.
   * @param {string} method @param {any} body @returns {Promise<any>}
   */
  call(method, body) {
    if (this.state !== "connected") return Promise.reject(new TocsinError(1, "not connected"));
    if ((this.#socket?.bufferedAmount ?? 0) > UNSENT_BYTES) {
      this.#reconnectLater(0, "the server does not read");
      return Promise.reject(new TocsinError(1, "the server does not read"));
    }
    const [line, reply] = this.#commandLine(method, body);
    this.#socket?.send(line);
    return reply;
  }

  /** @internal Sends the subscribe command, if there is a connection. @param {Subscription} subscription */
  sendSubscribe(subscription) {
    if (this.#hasSentConnect) this.#socket?.send(this.#subscribeLine(subscription));
  }

  /** @internal @param {Subscription} subscription */
  remove(subscription) {
    this.#subscriptions.delete(subscription.channel);
  }

  #onOnline = () => {
    if (this.state === "connecting") this.resume();
  };

  /**
   * @param {string} method @param {any} body @param {Subscription} [subscription]
   * @returns {[string, Promise<any>]} the line to send, and its reply
   */
  #commandLine(method, body, subscription) {
    const id = ++this.#lastId;
    const reply = new Promise((resolve, reject) => {
      const timer = window.setTimeout(() => {
        this.#pending.delete(id);
        reject(new TocsinError(2, `no reply to ${method}`));
      }, COMMAND_TIMEOUT);
      this.#pending.set(id, { method, subscription, resolve, reject, timer });
    });
    return [JSON.stringify({ id, [method]: body }), reply];
  }

  /** Returns a subscribe command, and handles its error. @param {Subscription} subscription */
  #subscribeLine(subscription) {
    const [line, reply] = this.#commandLine("subscribe", subscription.request, subscription);
    const socket = this.#socket;
    reply.catch((error) => {
      if (socket !== this.#socket || subscription.state === "unsubscribed") return;
      if (error.code === 2) this.#reconnectLater(3, "subscribe timeout");
      else subscription.onSubscribeError(error);
    });
    return line;
  }

  /** Opens a socket. The first frame contains the connect command and all subscribe commands. */
  async #open() {
    clearTimeout(this.#timers.retry);
    const socket = (this.#socket = new WebSocket(this.url));
    const opened = new Promise((resolve) => (socket.onopen = resolve));
    socket.onclose = ({ code, reason }) => this.#onClose(code, reason);
    socket.onmessage = ({ data }) => this.#onFrame(data);
    this.#restartWatchdog(OPEN_TIMEOUT);
    this.#setState("connecting");
    try {
      if (!this.#token && this.getToken) this.#token = await this.getToken();
    } catch (error) {
      if (socket === this.#socket) this.#reconnectLater(0, `no token: ${error}`);
    }
    await opened;
    if (socket === this.#socket) this.#sendConnect(socket);
  }

  /** @param {WebSocket} socket */
  #sendConnect(socket) {
    const [line, reply] = this.#commandLine("connect", { ...(this.#token && { token: this.#token }), name: this.name });
    reply.catch((error) => socket === this.#socket && this.#onConnectError(error));
    const subscribeLines = [...this.#subscriptions.values()].map((subscription) => this.#subscribeLine(subscription));
    socket.send([line, ...subscribeLines].join("\n"));
    this.#hasSentConnect = true;
  }

  /** @param {any} result of the connect command */
  #onConnected(result) {
    this.#backoff.succeed();
    this.#silenceLimit = result.ping > 0 ? timerDelay(result.ping + PING_GRACE / 1000) : 0;
    this.#wantsPong = Boolean(result.pong);
    this.#restartWatchdog(this.#silenceLimit);
    this.#scheduleRefresh(result);
    this.node = result.node ?? "";
    this.#setState("connected");
    this.emit("connected", result);
  }

  /** @param {TocsinError} error */
  #onConnectError(error) {
    if (error.code === 109) this.#token = "";
    const mayReconnect = error.code === 109 ? this.getToken : error.temporary;
    if (mayReconnect) this.#reconnectLater(error.code, error.message);
    else this.#closeSocket("disconnected", error.code, error.message);
  }

  /** Sends a new token when the current one has expired; the server waits for it. @param {{expires?: boolean, ttl?: number}} result */
  #scheduleRefresh({ expires, ttl = 0 }) {
    clearTimeout(this.#timers.refresh);
    if (!expires || !this.getToken) return;
    const refresh = async () => {
      try {
        this.#token = (await this.getToken?.()) ?? "";
        this.#scheduleRefresh(await this.call("refresh", { token: this.#token }));
      } catch {
        this.#token = ""; // the server disconnects this client, which reconnects with a new token
      }
    };
    this.#timers.refresh = window.setTimeout(refresh, this.#backoff.refresh(ttl));
  }

  /** @param {string} frame replies, pushes and pings, one to a line. Another one ends the connection for good. */
  #onFrame(frame) {
    const socket = this.#socket;
    if (this.state === "connected") this.#restartWatchdog(this.#silenceLimit);
    try {
      if (frame.length > MESSAGE_CHARACTERS) throw new RangeError(`a frame of ${frame.length} characters`);
      for (const line of frame.split("\n")) {
        if (line && socket === this.#socket) this.#onMessage(JSON.parse(line), line);
      }
    } catch (error) {
      this.#closeSocket("disconnected", 2, badProtocol(error));
    }
    if (this.#owesPong && socket === this.#socket) this.#socket?.send("{}");
    this.#owesPong = false;
  }

  /** @param {any} message @param {string} wire */
  #onMessage(message, wire) {
    if (message.id) this.#onReply(message, wire);
    else if (message.push) this.#onPush(message.push, wire);
    else this.#owesPong = this.#wantsPong && (this.#socket?.bufferedAmount ?? 0) < UNSENT_BYTES;
  }

  /** @param {any} reply @param {string} wire */
  #onReply(reply, wire) {
    const call = this.#pending.get(reply.id);
    if (!call) return;
    this.#pending.delete(reply.id);
    clearTimeout(call.timer);
    const { error } = reply;
    if (error) return call.reject(new TocsinError(error.code, error.message, error.temporary));
    // These two take effect now, not in a later microtask: the next line of the frame may be a push.
    if (call.method === "connect") this.#onConnected(reply.connect);
    if (call.subscription && call.subscription.state !== "unsubscribed")
      call.subscription.onSubscribed(reply.subscribe, wire);
    call.resolve(reply[call.method]);
  }

  /** @param {any} push @param {string} wire */
  #onPush(push, wire) {
    const subscription = this.#subscriptions.get(push.channel);
    if (push.pub) subscription?.onPublication(push.pub, false, wire);
    else if (push.join) subscription?.emit("join", push.join.info);
    else if (push.leave) subscription?.emit("leave", push.leave.info);
    else if (push.unsubscribe) subscription?.onUnsubscribed(push.unsubscribe.code, push.unsubscribe.reason);
  }

  /** Every frame shows that the server is alive. Without one for too long, reconnect. @param {number} limit */
  #restartWatchdog(limit) {
    clearTimeout(this.#timers.watchdog);
    if (limit) this.#timers.watchdog = window.setTimeout(() => this.#reconnectLater(2, "no ping"), limit);
  }

  /** @param {number} code @param {string} reason */
  #onClose(code, reason) {
    if (code === 3005 || code === 3014) this.#token = "";
    if (code === 3014) for (const subscription of this.#subscriptions.values()) subscription.resetPosition();
    if (isFinal(code)) this.#closeSocket("disconnected", code, reason);
    else this.#reconnectLater(code, reason || "connection lost");
  }

  /** @param {number} code @param {string} reason */
  #reconnectLater(code, reason) {
    this.#closeSocket("connecting", code, reason);
    this.#timers.retry = window.setTimeout(() => this.#open(), this.#backoff.next(code));
  }

  /**
   * Closes the socket, rejects the pending commands and stops all timers.
   * @param {State} state @param {number} code @param {string} reason
   */
  #closeSocket(state, code, reason) {
    const socket = this.#socket;
    this.#socket = null;
    this.#hasSentConnect = false;
    if (socket) socket.onopen = socket.onclose = socket.onmessage = null;
    socket?.close();
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    for (const { reject, timer } of this.#pending.values()) {
      clearTimeout(timer);
      reject(new TocsinError(1, "connection closed"));
    }
    this.#pending.clear();
    for (const subscription of this.#subscriptions.values()) subscription.onConnectionLost();
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

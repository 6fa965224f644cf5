// @ts-check
/** The chat: one channel, two connections to it, the messages and the visitors that are present. */
import { OffsetStrip, showConnection } from "./connection-view.js";
import { Connection } from "./connection.js";
import { History } from "./delivery-counter.js";
import { byId, once, pause } from "./dom.js";
import { Feed } from "./feed.js";
import { showPresence } from "./presence.js";
import { connectForm, refusalMessage } from "./sending.js";
import { visitor } from "./visitor-session.js";
import { EventStream } from "../tocsin.js";

const EARLIER_MESSAGES = 10; // of the history that are shown when the page opens
const TIMEOUT = 3_000; // milliseconds after which the event stream opens without the WebSocket's position

/**
 * @param {import("../tocsin.js").Client} client @param {string} channel
 * @param {{send: import("./sending.js").Send, invitation: string, getToken?: import("../tocsin.js").GetToken,
 *   onConnection?: (connection: Connection) => void,
 *   onPresence?: Parameters<typeof showPresence>[3]}} options
 *   `invitation`: the sentence shown at first
 */
export async function openChat(client, channel, options) {
  const { send, invitation, getToken, onConnection = () => {}, onPresence } = options;
  const history = new History();
  const feed = new Feed(byId("feed"), history);
  showHistory(history, channel);

  const subscription = client.subscribe(channel);
  subscription.addEventListener("subscribed", (/** @type {any} */ { detail }) => history.onSubscribed(detail.position));
  subscription.addEventListener("subscribed", () => showEarlierMessages(client, subscription, feed, invitation), {
    once: true,
  });
  subscription.addEventListener("unsubscribed", (/** @type {any} */ { detail: { code, reason } }) =>
    showRefusal(
      `The server refuses to subscribe to ${channel}: ${refusalMessage(code, reason, "subscribe", channel)}.`,
    ),
  );
  const presencePlaces = { list: byId("presence-list"), count: byId("presence-count") };
  const drawPresence = showPresence(presencePlaces, client, subscription, onPresence);
  const socketConnection = new Connection("WebSocket", client, subscription, history);
  show(socketConnection, feed);
  onConnection(socketConnection);
  connectForm({ form: byId("composer"), sendTen: byId("send-ten"), note: byId("composer-note") }, async (text) => {
    const sent = await send(text);
    history.observe(sent.position);
    if (sent.position) feed.show(sent.position.offset, sent.data);
    return sent;
  });

  // The event stream begins at the position of the WebSocket, so that both receive the same messages from the first on.
  await Promise.race([once(subscription, "subscribed"), once(subscription, "unsubscribed"), pause(TIMEOUT)]);
  if (subscription.state === "unsubscribed") return;
  const since = subscription.position ? { [channel]: subscription.position } : {};
  const stream = new EventStream("events", { channels: [channel], getToken, since });
  const streamConnection = new Connection("EventSource", stream, stream, history);
  streamConnection.startAt(stream.position(channel));
  stream.addEventListener("connected", (/** @type {any} */ { detail }) => {
    visitor.connections.add(detail.client);
    streamConnection.startAt(stream.position(channel));
    drawPresence();
  });
  show(streamConnection, feed);
  onConnection(streamConnection);
}

/** @param {string} sentence about what just happened */
const setStatus = (sentence) => (byId("status").textContent = sentence);

/** Hides the chat and says why. @param {string} sentence */
export function showRefusal(sentence) {
  document.body.dataset.refused = "";
  setStatus(sentence);
}

/** @param {History} history @param {string} channel */
function showHistory(history, channel) {
  const strip = new OffsetStrip(byId("history-strip"));
  for (const place of document.querySelectorAll(".channel-name")) place.textContent = channel;
  history.addEventListener("change", () => {
    document.body.dataset.history = history.isKept ? "kept" : "none";
    byId("history-top").textContent = String(history.top);
    strip.draw(history.top, () => "stored");
  });
}

/** @param {Connection} connection @param {Feed} feed */
function show(connection, feed) {
  showConnection(byId(`connection-${connection.name.toLowerCase()}`), connection);
  feed.follow(connection);
  connection.addEventListener("status", (/** @type {any} */ { detail }) => setStatus(detail));
}

/**
 * Shows the newest messages of the history, if the channel permits reading it.
 * @param {import("../tocsin.js").Client} client @param {import("../tocsin.js").Subscription} subscription
 * @param {Feed} feed @param {string} invitation
 */
async function showEarlierMessages(client, subscription, feed, invitation) {
  setStatus(subscription.position ? invitation : "Both connections are open.");
  if (!subscription.position) return;
  const history = client.history(subscription.channel, { limit: EARLIER_MESSAGES, reverse: true });
  const { publications } = await history.catch(() => ({ publications: [] }));
  for (const { offset, data } of publications) feed.show(offset, data);
}

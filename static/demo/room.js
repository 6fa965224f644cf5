// @ts-check
/** One channel, the two connections to it, what is said there, and by whom. */
import { refusal } from "./advice.js";
import { wireComposer } from "./composer.js";
import { byId, once, pause } from "./dom.js";
import { Feed } from "./feed.js";
import { visitor } from "./identity.js";
import { showLane } from "./lane-view.js";
import { Lane } from "./lane.js";
import { showPresence } from "./presence.js";
import { Log } from "./tally.js";
import { Tape } from "./tape.js";
import { EventStream } from "../tocsin.js";

const HISTORY = 10; // messages from before we came that are shown
const PATIENCE = 3_000; // milliseconds after which the stream begins without knowing where the socket stands

/**
 * @param {import("../tocsin.js").Client} client @param {string} channel
 * @param {{say: import("./speech.js").Say, invitation: string, getToken?: import("../tocsin.js").GetToken,
 *   met?: (lane: Lane) => void}} manner   `invitation`: what to try first; `met` is told of each connection
 */
export async function openRoom(client, channel, { say, invitation, getToken, met = () => {} }) {
  const log = new Log();
  const feed = new Feed(byId("feed"), log);
  showLog(log, channel);

  const lobby = client.subscribe(channel);
  lobby.addEventListener("subscribed", (/** @type {any} */ { detail }) => log.entered(detail.position));
  lobby.addEventListener("subscribed", () => welcome(client, lobby, feed, invitation), { once: true });
  lobby.addEventListener("unsubscribed", (/** @type {any} */ { detail: { code, reason } }) =>
    refuse(`The server does not let us into ${channel}: ${refusal(code, reason, "subscribe", channel)}.`),
  );
  const drawPresence = showPresence({ list: byId("people"), count: byId("presence-count") }, client, lobby);
  const socket = new Lane("WebSocket", client, lobby, log);
  show(socket, feed);
  met(socket);
  wireComposer({ form: byId("composer"), sendTen: byId("send-ten"), note: byId("composer-note") }, async (text) => {
    const said = await say(text);
    log.observe(said.position);
    if (said.position) feed.show(said.position.offset, said.data);
    return said;
  });

  // The stream begins where the socket stands, so that both are owed the same messages from the first on.
  await Promise.race([once(lobby, "subscribed"), once(lobby, "unsubscribed"), pause(PATIENCE)]);
  if (lobby.state === "unsubscribed") return;
  const since = lobby.position ? { [channel]: lobby.position } : {};
  const stream = new EventStream("events", { channels: [channel], getToken, since });
  const lane = new Lane("EventSource", stream, stream, log);
  lane.stand(stream.position(channel));
  stream.addEventListener("connected", (/** @type {any} */ { detail }) => {
    visitor.connections.add(detail.client);
    lane.stand(stream.position(channel));
    drawPresence();
  });
  show(lane, feed);
  met(lane);
}

/** @param {string} sentence about what just happened */
const tell = (sentence) => (byId("story").textContent = sentence);

/** @param {string} sentence why there is nothing to be seen */
export function refuse(sentence) {
  document.body.dataset.refused = "";
  tell(sentence);
}

/** @param {Log} log @param {string} channel */
function showLog(log, channel) {
  const tape = new Tape(byId("log-tape"));
  for (const place of document.querySelectorAll(".channel-name")) place.textContent = channel;
  log.addEventListener("change", () => {
    document.body.dataset.log = log.isKept ? "kept" : "none";
    byId("log-top").textContent = String(log.top);
    tape.draw(log.top, () => "stored");
  });
}

/** @param {Lane} lane @param {Feed} feed */
function show(lane, feed) {
  showLane(byId(`lane-${lane.name.toLowerCase()}`), lane);
  feed.follow(lane);
  lane.addEventListener("story", (/** @type {any} */ { detail }) => tell(detail));
}

/**
 * Shows what was said before we came, as far as we may know.
 * @param {import("../tocsin.js").Client} client @param {import("../tocsin.js").Subscription} lobby
 * @param {Feed} feed @param {string} invitation
 */
async function welcome(client, lobby, feed, invitation) {
  tell(lobby.position ? invitation : "Both are open.");
  if (!lobby.position) return;
  const history = client.history(lobby.channel, { limit: HISTORY, reverse: true });
  const { publications } = await history.catch(() => ({ publications: [] }));
  for (const { offset, data } of publications) feed.show(offset, data);
}

// @ts-check
/** The demo page: everything put together. */
import { wireComposer } from "./demo/composer.js";
import { byId, once, pause } from "./demo/dom.js";
import { Feed } from "./demo/feed.js";
import { getToken, setClock, visitor } from "./demo/identity.js";
import { showLane } from "./demo/lane-view.js";
import { Lane } from "./demo/lane.js";
import { showColumn } from "./demo/link-column.js";
import { desk } from "./demo/link-desk.js";
import { PolledLinks } from "./demo/polled.js";
import { showPresence } from "./demo/presence.js";
import { Log } from "./demo/tally.js";
import { Tape } from "./demo/tape.js";
import { ToldLinks } from "./demo/told.js";
import { EventStream, connect } from "./tocsin.js";

const LOBBY = "chat:lobby";
const HISTORY = 10; // messages from before we came that are shown
const PATIENCE = 3_000; // milliseconds after which the stream begins without knowing where the socket stands

const socketAddress = new URL("connection/websocket", location.href);
socketAddress.protocol = socketAddress.protocol.replace("http", "ws");

const client = connect(socketAddress.href, { getToken });
client.addEventListener("connected", () => (byId("whoami").textContent = visitor.name));
setClock().catch(() => {}); // without it, times may be off by the length of a request

// --- the log and the connections to it ---
const log = new Log();
const logTape = new Tape(byId("log-tape"));
log.addEventListener("change", () => {
  byId("log-top").textContent = String(log.top);
  logTape.draw(log.top, () => "stored");
});
const feed = new Feed(byId("feed"), log);

/** @param {Lane} lane */
function show(lane) {
  showLane(byId(`lane-${lane.name.toLowerCase()}`), lane);
  feed.follow(lane);
  lane.addEventListener("story", (/** @type {any} */ { detail }) => (byId("story").textContent = detail));
}

const lobby = client.subscribe(LOBBY);
show(new Lane("WebSocket", client, lobby, log));

// The stream begins where the socket stands, so that both are owed the same messages from the first on.
await Promise.race([once(lobby, "subscribed"), pause(PATIENCE)]);
/** @type {Object<string, import("./tocsin.js").Position>} */
const since = lobby.position ? { [LOBBY]: lobby.position } : {};
const stream = new EventStream("events", { channels: [LOBBY], getToken, since });
const streamLane = new Lane("EventSource", stream, stream, log);
streamLane.stand(stream.position(LOBBY));
stream.addEventListener("connected", () => streamLane.stand(stream.position(LOBBY)));
show(streamLane);

if (lobby.state === "subscribed") welcome();
else lobby.addEventListener("subscribed", welcome, { once: true });

/** Shows what was said before we came. */
async function welcome() {
  byId("story").textContent = "Both are open. Cut one, send ten, then resume it.";
  const { publications } = await client.history(LOBBY, { limit: HISTORY, reverse: true });
  for (const { offset, data } of publications) feed.show(offset, data);
}

// --- saying something, and who hears it ---
wireComposer(byId("composer"), byId("send-ten"), byId("composer-note"), (position, data) => {
  log.observe(position);
  feed.show(position.offset, data);
});
showPresence({ list: byId("people"), count: byId("presence-count") }, client, lobby);

// --- asking, and being told ---
const polled = new PolledLinks();
const told = new ToldLinks(client);
const follow = (/** @type {{id: string}} */ check) => polled.follow(check.id);
showColumn(byId("column-polled"), polled, follow);
showColumn(byId("column-told"), told, follow);
client.addEventListener("state", () => {
  byId("told-state").textContent = client.state === "connected" ? "over the WebSocket" : "the WebSocket is away";
});

const behind = () => {
  const changes = told.version - polled.version;
  byId("polled-behind").textContent = changes > 0 ? `${changes} behind` : "";
};
polled.addEventListener("change", behind);
told.addEventListener("change", behind);

const interval = /** @type {HTMLSelectElement} */ (byId("interval"));
interval.addEventListener("change", () => polled.every(Number(interval.value)));
polled.every(Number(interval.value));

const adder = /** @type {HTMLFormElement} */ (byId("adder"));
adder.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { title, url } = Object.fromEntries(new FormData(adder));
  byId("adder-problem").textContent = "";
  try {
    await desk.add({ title: String(title), url: String(url) });
    adder.reset();
  } catch (error) {
    byId("adder-problem").textContent = `Not added: ${/** @type {Error} */ (error).message}.`;
  }
});

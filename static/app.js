// @ts-check
/** The demo page: put together for the demo's application, or for a node alone. */
import { admitted, becomeAnonymous, knownChannel } from "./demo/alone.js";
import { byId } from "./demo/dom.js";
import { getToken, meet, setClock, visitor } from "./demo/identity.js";
import { showKnowing } from "./demo/knowing.js";
import { ClusterMap } from "./demo/map.js";
import { openRoom, refuse } from "./demo/room.js";
import { sayOverSocket, sayToApplication } from "./demo/speech.js";
import { connect } from "./tocsin.js";

const LOBBY = "chat:lobby";

const socketAddress = new URL("connection/websocket", location.href);
socketAddress.protocol = socketAddress.protocol.replace("http", "ws");

const token = await meet();
document.body.dataset.ground = token === null ? "alone" : "application";
if (token === null) alone();
else withApplication(token);

/** @param {string} token */
function withApplication(token) {
  const client = connect(socketAddress.href, { token, getToken });
  client.addEventListener("connected", showName);
  setClock().catch(() => {}); // without it, times may be off by the length of a request
  const invitation = "Both are open. Cut one, send ten, then resume it.";
  const map = new ClusterMap();
  openRoom(client, LOBBY, { say: sayToApplication, invitation, getToken, met: (lane) => map.follow(lane) });
  showKnowing(client);
  map.listen(client.subscribe("links"), client);
}

async function alone() {
  const client = connect(socketAddress.href);
  becomeAnonymous(client);
  client.addEventListener("connected", showName);
  try {
    await admitted(client);
  } catch (error) {
    return refuse(/** @type {Error} */ (error).message);
  }
  const channel = await knownChannel(client, LOBBY);
  const invitation = "Both are open. Cut the EventSource, send ten, then resume it.";
  openRoom(client, channel, { say: sayOverSocket(client, channel), invitation });
}

function showName() {
  byId("whoami").textContent = visitor.name;
}

// @ts-check
/** The demo page. It runs with the demo's application, or standalone on a node that has none. */
import { openChat, showRefusal } from "./demo/chat.js";
import { byId } from "./demo/dom.js";
import { NodeMap } from "./demo/node-map.js";
import { showPollingVsPush } from "./demo/polling-vs-push.js";
import { sendOverSocket, sendToApplication } from "./demo/sending.js";
import { findChannel, nameAnonymousVisitor, untilConnected } from "./demo/standalone.js";
import { Visits } from "./demo/visits.js";
import { firstToken, getToken, measureClock, visitor } from "./demo/visitor-session.js";
import { connect } from "./tocsin.js";

const LOBBY = "chat:lobby";

const socketAddress = new URL("connection/websocket", location.href);
socketAddress.protocol = socketAddress.protocol.replace("http", "ws");

const token = await firstToken();
document.body.dataset.mode = token === null ? "standalone" : "application";
if (token === null) startStandalone();
else startWithApplication(token);

/** @param {string} token */
function startWithApplication(token) {
  const client = connect(socketAddress.href, { token, getToken });
  client.addEventListener("connected", showName);
  measureClock().catch(() => {}); // without it, displayed delays are wrong by the duration of a request
  const invitation = "Both connections are open. Cut one, send ten, then resume it.";
  const map = new NodeMap();
  const onConnection = map.follow.bind(map);
  const visits = new Visits(client);
  const onPresence = visits.onPresence.bind(visits);
  openChat(client, LOBBY, { send: sendToApplication, invitation, getToken, onConnection, onPresence });
  showPollingVsPush(client);
  map.followSubscription(client.subscribe("links"), client);
}

async function startStandalone() {
  const client = connect(socketAddress.href);
  nameAnonymousVisitor(client);
  client.addEventListener("connected", showName);
  try {
    await untilConnected(client);
  } catch (error) {
    return showRefusal(/** @type {Error} */ (error).message);
  }
  const channel = await findChannel(client, LOBBY);
  const invitation = "Both connections are open. Cut the EventSource, send ten, then resume it.";
  openChat(client, channel, { send: sendOverSocket(client, channel), invitation });
}

function showName() {
  byId("visitor-name").textContent = visitor.name;
}

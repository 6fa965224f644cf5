// @ts-check
/** Who else is here: the answer once, then every join and leave. */
import { element, plural } from "./dom.js";
import { visitor } from "./identity.js";

/** @typedef {{user: string, client: string, conn_info?: any}} Info of one connection */

/**
 * @param {{list: HTMLElement, count: HTMLElement}} places
 * @param {import("../tocsin.js").Client} client @param {import("../tocsin.js").Subscription} lobby
 * @returns {() => void} draws again, for when we know more of our own connections
 */
export function showPresence({ list, count }, client, lobby) {
  /** @type {Map<string, Info>} */ let connections = new Map();

  const draw = () => {
    /** @type {Map<string, Info[]>} */ const people = new Map();
    for (const info of connections.values()) {
      const who = whoIs(info);
      people.set(who, [...(people.get(who) ?? []), info]);
    }
    list.replaceChildren(...[...people.values()].map(person));
    count.textContent = people.size ? `${people.size}` : "";
  };
  const learn = async () => {
    const { presence } = await client.presence(lobby.channel);
    connections = new Map(Object.entries(presence));
    draw();
  };
  const refused = () => {
    if (client.state === "connected") list.replaceChildren(element("li.empty", {}, "This channel does not say."));
  };
  lobby.addEventListener("subscribed", () => learn().catch(refused));
  lobby.addEventListener("join", (/** @type {any} */ { detail }) => {
    connections.set(detail.client, detail);
    draw();
  });
  lobby.addEventListener("leave", (/** @type {any} */ { detail }) => {
    connections.delete(detail.client);
    draw();
  });
  client.addEventListener("state", () => list.classList.toggle("is-stale", client.state !== "connected"));
  return draw;
}

/** What makes two connections the same person's. Without a user, only our own are known to belong together. */
const whoIs = (/** @type {Info} */ { user, client }) => user || (visitor.connections.has(client) ? "" : client);

/** What to call somebody whom no token names. @param {string} client */
export const anonymous = (client) => `anonymous ${client.slice(0, 4)}`;

/** @param {Info[]} connections of one */
function person(connections) {
  const [{ user, client, conn_info: info }] = connections;
  const isMe = user ? user === visitor.user : visitor.connections.has(client);
  const name = isMe ? visitor.name : (info?.name ?? (user || anonymous(client)));
  return element(
    "li",
    {},
    element("span.name", {}, name),
    element("span.note", {}, (isMe ? "you · " : "") + plural(connections.length, "connection")),
  );
}

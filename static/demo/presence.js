// @ts-check
/** The visitors that are present: read once after each subscribe, then updated by every join and leave. */
import { element, plural } from "./dom.js";
import { visitor } from "./visitor-session.js";

/** @typedef {{user: string, client: string, conn_info?: any}} Info of one connection */

/**
 * @param {{list: HTMLElement, count: HTMLElement}} places
 * @param {import("../tocsin.js").Client} client @param {import("../tocsin.js").Subscription} subscription
 * @param {(connections: Map<string, Info>, wasRead: boolean, read: () => Promise<void>) => void} [onChange] called with
 *   all connections, by client id; `wasRead`: not by a join or leave; `read` reads the presence again
 * @returns {() => void} draws the list again, after `visitor.connections` has changed
 */
export function showPresence({ list, count }, client, subscription, onChange = () => {}) {
  /** @type {Map<string, Info>} */ let connections = new Map();

  const draw = (wasRead = false) => {
    /** @type {Map<string, Info[]>} */ const people = new Map();
    for (const info of connections.values()) {
      const key = personKey(info);
      people.set(key, [...(people.get(key) ?? []), info]);
    }
    list.replaceChildren(...[...people.values()].map(person));
    count.textContent = people.size ? `${people.size}` : "";
    onChange(connections, wasRead, read);
  };
  const read = async () => {
    const { presence } = await client.presence(subscription.channel);
    connections = new Map(Object.entries(presence));
    draw(true);
  };
  const showUnavailable = () => {
    if (client.state === "connected") list.replaceChildren(element("li.empty", {}, "This channel has no presence."));
  };
  subscription.addEventListener("subscribed", () => read().catch(showUnavailable));
  subscription.addEventListener("join", (/** @type {any} */ { detail }) => {
    connections.set(detail.client, detail);
    draw();
  });
  subscription.addEventListener("leave", (/** @type {any} */ { detail }) => {
    connections.delete(detail.client);
    draw();
  });
  client.addEventListener("state", () => list.classList.toggle("is-stale", client.state !== "connected"));
  return draw;
}

/** Connections with the same key belong to one person. Without users, only those of this page belong together. */
const personKey = (/** @type {Info} */ { user, client }) => user || (visitor.connections.has(client) ? "" : client);

/** The name of a visitor without a token. @param {string} client */
export const anonymousName = (client) => `anonymous ${client.slice(0, 4)}`;

/** @param {Info[]} connections of one person */
function person(connections) {
  const [{ user, client, conn_info: info }] = connections;
  const isVisitor = user ? user === visitor.user : visitor.connections.has(client);
  const name = isVisitor ? visitor.name : (info?.name ?? (user || anonymousName(client)));
  return element(
    "li",
    {},
    element("span.name", {}, name),
    element("span.note", {}, (isVisitor ? "you · " : "") + plural(connections.length, "connection")),
  );
}

// @ts-check
/** Who else is here: the answer once, then every join and leave. */
import { element, plural } from "./dom.js";
import { visitor } from "./identity.js";

/**
 * @param {{list: HTMLElement, count: HTMLElement}} places
 * @param {import("../tocsin.js").Client} client @param {import("../tocsin.js").Subscription} lobby
 */
export function showPresence({ list, count }, client, lobby) {
  /** @type {Map<string, any>} */ let people = new Map();

  const draw = () => {
    const users = Map.groupBy
      ? Map.groupBy(people.values(), ({ user }) => user)
      : [...people.values()].reduce(
          (all, info) => all.set(info.user, [...(all.get(info.user) ?? []), info]),
          new Map(),
        );
    list.replaceChildren(...[...users.values()].map(person));
    count.textContent = users.size ? `${users.size}` : "";
  };
  const learn = async () => {
    const { presence } = await client.presence(lobby.channel);
    people = new Map(Object.entries(presence));
    draw();
  };
  lobby.addEventListener("subscribed", () => learn().catch(() => {}));
  lobby.addEventListener("join", (/** @type {any} */ { detail }) => {
    people.set(detail.client, detail);
    draw();
  });
  lobby.addEventListener("leave", (/** @type {any} */ { detail }) => {
    people.delete(detail.client);
    draw();
  });
  client.addEventListener("state", () => list.classList.toggle("is-stale", client.state !== "connected"));
}

/** @param {any[]} connections of one user */
function person(connections) {
  const [{ user, conn_info: info }] = connections;
  return element(
    "li",
    {},
    element("span.name", {}, info?.name ?? user),
    element("span.note", {}, (user === visitor.user ? "you · " : "") + plural(connections.length, "connection")),
  );
}

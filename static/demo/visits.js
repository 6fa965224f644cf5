// @ts-check
/**
 * Who came to the lobby and went: as lifecycle events told the application, beside what this page sees (presence, joins and
 * leaves). Each connection is a row.
 */
import { byId, element, plural } from "./dom.js";
import { visitor } from "./visitor-session.js";

/** @typedef {import("./presence.js").Info} Info */
/**
 * @typedef {{client: string, user: string, node: string, came_at: number, went_at: number | null}} Told
 *   what the application was told of a connection; milliseconds since 1970
 * @typedef {{name: string, since: number | null, until: number | null}} Seen
 *   what this page saw of it; `since` is null if it was there when the presence was read
 */

const ROW_LIMIT = 8;
const KEPT = 200; // connections
const PAUSE = 1_000; // milliseconds after which the presence is read again, if the two do not agree

export class Visits {
  /** @type {Map<string, Told>} */ #told = new Map();
  /** @type {Map<string, Seen>} */ #seen = new Map();
  #readPresence = async () => {};
  #timer = 0;
  #isRequesting = false;

  /** @param {import("../tocsin.js").Client} client */
  constructor(client) {
    this.client = client;
    const subscription = client.subscribe("visits");
    subscription.addEventListener("subscribed", (/** @type {any} */ { detail }) => detail.recovered || this.#request());
    subscription.addEventListener("gap", () => this.#request());
    subscription.addEventListener("publication", (/** @type {any} */ { detail }) => {
      this.#told.set(detail.data.client, detail.data);
      this.#draw();
    });
    client.addEventListener("state", () => this.#draw());
  }

  /**
   * @param {Map<string, Info>} connections that are present, by client id
   * @param {boolean} wasRead   they were read, so that nothing says when they came
   * @param {() => Promise<void>} read reads the presence again
   */
  onPresence(connections, wasRead, read) {
    const now = Date.now();
    this.#readPresence = read;
    for (const [client, info] of connections) {
      const known = this.#seen.get(client);
      if (known && known.until === null) continue;
      const name = info.conn_info?.name ?? info.user;
      this.#seen.set(client, { name, since: wasRead ? null : now, until: null });
    }
    for (const [client, seen] of this.#seen) {
      if (!connections.has(client)) seen.until ??= now;
    }
    this.#draw();
  }

  /** Requests the visits that were before this page. Publications that came meanwhile are newer. */
  async #request() {
    if (this.#isRequesting) return;
    this.#isRequesting = true;
    try {
      const response = await fetch("demo/visits", { cache: "no-store" });
      if (response.ok) this.#onResponse(await response.json());
    } catch {
      // the next subscribe reply leads to another request
    } finally {
      this.#isRequesting = false;
    }
  }

  /** @param {{visits: Told[], present: string[]}} view */
  #onResponse({ visits, present }) {
    for (const visit of visits) {
      const known = this.#told.get(visit.client);
      if (!known || known.went_at === null) this.#told.set(visit.client, visit);
    }
    for (const client of present) {
      if (!this.#told.has(client)) this.#told.set(client, { client, user: "", node: "", came_at: 0, went_at: null });
    }
    this.#draw();
  }

  #draw() {
    const rows = [...this.#told.keys(), ...[...this.#seen.keys()].filter((client) => !this.#told.has(client))];
    rows.sort((one, two) => this.#began(two) - this.#began(one));
    for (const client of rows.splice(KEPT)) this.#forget(client);
    byId("visits").replaceChildren(...rows.slice(0, ROW_LIMIT).map((client) => this.#row(client)));
    this.#compare();
  }

  #compare() {
    const told = [...this.#told.values()].filter(({ went_at: end }) => end === null).map(({ client }) => client);
    const seen = [...this.#seen].filter(([, { until }]) => until === null).map(([client]) => client);
    const isLive = this.client.state === "connected";
    const agree = told.length === seen.length && told.every((client) => seen.includes(client));
    this.#readAgain(isLive && !agree);
    const place = byId("visits-agreement");
    place.dataset.agree = isLive ? `${agree}` : "unknown";
    place.textContent = !isLive
      ? "This page sees nothing while its WebSocket is not connected."
      : agree
        ? `Both know ${plural(seen.length, "connection")}: they agree.`
        : `The application knows ${told.length}, this page sees ${seen.length}.`;
  }

  /**
   * Reads the presence again in a second, unless the two agree until then. For connections of a dead node, leaves are
   * published only if their user has no other connection.
   */
  #readAgain(/** @type {boolean} */ isNeeded) {
    if (!isNeeded) clearTimeout(this.#timer);
    if (isNeeded === this.#timer > 0) return;
    const read = () => {
      this.#timer = 0;
      this.#readPresence().catch(() => {}); // reading calls `onPresence`
    };
    this.#timer = isNeeded ? setTimeout(read, PAUSE) : 0;
  }

  /** When the connection came; those that were there before this page are last. @param {string} client */
  #began(client) {
    return this.#told.get(client)?.came_at ?? this.#seen.get(client)?.since ?? 0;
  }

  /** @param {string} client of which both say that it is gone */
  #forget(client) {
    if (this.#told.get(client)?.went_at === null || this.#seen.get(client)?.until === null) return;
    this.#told.delete(client);
    this.#seen.delete(client);
  }

  /** @param {string} client */
  #row(client) {
    const told = this.#told.get(client);
    const seen = this.#seen.get(client);
    const isOwn = told ? told.user === visitor.user : seen?.name === visitor.name;
    const name = isOwn ? visitor.name : (seen?.name ?? "a visitor");
    return element(
      "tr",
      { "data-client": client },
      element("th", { scope: "row" }, element("span.name", {}, name), element("code", {}, client.slice(0, 6))),
      element("td", {}, told?.node || "–"),
      element("td", { "data-by": "application" }, ...moments(told?.came_at, told?.went_at)),
      element("td", { "data-by": "page" }, ...moments(seen && (seen.since ?? 0), seen?.until)),
    );
  }
}

/**
 * When a connection came and went. @param {number | undefined} came 0: not known
 * @param {number | null | undefined} went
 */
function moments(came, went) {
  if (came === undefined) return ["–"];
  const moment = (/** @type {string} */ word, /** @type {number} */ at) =>
    element("span.moment", {}, word, " ", at ? element("time", {}, clock(at)) : "earlier");
  return went ? [moment("came", came), moment("went", went)] : [moment("came", came)];
}

/** @param {number} at milliseconds since 1970 */
const clock = (at) => new Date(at).toLocaleTimeString([], { hour12: false });

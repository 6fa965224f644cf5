// @ts-check
/** The page of a node without an application beside it (`tocsin serve --ui`): no token, and a channel to be found. */
import { visitor } from "./identity.js";
import { anonymous } from "./presence.js";

const UNKNOWN_CHANNEL = 102;
const ANONYMOUS_REFUSED = 3501; // how a server answers a connect command without a token

/** We are who the server says a connection is. @param {import("../tocsin.js").Client} client */
export function becomeAnonymous(client) {
  client.addEventListener("connected", (/** @type {any} */ { detail }) => {
    visitor.connections.add(detail.client);
    visitor.name = anonymous(detail.client);
  });
}

/**
 * Until the server has let us in; rejects with a sentence for people if it does not.
 * @param {import("../tocsin.js").Client} client
 */
export function admitted(client) {
  return new Promise((resolve, reject) => {
    client.addEventListener("connected", resolve, { once: true });
    client.addEventListener("state", (/** @type {any} */ { detail: { state, code, reason } }) => {
      if (state !== "disconnected") return;
      const advice =
        "This server lets nobody in without a token: set client.allow_anonymous = true, or use --insecure.";
      reject(new Error(code === ANONYMOUS_REFUSED ? advice : `The server closed the connection: ${reason} (${code}).`));
    });
  });
}

/**
 * The wanted channel if the server knows its namespace, or else one that needs none.
 * @param {import("../tocsin.js").Client} client @param {string} wanted
 */
export async function knownChannel(client, wanted) {
  const code = await client.history(wanted).then(
    () => 0,
    (error) => error.code,
  );
  return code === UNKNOWN_CHANNEL ? wanted.slice(wanted.indexOf(":") + 1) : wanted;
}

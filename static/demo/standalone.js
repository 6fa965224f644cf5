// @ts-check
/** The page of a node without the application (`tocsin serve --ui`): it has no token, and finds a channel. */
import { anonymousName } from "./presence.js";
import { visitor } from "./visitor-session.js";

const UNKNOWN_CHANNEL = 102;
const TOKEN_REQUIRED = 3501; // the close code after a connect command without a token

/** Names the visitor after the client id that the server assigned. @param {import("../tocsin.js").Client} client */
export function nameAnonymousVisitor(client) {
  client.addEventListener("connected", (/** @type {any} */ { detail }) => {
    visitor.connections.add(detail.client);
    visitor.name = anonymousName(detail.client);
  });
}

/**
 * Resolves once the client is connected; rejects with a sentence for people if the server refuses it.
 * @param {import("../tocsin.js").Client} client
 */
export function untilConnected(client) {
  return new Promise((resolve, reject) => {
    client.addEventListener("connected", resolve, { once: true });
    client.addEventListener("state", (/** @type {any} */ { detail: { state, code, reason } }) => {
      if (state !== "disconnected") return;
      const hint =
        "This server accepts no client without a token: set client.allow_anonymous = true, or use --insecure.";
      reject(new Error(code === TOKEN_REQUIRED ? hint : `The server closed the connection: ${reason} (${code}).`));
    });
  });
}

/**
 * The preferred channel if the server knows its namespace, otherwise the same name without a namespace.
 * @param {import("../tocsin.js").Client} client @param {string} preferred
 */
export async function findChannel(client, preferred) {
  const code = await client.history(preferred).then(
    () => 0,
    (error) => error.code,
  );
  return code === UNKNOWN_CHANNEL ? preferred.slice(preferred.indexOf(":") + 1) : preferred;
}

// @ts-check
/**
 * The two ways of saying something.
 *
 * @typedef {{data: any, position: import("./tally.js").Position | null}} Said   what was said, and where it is stored
 * @typedef {(text: string) => Promise<Said>} Say   resolves once it has been taken
 */
import { refusal } from "./advice.js";
import { serverNow, visitor } from "./identity.js";

/** A request to the application, as from any page of any web site. @type {Say} */
export async function sayToApplication(text) {
  const sent = serverNow();
  const response = await fetch("messages", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ text, sent }),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error.message);
  return { data: { text, sent, name: visitor.name, user: visitor.user }, position: answer };
}

/**
 * A publication of the visitor's own, over the WebSocket.
 * @param {import("../tocsin.js").Client} client @param {string} channel @returns {Say}
 */
export function sayOverSocket(client, channel) {
  return async (text) => {
    if (client.state !== "connected") throw new Error("the WebSocket is away, and this page sends over it");
    const data = { text, sent: serverNow(), name: visitor.name };
    await client.publish(channel, data).catch(({ code, message }) => {
      throw new Error(refusal(code, message, "publish", channel));
    });
    return { data, position: null };
  };
}

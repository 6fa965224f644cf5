// @ts-check
/**
 * Sending a message: the form, and the two ways in which a message is sent.
 *
 * @typedef {{data: any, position: import("./delivery-counter.js").Position | null}} Sent   and its place in the history
 * @typedef {(text: string) => Promise<Sent>} Send   resolves once the server has accepted the message
 */
import { duration } from "./dom.js";
import { serverNow, visitor } from "./visitor-session.js";

const PERMISSION_DENIED = 103;

/**
 * @param {{form: HTMLFormElement, sendTen: HTMLButtonElement, note: HTMLElement}} places
 * @param {Send} sendText
 */
export function connectForm({ form, sendTen, note }, sendText) {
  const input = /** @type {HTMLInputElement} */ (form.elements.namedItem("text"));

  const send = async (/** @type {string} */ text) => {
    const { data, position } = await sendText(text);
    const result = position ? `Stored as message ${position.offset}` : "Accepted by the server";
    note.textContent = `${result}, ${duration(serverNow() - data.sent)} after you sent it.`;
  };
  const attempt = async (/** @type {() => Promise<void>} */ sending) => {
    try {
      await sending();
    } catch (error) {
      note.textContent = `Not sent: ${/** @type {Error} */ (error).message}.`;
    }
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (!text) return input.focus();
    input.value = "";
    attempt(() => send(text));
  });
  sendTen.addEventListener("click", () =>
    attempt(async () => {
      sendTen.disabled = true;
      try {
        for (let number = 1; number <= 10; number++) await send(`${number} of 10`);
      } finally {
        sendTen.disabled = false;
      }
    }),
  );
}

/** A request to the application, which publishes the message. @type {Send} */
export async function sendToApplication(text) {
  const sent = serverNow();
  const response = await fetch("messages", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ text, sent }),
  });
  const body = await response.json();
  if (!response.ok) throw new Error(body.error.message);
  return { data: { text, sent, name: visitor.name, user: visitor.user }, position: body };
}

/**
 * A publication over the WebSocket, for a page without an application.
 * @param {import("../tocsin.js").Client} client @param {string} channel @returns {Send}
 */
export function sendOverSocket(client, channel) {
  return async (text) => {
    if (client.state !== "connected") throw new Error("the WebSocket is not connected, and this page sends over it");
    const data = { text, sent: serverNow(), name: visitor.name };
    await client.publish(channel, data).catch(({ code, message }) => {
      throw new Error(refusalMessage(code, message, "publish", channel));
    });
    return { data, position: null };
  };
}

/**
 * The reason for a refusal and, if a client without a token lacks a permission, the option that grants it.
 * @param {number} code @param {string} reason
 * @param {"subscribe" | "publish"} action @param {string} channel
 */
export function refusalMessage(code, reason, action, channel) {
  if (code !== PERMISSION_DENIED) return `${reason} (${code})`;
  const namespace = channel.includes(":") ? channel.slice(0, channel.indexOf(":")) : "";
  const section = namespace ? `[namespaces.${namespace}]` : "[channels]";
  return `${reason}, unless allow_${action}_for_anonymous = true is set in ${section}`;
}

// @ts-check
/** Saying something: a request to the application, as from any page of any web site. */
import { duration } from "./dom.js";
import { serverNow, visitor } from "./identity.js";

/**
 * @param {HTMLFormElement} form @param {HTMLButtonElement} sendTen @param {HTMLElement} note
 * @param {(position: {offset: number, epoch: string}, data: any) => void} stored what the log now holds
 */
export function wireComposer(form, sendTen, note, stored) {
  const input = /** @type {HTMLInputElement} */ (form.elements.namedItem("text"));

  const say = async (/** @type {string} */ text) => {
    const sent = serverNow();
    const response = await fetch("messages", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ text, sent }),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error.message);
    stored(answer, { text, sent, ...visitor });
    note.textContent = `Stored as message ${answer.offset}, ${duration(serverNow() - sent)} after you sent it.`;
  };
  const attempt = async (/** @type {() => Promise<void>} */ send) => {
    try {
      await send();
    } catch (error) {
      note.textContent = `Not sent: ${/** @type {Error} */ (error).message}`;
    }
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (!text) return input.focus();
    input.value = "";
    attempt(() => say(text));
  });
  sendTen.addEventListener("click", () =>
    attempt(async () => {
      sendTen.disabled = true;
      try {
        for (let number = 1; number <= 10; number++) await say(`${number} of 10`);
      } finally {
        sendTen.disabled = false;
      }
    }),
  );
}

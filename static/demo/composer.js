// @ts-check
/** The form in which something is said. */
import { duration } from "./dom.js";
import { serverNow } from "./identity.js";

/**
 * @param {{form: HTMLFormElement, sendTen: HTMLButtonElement, note: HTMLElement}} places
 * @param {import("./speech.js").Say} say
 */
export function wireComposer({ form, sendTen, note }, say) {
  const input = /** @type {HTMLInputElement} */ (form.elements.namedItem("text"));

  const send = async (/** @type {string} */ text) => {
    const { data, position } = await say(text);
    const taken = position ? `Stored as message ${position.offset}` : "Taken by the server";
    note.textContent = `${taken}, ${duration(serverNow() - data.sent)} after you sent it.`;
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

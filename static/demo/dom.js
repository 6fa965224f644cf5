// @ts-check
/** Creates elements, and formats numbers for people. */

/**
 * @param {string} tag may carry classes, as in `p.note`
 * @param {Object<string, any>} [properties] set on the element; `aria-…`, `role` and `for` as attributes
 * @param {(Node | string)[]} children
 * @returns {any}
 */
export function element(tag, properties = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  /** @type {any} */
  const made = document.createElement(name);
  made.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role" || key === "for") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children);
  return made;
}

/** @param {string} id @returns {any} */
export const byId = (id) => document.getElementById(id);

/** @param {number} milliseconds */
export function duration(milliseconds) {
  if (milliseconds < 1) return "< 1 ms";
  if (milliseconds < 10) return `${milliseconds.toFixed(1)} ms`;
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  return milliseconds < 60_000 ? `${(milliseconds / 1000).toFixed(1)} s` : `${Math.round(milliseconds / 60_000)} min`;
}

/** With one decimal, for countdowns. @param {number} milliseconds */
export const seconds = (milliseconds) => `${(milliseconds / 1000).toFixed(1)}\u00a0s`;

/** @param {number} milliseconds */
export function age(milliseconds) {
  const whole = Math.max(0, Math.floor(milliseconds / 1000));
  if (whole < 60) return `${whole} s`;
  return whole < 3600 ? `${Math.floor(whole / 60)} min` : `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** @param {number} bytes */
export const megabytes = (bytes) => `${Math.round(bytes / 1e6)} MB`;

/** @param {number} bytes */
export const size = (bytes) => (bytes < 1000 ? `${bytes} B` : `${(bytes / 1000).toFixed(bytes < 100_000 ? 1 : 0)} kB`);

/** @param {number} count @param {string} noun */
export const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** Highlights an element that has just changed. @param {HTMLElement} target */
export function flash(target) {
  target.classList.remove("is-fresh");
  void target.offsetWidth; // restarts the animation
  target.classList.add("is-fresh");
}

/** @param {EventTarget} target @param {string} type */
export const once = (target, type) => new Promise((resolve) => target.addEventListener(type, resolve, { once: true }));

/** @param {number} milliseconds */
export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

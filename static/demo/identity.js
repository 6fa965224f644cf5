// @ts-check
/** Who the application says we are, and what its clock says. */

const SAMPLES = 5; // of the clock; the quickest answer says most
const clock = { ahead: 0, doubt: Infinity };
/** @type {{user: string, name: string, connections: Set<string>}} `connections`: the ids that the server gave ours */
export const visitor = { user: "", name: "", connections: new Set() };

class NoApplicationError extends Error {}

/** Milliseconds since 1970 by the application's clock, as near as the quickest answer so far lets us know it. */
export const serverNow = () => performance.timeOrigin + performance.now() + clock.ahead;

/** @type {Promise<any>} */
let turn = Promise.resolve();

/** A fresh connection token. One after the other: the first answer brings the cookie that makes us one visitor. */
export function getToken() {
  turn = turn.catch(() => {}).then(ask);
  return turn;
}

/**
 * The first token, "" if the application could not give one now, or null where there is no application: a node that
 * serves the page alone knows no such address.
 * @returns {Promise<string | null>}
 */
export async function meet() {
  try {
    return await getToken();
  } catch (error) {
    return error instanceof NoApplicationError ? null : "";
  }
}

/** On the way it tells us our name and the time. */
async function ask() {
  const began = performance.timeOrigin + performance.now();
  const response = await fetch("demo/token", { cache: "no-store" });
  const ended = performance.timeOrigin + performance.now();
  if (response.status === 404) throw new NoApplicationError("there is no application here");
  if (!response.ok) throw new Error(`the application answered ${response.status}`);
  const { token, user, name, now } = await response.json();
  Object.assign(visitor, { user, name });
  compareClocks(began, now, ended);
  return token;
}

/** Asks for the time until we know it well enough. */
export async function setClock() {
  for (let sample = 0; sample < SAMPLES; sample++) await getToken();
}

/** The application looked at its clock some time between our two. Where both may be the same clock, they are. */
function compareClocks(/** @type {number} */ began, /** @type {number} */ now, /** @type {number} */ ended) {
  if (ended - began >= clock.doubt) return;
  clock.doubt = ended - began;
  clock.ahead = began <= now && now <= ended ? 0 : now - (began + ended) / 2;
}

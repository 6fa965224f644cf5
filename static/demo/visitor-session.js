// @ts-check
/** The visitor's identity, connection tokens, and the clock of the application. */

const SAMPLES = 5; // of the clock; the fastest response is the most precise
const clock = { offset: 0, uncertainty: Infinity };
/** @type {{user: string, name: string, connections: Set<string>}} `connections`: the client ids of this page */
export const visitor = { user: "", name: "", connections: new Set() };

class NoApplicationError extends Error {}

/** Milliseconds since 1970 by the application's clock, as precisely as the fastest response allows. */
export const serverNow = () => performance.timeOrigin + performance.now() + clock.offset;

/** @type {Promise<any>} */
let lastRequest = Promise.resolve();

/** Requests a connection token. Requests run one after another, because the first response sets the cookie. */
export function getToken() {
  lastRequest = lastRequest.catch(() => {}).then(requestToken);
  return lastRequest;
}

/**
 * The first token, "" if the application failed to give one, or null if there is no application: a node that serves
 * the page alone answers 404.
 * @returns {Promise<string | null>}
 */
export async function firstToken() {
  try {
    return await getToken();
  } catch (error) {
    return error instanceof NoApplicationError ? null : "";
  }
}

/** The response also contains the visitor's name and the time. */
async function requestToken() {
  const began = performance.timeOrigin + performance.now();
  const response = await fetch("demo/token", { cache: "no-store" });
  const ended = performance.timeOrigin + performance.now();
  if (response.status === 404) throw new NoApplicationError("there is no application here");
  if (!response.ok) throw new Error(`the application responded ${response.status}`);
  const { token, user, name, now } = await response.json();
  Object.assign(visitor, { user, name });
  compareClocks(began, now, ended);
  return token;
}

/** Samples the application's clock. */
export async function measureClock() {
  for (let sample = 0; sample < SAMPLES; sample++) await getToken();
}

/** The application read its clock between `began` and `ended`. If all three agree, both clocks count as the same. */
function compareClocks(/** @type {number} */ began, /** @type {number} */ now, /** @type {number} */ ended) {
  if (ended - began >= clock.uncertainty) return;
  clock.uncertainty = ended - began;
  clock.offset = began <= now && now <= ended ? 0 : now - (began + ended) / 2;
}

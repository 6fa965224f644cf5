// @ts-check
/** Changing links: plain requests to the REST resource. What comes of them, both columns learn in their own way. */

/** @typedef {import("./link-list.js").Link} Link */

export class RefusedError extends Error {}

/** @param {string} method @param {string} path @param {any} [body] @param {Object<string, string>} [headers] */
async function request(method, path, body, headers = {}) {
  const type = body && { "Content-Type": "application/json" };
  const response = await fetch(path, { method, headers: { ...type, ...headers }, body: body && JSON.stringify(body) });
  const answer = response.status === 204 ? null : await response.json();
  if (!response.ok) throw new RefusedError(answer.error.message);
  return answer;
}

/** Only if nobody else has changed it since. @param {Link} link */
const unchanged = (link) => ({ "If-Match": `"${link.version}"` });

export const desk = {
  /** @param {{title: string, url: string}} link */
  add: (link) => request("POST", "links", link),
  /** @param {Link} link @param {{title?: string, url?: string}} changes */
  edit: (link, changes) => request("PATCH", `links/${link.id}`, changes, unchanged(link)),
  /** @param {Link} link */
  remove: (link) => request("DELETE", `links/${link.id}`),
  /** Answers at once with the check that is to come. @param {Link} link */
  check: (link) => request("POST", `links/${link.id}/check`),
};

// @ts-check
/** The links as one column knows them, what it cost to learn them, and the requests that change them. */
import { serverNow } from "./visitor-session.js";

/**
 * @typedef {{id: number, url: string, title: string, verdict: string | null, version: number, changed_at: number}} Link
 * @typedef {{id: string, link_id: number, state: string, done: number, total: number, text: string}} Check
 */

/** Events: `change` {changed: ids} · `check` {check}. */
export class LinkList extends EventTarget {
  /** @type {Map<number, Link>} */ links = new Map();
  version = 0;
  requests = 0;
  bytes = 0;
  /** @type {{count: number, total: number, last: number}} */ staleness = { count: 0, total: 0, last: 0 };
  /** @type {Map<number, number>} */ #versions = new Map(); // by link id, deleted links included

  /** A response of the resource. @param {{version: number, links: Link[], deleted: any[]}} changes */
  onResponse({ version, links, deleted }) {
    const isFirst = this.version === 0;
    const changed = [...links, ...deleted].filter((link) => this.#store(link, isFirst)).map(({ id }) => id);
    this.version = Math.max(this.version, version);
    this.#emitChange(isFirst ? [] : changed);
  }

  /** One change; `version` advances only if none is skipped. @param {{version: number, link: any}} event */
  onEvent({ version, link }) {
    const isNew = this.#store(link, false);
    if (version === this.version + 1) this.version = version;
    this.#emitChange(isNew ? [link.id] : []);
  }

  /** The progress of a check. @param {Check} check */
  onCheck(check) {
    this.dispatchEvent(new CustomEvent("check", { detail: check }));
  }

  /** @param {{requests?: number, bytes?: number}} cost */
  addCost({ requests = 0, bytes = 0 }) {
    this.requests += requests;
    this.bytes += bytes;
    this.#emitChange([]);
  }

  /** @param {any} link or tombstone, which has no url @param {boolean} isFirst */
  #store(link, isFirst) {
    if ((this.#versions.get(link.id) ?? 0) >= link.version) return false;
    this.#versions.set(link.id, link.version);
    if (link.url === undefined) this.links.delete(link.id);
    else this.links.set(link.id, link);
    if (!isFirst) {
      const last = Math.max(0, serverNow() - link.changed_at);
      this.staleness = { count: this.staleness.count + 1, total: this.staleness.total + last, last };
    }
    return true;
  }

  /** @param {number[]} changed */
  #emitChange(changed) {
    this.dispatchEvent(new CustomEvent("change", { detail: { changed } }));
  }
}

class RequestError extends Error {}

/** @param {string} method @param {string} path @param {any} [body] @param {Object<string, string>} [headers] */
async function request(method, path, body, headers = {}) {
  const type = body && { "Content-Type": "application/json" };
  const response = await fetch(path, { method, headers: { ...type, ...headers }, body: body && JSON.stringify(body) });
  const content = response.status === 204 ? null : await response.json();
  if (!response.ok) throw new RequestError(content.error.message);
  return content;
}

/** Requests that change links. Both columns learn of the change in their own way. */
export const linksApi = {
  /** @param {{title: string, url: string}} link */
  add: (link) => request("POST", "links", link),
  /**
   * Fails if the link has changed since this version.
   * @param {Link} link @param {{title?: string, url?: string}} changes
   */
  edit: (link, changes) => request("PATCH", `links/${link.id}`, changes, { "If-Match": `"${link.version}"` }),
  /** @param {Link} link */
  remove: (link) => request("DELETE", `links/${link.id}`),
  /** Resolves with the check before it has begun. @param {Link} link */
  check: (link) => request("POST", `links/${link.id}/check`),
};

/**
 * The bytes of a response in HTTP/1.1: status line, headers, body.
 * @param {Response} response @param {string} body
 */
export function responseBytes(response, body) {
  let bytes =
    `HTTP/1.1 ${response.status} ${response.statusText}\r\n\r\n`.length + new TextEncoder().encode(body).length;
  response.headers.forEach((value, name) => (bytes += name.length + value.length + 4));
  return bytes;
}

/** The bytes of a WebSocket frame that a server sends (RFC 6455 §5.2). @param {string} text */
export function frameBytes(text) {
  const { length } = new TextEncoder().encode(text);
  return length + (length < 126 ? 2 : length < 65_536 ? 4 : 10);
}

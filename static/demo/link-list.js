// @ts-check
/** What one column knows of the links, how it came to know it, and how late. */
import { serverNow } from "./identity.js";

/**
 * @typedef {{id: number, url: string, title: string, verdict: string | null, version: number, changed_at: number}} Link
 * @typedef {{id: string, link_id: number, state: string, done: number, total: number, says: string}} Check
 */

/** Events: `change` {learned: ids} · `check` {check}. */
export class LinkList extends EventTarget {
  /** @type {Map<number, Link>} */ links = new Map();
  version = 0;
  requests = 0;
  bytes = 0;
  /** @type {{count: number, total: number, last: number}} */ staleness = { count: 0, total: 0, last: 0 };
  /** @type {Map<number, number>} */ #versions = new Map(); // of the deleted ones too

  /** An answer of the resource. @param {{version: number, links: Link[], deleted: any[]}} changes */
  read({ version, links, deleted }) {
    const isFirst = this.version === 0;
    const learned = [...links, ...deleted].filter((link) => this.#learn(link, isFirst)).map(({ id }) => id);
    this.version = Math.max(this.version, version);
    this.#changed(isFirst ? [] : learned);
  }

  /** News of one change; only the next in line moves our version on. @param {{version: number, link: any}} news */
  told({ version, link }) {
    const isNew = this.#learn(link, false);
    if (version === this.version + 1) this.version = version;
    this.#changed(isNew ? [link.id] : []);
  }

  /** News of a check. @param {Check} check */
  checked(check) {
    this.dispatchEvent(new CustomEvent("check", { detail: check }));
  }

  /** One more exchange. @param {{requests?: number, bytes?: number}} cost */
  spent({ requests = 0, bytes = 0 }) {
    this.requests += requests;
    this.bytes += bytes;
    this.#changed([]);
  }

  /** @param {any} link or tombstone, which has no url @param {boolean} isFirst */
  #learn(link, isFirst) {
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

  /** @param {number[]} learned */
  #changed(learned) {
    this.dispatchEvent(new CustomEvent("change", { detail: { learned } }));
  }
}

/**
 * Bytes of an answer as HTTP/1.1 writes it: status line, headers, body.
 * @param {Response} response @param {string} body
 */
export function answerBytes(response, body) {
  let bytes =
    `HTTP/1.1 ${response.status} ${response.statusText}\r\n\r\n`.length + new TextEncoder().encode(body).length;
  response.headers.forEach((value, name) => (bytes += name.length + value.length + 4));
  return bytes;
}

/** Bytes of a WebSocket frame that a server writes (RFC 6455 §5.2). @param {string} text */
export function frameBytes(text) {
  const { length } = new TextEncoder().encode(text);
  return length + (length < 126 ? 2 : length < 65_536 ? 4 : 10);
}

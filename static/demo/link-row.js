// @ts-check
/** One link in a column, with its check, its editor and its buttons. */
import { element, flash } from "./dom.js";
import { linksApi } from "./link-list.js";

/** @typedef {import("./link-list.js").Link} Link */
/** @typedef {import("./link-list.js").Check} Check */

export class LinkRow {
  /** @type {Link} */ link;

  /** @param {Link} link @param {(check: {id: string}) => void} onCheckStarted is given the check */
  constructor(link, onCheckStarted) {
    this.link = link;
    this.onCheckStarted = onCheckStarted;
    this.title = element("a", { target: "_blank", rel: "noopener noreferrer" });
    this.address = element("span.address");
    this.verdict = element("p.verdict");
    this.progress = element("progress", { hidden: true, max: 1, value: 0, "aria-label": "check" });
    this.problem = element("p.problem", { role: "alert" });
    this.shown = element(
      "div.link",
      {},
      element("p.link-name", {}, this.title, this.address),
      this.verdict,
      this.progress,
    );
    this.actions = element("div.actions", {}, ...this.#buttons());
    this.node = element("li", {}, this.shown, this.actions, this.problem);
    this.show(link, false);
  }

  /** @param {Link} link @param {boolean} isChange */
  show(link, isChange) {
    this.link = link;
    this.title.textContent = link.title;
    this.title.href = link.url;
    this.address.textContent = link.url.replace(/^https?:\/\//, "");
    this.verdict.textContent = link.verdict ?? "not checked";
    this.node.dataset.id = link.id;
    this.progress.hidden = true;
    for (const button of this.actions.children) {
      button.setAttribute("aria-label", `${button.textContent} ${link.title}`);
    }
    if (isChange) flash(this.node);
  }

  /** @param {Check} check */
  onCheck({ state, done, total, text }) {
    this.progress.hidden = state !== "running";
    Object.assign(this.progress, { max: total, value: done });
    this.verdict.textContent = text || "queued";
  }

  #buttons() {
    const button = (/** @type {string} */ text, /** @type {() => Promise<any>} */ act) =>
      element("button.button.is-small", { type: "button", onclick: () => this.#attempt(act) }, text);
    return [
      button("Check", async () => this.onCheckStarted(await linksApi.check(this.link))),
      button("Edit", async () => this.#edit()),
      button("Delete", () => linksApi.remove(this.link)),
    ];
  }

  #edit() {
    const seen = this.link; // a change by another visitor during the edit is a conflict
    const field = (/** @type {string} */ name, /** @type {any} */ properties) =>
      element(
        "label",
        {},
        element("span", {}, name),
        element("input", { required: true, autocomplete: "off", ...properties }),
      );
    const title = field("Title", { name: "title", value: seen.title, maxLength: 80 });
    const url = field("Address", { name: "url", type: "url", value: seen.url, maxLength: 500 });
    const save = element("button.button.is-small.is-primary", { type: "submit" }, "Save");
    const cancel = element("button.button.is-small", { type: "button" }, "Cancel");
    const form = element("form.editor", {}, title, url, element("div.actions", {}, save, cancel));
    const close = () => {
      form.replaceWith(this.shown, this.actions);
      this.actions.children[1].focus();
    };
    cancel.onclick = () => {
      this.problem.textContent = "";
      close();
    };
    form.onkeydown = (/** @type {KeyboardEvent} */ event) => event.key === "Escape" && cancel.click();
    form.onsubmit = (/** @type {Event} */ event) => {
      event.preventDefault();
      const changes = { title: form.elements.title.value, url: form.elements.url.value };
      this.#attempt(() => linksApi.edit(seen, changes).then(close));
    };
    this.shown.replaceWith(form);
    this.actions.remove();
    title.querySelector("input").focus();
  }

  /** @param {() => Promise<any>} act */
  async #attempt(act) {
    this.problem.textContent = "";
    try {
      await act();
    } catch (error) {
      this.problem.textContent = `Not done: ${/** @type {Error} */ (error).message}.`;
    }
  }
}

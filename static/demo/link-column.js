// @ts-check
/** A column: the links as it knows them, what they cost, and how late each change arrived. */
import { duration, element, size } from "./dom.js";
import { LinkRow } from "./link-row.js";

const FIGURES = { requests: "requests", bytes: "received", last: "last change known after", average: "on average" };

/**
 * @param {HTMLElement} place @param {import("./link-list.js").LinkList} list
 * @param {(check: {id: string}) => void} onCheckStarted
 */
export function showColumn(place, list, onCheckStarted) {
  const figures = Object.fromEntries(
    Object.keys(FIGURES).map((name) => {
      const value = element("dd", {}, "–");
      value.dataset.figure = name;
      return [name, value];
    }),
  );
  const rows = /** @type {Map<number, LinkRow>} */ (new Map());
  const items = element("ul.links");
  const empty = element("p.empty", {}, "No links yet.");
  place.append(
    element(
      "dl.figures",
      {},
      ...Object.entries(FIGURES).map(([name, words]) => element("div", {}, element("dt", {}, words), figures[name])),
    ),
    items,
    empty,
  );

  const drawFigures = () => {
    const { count, total, last } = list.staleness;
    figures.requests.textContent = list.requests.toLocaleString("en");
    figures.bytes.textContent = size(list.bytes);
    figures.last.textContent = count ? duration(last) : "–";
    figures.average.textContent = count ? duration(total / count) : "–";
  };
  const drawLinks = (/** @type {number[]} */ changed) => {
    for (const [id, row] of rows) {
      if (list.links.has(id)) continue;
      rows.delete(id);
      row.node.remove();
    }
    for (const link of [...list.links.values()].sort((one, other) => one.id - other.id)) {
      const row = rows.get(link.id);
      if (!row) addRow(link, changed.includes(link.id));
      else if (row.link !== link) row.show(link, changed.includes(link.id));
    }
    empty.hidden = rows.size > 0;
  };
  const addRow = (/** @type {any} */ link, /** @type {boolean} */ isChange) => {
    const row = new LinkRow(link, onCheckStarted);
    rows.set(link.id, row);
    items.append(row.node);
    if (isChange) row.show(link, true);
  };

  list.addEventListener("change", (/** @type {any} */ { detail }) => {
    drawFigures();
    drawLinks(detail.changed);
  });
  list.addEventListener("check", (/** @type {any} */ { detail }) => rows.get(detail.link_id)?.onCheck(detail));
}

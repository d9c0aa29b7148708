/**
 * What came over the stream, newest first: each offset once and none left out.
 *
 * @typedef {import("./store.js").Entry} Entry
 * @typedef {import("./api.js").Stream} Stream
 */

import { byId, element } from "./dom.js";

const MOST_LINES = 200;

export class ActivityView {
  #list = byId("activity", HTMLOListElement);
  #empty = byId("activity-empty", HTMLElement);

  constructor() {
    this.#list.replaceChildren();
    this.#empty.hidden = false;
  }

  /** @param {Entry} entry */
  add({ offset, type, order, outcome }) {
    const what = order === null ? "" : `#${order.number} v${order.version}`;
    const note = outcome === "known" ? " · known already" : "";
    const data = { "data-offset": `${offset}`, "data-outcome": outcome, "data-order": order?.id ?? "" };
    this.#push(data, element("span", { class: "offset" }, `${offset}`), type, element("small", {}, what + note));
  }

  /** Orders were loaded; publications count on from the stream's position then. @param {Stream} stream */
  loaded({ offset, epoch }) {
    const data = { "data-loaded": `${offset}`, "data-epoch": epoch };
    this.#push(data, element("span", { class: "offset" }, `${offset}`), "loaded", element("small", {}, "state from REST"));
  }

  /** @param {Record<string, string>} data @param {...(Node | string)} content */
  #push(data, ...content) {
    this.#empty.hidden = true;
    this.#list.prepend(element("li", data, ...content));
    if (this.#list.childElementCount > MOST_LINES) this.#list.lastElementChild?.remove();
  }
}

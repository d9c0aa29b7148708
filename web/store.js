/**
 * The orders on the page and the position in the stream that they go with.
 *
 * REST gives position and orders together, the orders possibly ahead of the position, never behind. From there every
 * publication is taken in order, exactly once; an order is replaced by a newer version only.
 *
 * @typedef {import("./api.js").Order} Order
 * @typedef {import("./api.js").OrderPage} OrderPage
 * @typedef {import("./api.js").Stream} Stream
 * @typedef {import("./connection.js").Publication} Publication
 * @typedef {"applied" | "known" | "other"} Outcome `known`: we had this version already; `other`: not about an order
 * @typedef {{offset: number, type: string, order: Order | null, outcome: Outcome}} Entry
 */

const MOST_ORDERS = 2_000;

/** A publication is missing: ask for it again from where we are. */
export class Gap extends Error {}

export class Store {
  /** @type {Stream | null} where we are; null until orders were loaded, and once they must be loaded again */
  position = null;
  /** @type {string | null} where the next older page begins */
  next = null;
  /** @type {Map<string, Order>} */
  #orders = new Map();
  /** Orders with a smaller number are not on the page: they come with older pages. */
  #horizon = 0;
  #isLoadingOlder = false;
  #epoch = "";
  #onOrder;
  #onEntry;
  #onForgotten;

  /**
   * @param {{
   *   order: (order: Order, isNews: boolean) => void, forgotten: (id: string) => void, entry: (entry: Entry) => void
   * }} listener
   */
  constructor({ order, forgotten, entry }) {
    this.#onOrder = order;
    this.#onForgotten = forgotten;
    this.#onEntry = entry;
  }

  /** Start over from the newest page. @param {OrderPage} page */
  replace(page) {
    const isFirst = this.#orders.size === 0;
    const isSameHistory = this.#epoch === page.stream.epoch;
    const loaded = new Map(page.items.map((order) => [order.id, order]));
    for (const id of [...this.#orders.keys()]) if (!loaded.has(id)) this.#forget(id);
    this.#horizon = this.#edge(page);
    this.next = page.next;
    this.#epoch = page.stream.epoch;
    this.position = page.stream;
    for (const order of page.items) {
      // After a restored backup versions count from earlier again; within one history they only grow.
      if (!isSameHistory && this.#orders.get(order.id)?.version !== order.version) this.#orders.delete(order.id);
      this.#put(order, !isFirst);
    }
  }

  /** Load the next older page. @param {(cursor: string) => Promise<OrderPage>} load */
  async extend(load) {
    if (this.next === null || this.#isLoadingOlder) return;
    // From here on keep events of orders below the horizon: the page under way may have been read before them.
    this.#isLoadingOlder = true;
    try {
      const page = await load(this.next);
      this.#horizon = this.#edge(page);
      this.next = page.next;
      for (const order of page.items) this.#put(order, false);
    } finally {
      this.#isLoadingOlder = false;
      for (const order of [...this.#orders.values()]) if (order.number < this.#horizon) this.#forget(order.id);
    }
  }

  /** The stream may have had no epoch when we read its position. @param {string} epoch */
  adoptEpoch(epoch) {
    if (this.position) this.position = { ...this.position, epoch };
    this.#epoch = epoch;
  }

  /** Our orders can no longer be brought up to date from the stream. */
  invalidate() {
    this.position = null;
  }

  /** Take the next publication. Throws Gap. @param {Publication} publication */
  accept(publication) {
    if (!this.position) return;
    const expected = this.position.offset + 1;
    if (publication.offset < expected) return;
    if (publication.offset > expected) throw new Gap(`expected ${expected}, got ${publication.offset}`);
    this.position = { ...this.position, offset: publication.offset };
    const { type, data } = publication.data;
    const order = String(type).startsWith("order.") ? /** @type {Order} */ (data) : null;
    const outcome = order === null ? "other" : this.put(order) ? "applied" : "known";
    this.#onEntry({ offset: publication.offset, type: String(type), order, outcome });
  }

  /** An order as REST or an event tells it; false if it is no news. @param {Order} order */
  put(order) {
    return this.#put(order, true);
  }

  /** @param {Order} order @param {boolean} isNews */
  #put(order, isNews) {
    const present = this.#orders.get(order.id);
    if (present && present.version >= order.version) return false;
    if (order.number < this.#horizon && !this.#isLoadingOlder) return true;
    this.#orders.set(order.id, order);
    this.#onOrder(order, isNews);
    if (this.#orders.size > MOST_ORDERS) this.#trim();
    return true;
  }

  #trim() {
    const oldest = [...this.#orders.values()].reduce((least, order) => (order.number < least.number ? order : least));
    this.#horizon = oldest.number + 1;
    this.next = null;
    this.#forget(oldest.id);
  }

  /** @param {string} id */
  #forget(id) {
    this.#orders.delete(id);
    this.#onForgotten(id);
  }

  /** @param {OrderPage} page the smallest number that is on the page now; 0 where nothing older exists */
  #edge(page) {
    return page.next === null ? 0 : Math.min(...page.items.map((order) => order.number));
  }
}

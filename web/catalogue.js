/**
 * The products on the page, kept as they are: loaded over REST, from there by the publications of `products:all`. A
 * product is replaced by a newer version only, so it does no harm to hear of one twice.
 *
 * @typedef {import("./api.js").Api} Api
 * @typedef {import("./api.js").Product} Product
 * @typedef {import("./api.js").Stream} Stream
 * @typedef {import("./connection.js").Publication} Publication
 * @typedef {import("./connection.js").SubscribeResult} SubscribeResult
 */

export const CHANNEL = "products:all";

export class Catalogue {
  /** @type {Stream | null} from where on we have to hear what changes; null until products were loaded */
  position = null;
  /** @type {Map<string, Product>} */
  #products = new Map();
  #api;
  #onChange;

  /** @param {Api} api @param {(products: Product[]) => void} onChange called with all of them, in order of SKU */
  constructor(api, onChange) {
    this.#api = api;
    this.#onChange = onChange;
  }

  /** As REST has them now. */
  async load() {
    const { products, stream } = await this.#api.products();
    this.position ??= stream;
    this.#take(products);
  }

  /** We hear what changes again. What was missed and the stream has no longer, REST has. @param {SubscribeResult} result */
  async resumed(result) {
    if (result.recovered) for (const publication of result.publications ?? []) this.hear(publication);
    else if (result.epoch !== this.position?.epoch) this.#products.clear(); // in another history versions count anew
    // Where that fails, there is nothing to go on from: whoever connects next loads again.
    this.position = result.recovered ? { channel: CHANNEL, offset: result.offset ?? 0, epoch: result.epoch ?? "" } : null;
    if (!result.recovered) await this.load();
  }

  /** @param {Publication} publication */
  hear(publication) {
    if (this.position) this.position = { ...this.position, offset: publication.offset };
    const { type, data } = publication.data;
    if (type === "product.changed") this.#take([data]);
    else if (type === "stock.changed") this.#take(data.items);
  }

  /** @param {Product[]} products */
  #take(products) {
    let isNews = false;
    for (const product of products) {
      if ((this.#products.get(product.id)?.version ?? 0) >= product.version) continue;
      this.#products.set(product.id, product);
      isNews = true;
    }
    if (isNews) this.#onChange([...this.#products.values()].sort((one, other) => (one.sku < other.sku ? -1 : 1)));
  }
}

/**
 * Placing an order: products with quantities, the total, and the server's answer.
 *
 * @typedef {import("./api.js").Api} Api
 * @typedef {import("./api.js").Order} Order
 * @typedef {import("./api.js").Product} Product
 * @typedef {{
 *   product: Product, row: HTMLElement, name: HTMLElement, price: HTMLElement, input: HTMLInputElement, note: HTMLElement
 * }} Choice
 */

import { NoReply, Problem, newKey } from "./api.js";
import { byId, element } from "./dom.js";
import { count, money } from "./format.js";
import { showProblem } from "./problem-view.js";

const MOST_PIECES = 1_000;

export class OrderForm {
  #form = byId("order-form", HTMLFormElement);
  #list = byId("products", HTMLUListElement);
  #search = byId("product-search", HTMLInputElement);
  #total = byId("order-total", HTMLElement);
  #submit = byId("order-submit", HTMLButtonElement);
  #problem = byId("order-problem", HTMLElement);
  #done = byId("order-done", HTMLElement);
  /** @type {Choice[]} */
  #choices = [];
  #key = newKey();
  #isPlacing = false;
  #api;
  #reload;
  #onPlaced;

  /** @param {Api} api @param {() => Promise<void>} reload the products @param {(order: Order) => void} onPlaced */
  constructor(api, reload, onPlaced) {
    this.#api = api;
    this.#reload = reload;
    this.#onPlaced = onPlaced;
    this.#list.replaceChildren();
    this.#form.reset();
    this.#form.onsubmit = (event) => {
      event.preventDefault();
      void this.#place();
    };
    this.#form.onreset = () => queueMicrotask(() => this.#changed());
    this.#search.oninput = () => this.#filter();
    this.#search.onkeydown = (event) => {
      if (event.key === "Enter") event.preventDefault(); // who looks for something more has not ordered yet
    };
    this.#say(null);
    this.#changed();
  }

  async load() {
    try {
      await this.#reload();
      showProblem(this.#problem, null);
    } catch (error) {
      showProblem(this.#problem, error);
    }
  }

  /** Those for sale, with prices and stock as they are now; what was picked stays picked. @param {Product[]} products */
  show(products) {
    if (this.#choices.length === 0) this.#say(null); // what could not be loaded is here now
    const known = new Map(this.#choices.map((choice) => [choice.product.id, choice]));
    this.#choices = products
      .filter((product) => product.for_sale)
      .map((product) => this.#update(known.get(product.id) ?? this.#choice(product), product));
    const rows = this.#choices.map(({ row }) => row);
    // Who is typing goes on typing: rows that are there already stay where they are.
    for (const child of [...this.#list.children]) if (!rows.some((row) => row === child)) child.remove();
    for (const [index, row] of rows.entries()) {
      const present = this.#list.children[index] ?? null;
      if (present !== row) this.#list.insertBefore(row, present);
    }
    this.#filter();
    this.#summarize();
  }

  /** @param {Product} product @returns {Choice} */
  #choice(product) {
    const id = `quantity-${product.sku}`;
    const noteId = `note-${product.sku}`;
    const limits = { type: "number", min: "0", step: "1", inputmode: "numeric", placeholder: "0" };
    const oninput = () => this.#changed();
    const data = { "data-sku": product.sku, "aria-describedby": noteId };
    const input = element("input", { id, oninput, ...limits, ...data });
    const note = element("small", { id: noteId });
    const name = element("span", { class: "name" });
    const price = element("span", { class: "price" });
    const row = element("li", {}, element("label", { for: id }, name, note), price, input);
    return { product, row, name, price, input, note };
  }

  /** @param {Choice} choice @param {Product} product as it is now @returns {Choice} */
  #update(choice, product) {
    const { row, name, price, input } = choice;
    choice.product = product;
    name.textContent = product.name;
    price.textContent = money(product.price, product.currency);
    if (!row.classList.contains("faulty")) this.#note(choice);
    row.classList.toggle("sold-out", product.stock === 0);
    input.max = String(Math.min(MOST_PIECES, product.stock));
    return choice;
  }

  /** What is sold out is not to be picked, but what was picked of it can be taken back. @param {Choice} choice */
  #note({ product, input, note }) {
    note.textContent = stockNote(product);
    input.disabled = product.stock === 0 && !(Number(input.value) > 0);
  }

  #filter() {
    const wanted = this.#search.value.trim().toLowerCase();
    for (const { product, row, input } of this.#choices) {
      const text = `${product.name} ${product.sku}`.toLowerCase();
      row.hidden = !text.includes(wanted) && !(Number(input.value) > 0);
    }
  }

  /** What is picked differs now from what the key was made for. */
  #changed() {
    this.#key = newKey();
    for (const choice of this.#choices) {
      choice.row.classList.remove("faulty");
      this.#note(choice);
    }
    this.#summarize();
  }

  #summarize() {
    const picked = this.#picked();
    const currencies = new Set(picked.map(({ product }) => product.currency));
    const sum = picked.reduce((total, { product, input }) => total + product.price * Number(input.value), 0);
    const [currency] = currencies;
    this.#submit.disabled = this.#isPlacing || currencies.size !== 1;
    if (currency === undefined) this.#total.textContent = "Nothing picked";
    else this.#total.textContent = currencies.size === 1 ? money(sum, currency) : "Pick products of one currency";
  }

  #picked() {
    return this.#choices.filter(({ input }) => Number(input.value) > 0);
  }

  async #place() {
    const picked = this.#picked();
    const items = picked.map(({ product, input }) => ({ product_id: product.id, quantity: Number(input.value) }));
    this.#isPlacing = true;
    this.#summarize();
    this.#say(null);
    try {
      const order = await this.#api.place(items, this.#key);
      for (const { input } of this.#choices) input.value = "";
      this.#changed();
      this.#onPlaced(order);
      this.#say(null, `Order #${order.number} is placed: ${money(order.total, order.currency)}.`);
    } catch (error) {
      return this.#failed(error, picked);
    } finally {
      this.#isPlacing = false;
      this.#summarize();
    }
    await this.load();
  }

  /** @param {unknown} error @param {Choice[]} picked */
  async #failed(error, picked) {
    if (error instanceof NoReply) return this.#say(error, "It may have been placed all the same. Placing it again is safe.");
    if (error instanceof Problem && error.code === "out_of_stock") await this.load();
    this.#say(error);
    if (error instanceof Problem) for (const fault of error.faults) this.#mark(fault, picked);
  }

  /** @param {import("./api.js").Fault} fault @param {Choice[]} picked */
  #mark(fault, picked) {
    const index = /^\/items\/(\d+)/.exec(fault.pointer)?.[1];
    const wrong = index && picked[Number(index)]?.product.id;
    const choice = this.#choices.find(({ product }) => product.id === wrong);
    choice?.row.classList.add("faulty");
    if (choice) choice.note.textContent = fault.detail;
  }

  /** @param {unknown} error @param {string} [text] */
  #say(error, text = "") {
    showProblem(this.#problem, error);
    this.#done.textContent = text;
    this.#done.hidden = text === "";
  }
}

/** @param {Product} product */
function stockNote(product) {
  return product.stock === 0 ? "Sold out" : `${count(product.stock)} in stock`;
}

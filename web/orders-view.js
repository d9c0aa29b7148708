/**
 * The table of orders, newest first. Rows are changed in place and light up when they do.
 *
 * @typedef {import("./api.js").Account} Account
 * @typedef {import("./api.js").Order} Order
 * @typedef {"place" | "checkout" | "pay" | "pack" | "ship" | "deliver" | "return" | "refund" | "cancel"} Action
 */

import { byId, element } from "./dom.js";
import { clock, fullMoment, itemList, itemSummary, money } from "./format.js";
import { showProblem } from "./problem-view.js";

const LIT = 2_500; // ms; the same as the animation in style.css
const CONFIRM_WITHIN = 4_000;

const LABELS = Object.freeze({
  place: "Place",
  checkout: "Pay",
  pay: "Mark paid",
  pack: "Pack",
  ship: "Ship",
  deliver: "Deliver",
  return: "Take back",
  refund: "Refund",
  cancel: "Cancel",
});
const FINAL = Object.freeze(["cancel", "refund", "return"]);
const STAFF_ACTIONS = Object.freeze({
  draft: ["place", "cancel"],
  placed: ["pay", "cancel"],
  payment_failed: ["pay", "cancel"],
  paid: ["pack", "cancel"],
  packed: ["ship", "cancel"],
  shipped: ["deliver"],
  delivered: ["return"],
  returned: ["refund"],
  cancelled: [],
  expired: [],
  refunded: [],
});
const CUSTOMER_ACTIONS = Object.freeze({
  draft: ["place", "cancel"],
  placed: ["checkout", "cancel"],
  payment_failed: ["checkout", "cancel"],
});

export class OrdersView {
  #table = byId("orders", HTMLTableElement);
  #body = byId("orders-body", HTMLTableSectionElement);
  #empty = byId("orders-empty", HTMLElement);
  #count = byId("orders-count", HTMLElement);
  #older = byId("orders-older", HTMLButtonElement);
  #problem = byId("orders-problem", HTMLElement);
  /** @type {Map<string, {row: HTMLTableRowElement, number: number, timer: number}>} */
  #rows = new Map();
  #account;
  #act;

  /**
   * @param {Account} account whose page it is
   * @param {(orderId: string, action: Action) => Promise<void>} act
   * @param {() => Promise<void>} loadOlder
   */
  constructor(account, act, loadOlder) {
    this.#account = account;
    this.#act = act;
    this.#body.replaceChildren();
    this.#older.onclick = () => void this.#guard(this.#older, loadOlder);
    showProblem(this.#problem, null);
    this.#table.hidden = this.#older.hidden = this.#empty.hidden = true;
    this.#count.textContent = "Loading";
  }

  /** @param {Order} order @param {boolean} isNews changed just now, rather than loaded */
  show(order, isNews) {
    const known = this.#rows.get(order.id);
    const row = this.#row(order);
    if (known) {
      clearTimeout(known.timer);
      const focused = document.activeElement;
      const hadFocus = known.row.contains(focused);
      known.row.replaceWith(row);
      if (hadFocus && focused instanceof HTMLElement) focusOn(row, focused.dataset.action);
    } else {
      this.#insert(row, order.number);
    }
    const timer = isNews ? this.#light(row) : 0;
    this.#rows.set(order.id, { row, number: order.number, timer });
  }

  /** @param {string} id */
  forget(id) {
    this.#rows.get(id)?.row.remove();
    this.#rows.delete(id);
  }

  /** @param {boolean} hasOlder */
  summarize(hasOlder) {
    const count = this.#rows.size;
    this.#table.hidden = count === 0;
    this.#empty.hidden = count !== 0;
    this.#older.hidden = !hasOlder;
    this.#count.textContent = count === 0 ? "" : `${count}${hasOlder ? " newest" : ""}`;
  }

  /** @param {HTMLTableRowElement} row */
  #light(row) {
    row.classList.add("changed");
    return setTimeout(() => row.classList.remove("changed"), LIT);
  }

  /** @param {HTMLTableRowElement} row @param {number} number */
  #insert(row, number) {
    // New orders belong on top and older pages at the end; only events that overtook each other belong in between.
    const last = this.#body.lastElementChild;
    if (last instanceof HTMLElement && Number(last.dataset.number) > number) return this.#body.append(row);
    const rows = /** @type {Iterable<HTMLElement>} */ (this.#body.children);
    for (const present of rows) if (Number(present.dataset.number) < number) return present.before(row);
    this.#body.append(row);
  }

  /** @param {Order} order */
  #row(order) {
    const when = new Date(order.updated_at);
    const customer = order.customer_id === this.#account.id ? "You" : order.customer_id.slice(0, 8);
    const status = element("span", { class: "chip", "data-status": order.status }, order.status.replace("_", " "));
    const time = element("time", { datetime: order.updated_at, title: fullMoment(when) }, clock(when));
    const buttons = this.#actions(order).map((action) => this.#button(order, action));
    const data = { "data-id": order.id, "data-number": `${order.number}`, "data-version": `${order.version}` };
    const attributes = { role: "row", tabindex: "-1", ...data };
    return element(
      "tr",
      attributes,
      element("th", { role: "rowheader", scope: "row", class: "number" }, `#${order.number}`),
      cell("status", status),
      cell("items", element("span", { title: itemList(order.items) }, itemSummary(order.items))),
      cell("customer", element("span", { title: `Account ${order.customer_id}` }, customer)),
      cell("total", money(order.total, order.currency)),
      cell("time", time),
      cell("version", `v${order.version}`),
      cell("actions", ...buttons),
    );
  }

  /** @param {Order} order @returns {Action[]} */
  #actions(order) {
    /** @type {Readonly<Record<string, readonly string[]>>} */
    const actions = this.#account.role === "customer" ? CUSTOMER_ACTIONS : STAFF_ACTIONS;
    return /** @type {Action[]} */ ([...(actions[order.status] ?? [])]);
  }

  /** @param {Order} order @param {Action} action */
  #button(order, action) {
    const name = `${LABELS[action]} order ${order.number}`;
    const isFinal = FINAL.includes(action);
    const kind = isFinal ? "quiet" : "";
    const attributes = { type: "button", class: kind, "aria-label": name, "data-action": action };
    const button = element("button", attributes, LABELS[action]);
    const run = () => void this.#guard(button, () => this.#act(order.id, action));
    button.addEventListener("click", isFinal ? confirmed(button, run) : run);
    return button;
  }

  /** @param {HTMLButtonElement} button @param {() => Promise<void>} work */
  async #guard(button, work) {
    if (button.ariaDisabled) return;
    button.ariaDisabled = "true"; // `disabled` would take the focus away
    showProblem(this.#problem, null);
    try {
      await work();
    } catch (error) {
      showProblem(this.#problem, error);
    } finally {
      button.ariaDisabled = null;
    }
  }
}

/** @param {string} name @param {...(Node | string)} content */
function cell(name, ...content) {
  return element("td", { role: "cell", class: name }, ...content);
}

/**
 * On the action that had the focus; where it is gone, on the row, so that nobody presses another one by mistake.
 * @param {HTMLTableRowElement} row @param {string | undefined} action
 */
function focusOn(row, action) {
  const buttons = [...row.querySelectorAll("button")];
  (buttons.find((button) => button.dataset.action === action) ?? row).focus();
}

/** What cannot be undone asks for a second click. @param {HTMLButtonElement} button @param {() => void} run */
function confirmed(button, run) {
  const { textContent: text, ariaLabel: name } = button;
  let timer = 0;
  const calm = () => {
    timer = 0;
    button.textContent = text;
    button.ariaLabel = name;
    button.classList.remove("armed");
  };
  return () => {
    if (timer) {
      clearTimeout(timer);
      calm();
      return run();
    }
    button.textContent = "Really?";
    button.ariaLabel = `Really ${name?.toLowerCase()}?`;
    button.classList.add("armed");
    timer = setTimeout(calm, CONFIRM_WITHIN);
  };
}

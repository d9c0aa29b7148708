/** The REST interface. Every method resolves with the reply's body, or rejects with a Problem or NoReply. */

import { fullJitter, pause } from "./timing.js";

/**
 * @typedef {{id: string, email: string, name: string, role: "customer" | "staff" | "admin"}} Account
 * @typedef {{access_token: string, expires_in: number, account: Account}} SignIn
 * @typedef {{id: string, sku: string, name: string, price: number, currency: string, stock: number,
 *   for_sale: boolean, version: number}} Product
 * @typedef {{product_id: string, sku: string, name: string, unit_price: number, quantity: number}} Item
 * @typedef {"draft" | "placed" | "paid" | "packed" | "shipped" | "delivered" | "cancelled" | "expired"
 *   | "payment_failed" | "returned" | "refunded"} Status
 * @typedef {{
 *   id: string, number: number, customer_id: string, status: Status, version: number, currency: string,
 *   total: number, items: Item[], created_at: string, updated_at: string, expires_at: string | null
 * }} Order
 * @typedef {{channel: string, offset: number, epoch: string}} Stream
 * @typedef {{items: Order[], next: string | null, stream: Stream}} OrderPage
 * @typedef {{pointer: string, code: string, detail: string}} Fault
 */

const ROOT = "/api/v1";
const REPLY_TIMEOUT = 10_000;
const PLACE_TRIES = 4;
const PAGE = 50;
const SANDBOX_CARD = "pm_card_visa";

/** The server answered, and said no: problem+json of RFC 9457. */
export class Problem extends Error {
  /**
   * @param {number} status
   * @param {{title?: string, detail?: string, code?: string, retryable?: boolean, errors?: Fault[], request_id?: string}} body
   * @param {number | null} retryAfter seconds
   */
  constructor(status, body, retryAfter) {
    super(body.detail || body.title || `The server answered with status ${status}.`);
    this.status = status;
    this.title = body.title ?? "";
    this.code = body.code ?? "unknown";
    this.retryable = body.retryable ?? status >= 500;
    this.faults = body.errors ?? [];
    this.requestId = body.request_id ?? "";
    this.retryAfter = retryAfter;
  }
}

/** No answer came: nobody knows whether the request had an effect. */
export class NoReply extends Error {
  constructor() {
    super("The server did not answer.");
  }
}

/** Nobody is interested any more: the session that asked has ended. */
export class Left extends Error {}

/** @param {unknown} error */
export function isWorthRetrying(error) {
  return error instanceof NoReply || (error instanceof Problem && error.retryable);
}

/** An Idempotency-Key: 128 random bits. `crypto.randomUUID` would need HTTPS on anything but loopback. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** One session's access: after `leave` nothing is sent and nothing arrives any more, retries included. */
export class Api {
  #token = "";
  #leaving = new AbortController();
  #onSignedOut;

  /** @param {() => void} onSignedOut the token that we have is not accepted any more */
  constructor(onSignedOut = () => {}) {
    this.#onSignedOut = onSignedOut;
  }

  leave() {
    this.#leaving.abort();
  }

  /** @param {string} token */
  useToken(token) {
    this.#token = token;
  }

  /** @param {string} email @param {string} password @returns {Promise<SignIn>} */
  signIn(email, password) {
    return this.#send("POST", "/auth/login", { email, password });
  }

  /** A new token for the bearer of one that is still valid. @returns {Promise<SignIn>} */
  freshToken() {
    return this.#send("POST", "/auth/token");
  }

  /** Newest first, with the stream's position from before the orders were read. @returns {Promise<OrderPage>} */
  orders(cursor = "") {
    return this.#send("GET", `/orders?limit=${PAGE}${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
  }

  /** The newest position of the stream that belongs to our orders. @returns {Promise<Stream>} */
  async head() {
    return (await this.#send("GET", "/orders?limit=1")).stream;
  }

  /** With the stream's position from before they were read. @returns {Promise<{products: Product[], stream: Stream}>} */
  async products() {
    let page = await this.#send("GET", "/products?limit=100");
    const { items: products, stream } = page;
    while (page.next) {
      page = await this.#send("GET", `/products?limit=100&cursor=${encodeURIComponent(page.next)}`);
      products.push(...page.items);
    }
    return { products, stream };
  }

  /**
   * Place an order; safe to call again with the same key and items when the outcome is not known.
   * @param {{product_id: string, quantity: number}[]} items
   * @param {string} key
   * @returns {Promise<Order>}
   */
  async place(items, key) {
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await this.#send("POST", "/orders", { items }, { "Idempotency-Key": key });
      } catch (error) {
        if (!isWorthRetrying(error) || attempt + 1 === PLACE_TRIES) throw error;
        const told = error instanceof Problem ? error.retryAfter : null;
        await pause(told === null ? fullJitter(attempt) : told * 1000, this.#leaving.signal);
      }
    }
  }

  /**
   * What a provider does to an order is heard of, as all that others do.
   * @param {string} orderId
   * @param {"checkout" | "pay" | "pack" | "ship" | "deliver" | "return" | "refund" | "cancel"} action
   * @returns {Promise<Order>}
   */
  async act(orderId, action) {
    const path = `/orders/${orderId}`;
    if (action === "checkout") await this.#send("POST", `${path}/payment`, { method: SANDBOX_CARD });
    else if (action === "refund") await this.#send("POST", `${path}/refunds`, {});
    else return this.#send("POST", `${path}/${action}`);
    return this.#send("GET", path);
  }

  /**
   * @param {string} method @param {string} path @param {unknown} [body] @param {Record<string, string>} [headers]
   * @returns {Promise<any>}
   */
  async #send(method, path, body, headers = {}) {
    if (this.#token) headers = { ...headers, Authorization: `Bearer ${this.#token}` };
    if (body !== undefined) headers = { ...headers, "Content-Type": "application/json" };
    const reply = await this.#exchange(ROOT + path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      credentials: "omit",
      signal: AbortSignal.any([AbortSignal.timeout(REPLY_TIMEOUT), this.#leaving.signal]),
    });
    if (reply.ok) return reply.body;
    if (reply.status === 401 && this.#token) this.#onSignedOut();
    throw new Problem(reply.status, reply.body ?? {}, reply.retryAfter);
  }

  /** @param {string} path @param {RequestInit} request */
  async #exchange(path, request) {
    try {
      const reply = await fetch(path, request);
      const text = await reply.text();
      const after = Number.parseFloat(reply.headers.get("Retry-After") ?? "");
      const retryAfter = Number.isFinite(after) ? after : null;
      return { ok: reply.ok, status: reply.status, body: parsed(text), retryAfter };
    } catch {
      throw this.#leaving.signal.aborted ? new Left() : new NoReply();
    }
  }
}

/** Something in between (a proxy) may answer in its own words. @param {string} text @returns {any} */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

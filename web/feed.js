/**
 * Keeps the store up to date: load, connect, subscribe from the loaded position, apply, and after every loss again
 * from where we are. It says what is true: `live` only while connected, subscribed and caught up.
 *
 * @typedef {import("./api.js").Api} Api
 * @typedef {import("./catalogue.js").Catalogue} Catalogue
 * @typedef {import("./connection.js").Loss} Loss
 * @typedef {import("./connection.js").Publication} Publication
 * @typedef {import("./connection.js").SubscribeResult} SubscribeResult
 * @typedef {import("./store.js").Store} Store
 * @typedef {(
 *   {state: "connecting"} | {state: "catching up"} | {state: "live"} |
 *   {state: "offline", since: number, retryAt: number | null, reason: string} |
 *   {state: "stopped", since: number, reason: string}
 * )} Status `since` and `retryAt` in ms since 1970; without `retryAt` no try is scheduled: it is under way, or in vain
 */

import { Problem, isWorthRetrying } from "./api.js";
import { CHANNEL as PRODUCTS } from "./catalogue.js";
import { Connection, Refused } from "./connection.js";
import { Gap } from "./store.js";
import { fullJitter, pause } from "./timing.js";

const INVALID_TOKEN = 3500;
const TOKEN_EXPIRED = 109;
const RESUBSCRIBE = 2500; // an unsubscribe push from here on means: subscribe again
const NOWHERE = Infinity;

export class Feed {
  #api;
  #store;
  #catalogue;
  #token;
  #isPersonal;
  #listener;
  /** @type {Connection | null} */
  #connection = null;
  /** The offset that the stream had when we looked: from there on we are live. */
  #goal = NOWHERE;
  #mustReload = false;
  #isStopped = false;
  #tries = 0;
  /** @type {number | null} */
  #lostAt = null;
  #wake = () => {};

  /**
   * @param {{
   *   api: Api, store: Store, catalogue: Catalogue, token: string, isPersonal: boolean,
   *   listener: {status: (status: Status) => void, reloaded: () => void, signedOut: () => void}
   * }} parts `isPersonal`: our stream is our own channel, to which the server subscribes us by itself
   */
  constructor({ api, store, catalogue, token, isPersonal, listener }) {
    this.#api = api;
    this.#store = store;
    this.#catalogue = catalogue;
    this.#token = token;
    this.#isPersonal = isPersonal;
    this.#listener = listener;
  }

  start() {
    addEventListener("offline", this.#wentOffline);
    addEventListener("online", this.#retry);
    document.addEventListener("visibilitychange", this.#checkPulse);
    this.#listener.status({ state: "connecting" });
    void this.#run();
  }

  stop() {
    this.#isStopped = true;
    removeEventListener("offline", this.#wentOffline);
    removeEventListener("online", this.#retry);
    document.removeEventListener("visibilitychange", this.#checkPulse);
    this.#connection?.drop("signed out");
    this.#wake();
  }

  /** Try at once instead of at the announced time. */
  retryNow() {
    this.#tries = 0;
    this.#wake();
  }

  /** @param {string} token a newer one of the same account */
  async useToken(token) {
    this.#token = token;
    const connection = this.#connection;
    if (connection?.isConnected) await connection.refresh(token).catch((error) => refused(connection, error));
  }

  #retry = () => this.retryNow();
  #wentOffline = () => this.#connection?.drop("this device has no network");
  #checkPulse = () => {
    if (document.visibilityState === "visible") this.#connection?.checkPulse();
  };

  async #run() {
    while (!this.#isStopped) {
      const loss = await this.#attempt();
      if (this.#isStopped) return;
      if (loss.code === INVALID_TOKEN || loss.code === TOKEN_EXPIRED) return this.#listener.signedOut();
      await this.#rest(loss);
    }
  }

  /** One try: it ends when it failed, or when what it achieved is lost again. @returns {Promise<Loss>} */
  async #attempt() {
    try {
      if (this.#store.position === null) {
        this.#store.replace(await this.#api.orders());
        this.#listener.reloaded();
      }
      return await this.#hold();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      const code = error instanceof Problem && error.status === 401 ? INVALID_TOKEN : 0;
      return { code, reason, isFinal: !isWorthRetrying(error) };
    }
  }

  /** Connect, and stay until the connection is lost. */
  async #hold() {
    const { channel } = this.#here();
    const connection = new Connection(socketUrl(), {
      connected: (subscriptions) => this.#isPersonal && this.#subscribed(connection, subscriptions[channel] ?? {}),
      subscribed: (name, result) => {
        if (name === channel) this.#subscribed(connection, result);
        else if (name === PRODUCTS) void this.#catalogue.resumed(result).catch((error) => refused(connection, error));
      },
      published: (name, publication) => {
        if (name === channel) this.#accept(connection, publication);
        else if (name === PRODUCTS) this.#catalogue.hear(publication);
      },
      unsubscribed: (name, code, reason) => {
        if (name === channel) void this.#unsubscribed(connection, code, reason);
        else if (name === PRODUCTS) connection.drop(reason);
      },
    });
    this.#connection = connection;
    this.#goal = NOWHERE;
    connection.opened().then(() => this.#join(connection));
    return await connection.closed;
  }

  /** @param {Connection} connection */
  async #join(connection) {
    const { channel, offset, epoch } = this.#here();
    try {
      await connection.connect(this.#token, this.#isPersonal ? { [channel]: { offset, epoch } } : {});
      if (!this.#isPersonal) await connection.subscribe(channel, { offset, epoch });
      if (this.#catalogue.position === null) await this.#catalogue.load();
      await connection.subscribe(PRODUCTS, this.#catalogue.position ?? { offset: 0, epoch: "" });
    } catch (error) {
      refused(connection, error);
    }
  }

  /** @param {Connection} connection @param {SubscribeResult} result */
  #subscribed(connection, result) {
    if (!result.recovered) {
      this.#store.invalidate();
      this.#mustReload = true;
      return connection.drop("more was missed than the stream still has");
    }
    this.#store.adoptEpoch(result.epoch ?? "");
    const missed = result.publications ?? [];
    if (missed.length === 0) return this.#arrive();
    this.#listener.status({ state: "catching up" });
    for (const publication of missed) this.#accept(connection, publication);
    void this.#lookAhead(connection);
  }

  /** A reply carries only the first part of a long absence; the head tells when we have it all. @param {Connection} connection */
  async #lookAhead(connection) {
    for (let attempt = 0; !connection.isLost; attempt += 1) {
      try {
        const head = await this.#api.head();
        if (connection.isLost) return;
        if (head.epoch === this.#here().epoch) {
          this.#goal = head.offset;
          return this.#checkGoal();
        }
      } catch (error) {
        if (!isWorthRetrying(error)) return refused(connection, error);
      }
      await pause(fullJitter(attempt));
    }
  }

  /** @param {Connection} connection @param {Publication} publication */
  #accept(connection, publication) {
    try {
      this.#store.accept(publication);
    } catch (error) {
      if (!(error instanceof Gap)) throw error;
      return connection.drop("a publication was missing");
    }
    this.#checkGoal();
  }

  #checkGoal() {
    if (this.#here().offset >= this.#goal) this.#arrive();
  }

  #arrive() {
    this.#goal = NOWHERE;
    this.#tries = 0;
    this.#lostAt = null;
    this.#listener.status({ state: "live" });
  }

  /** @param {Connection} connection @param {number} code @param {string} reason */
  async #unsubscribed(connection, code, reason) {
    if (code < RESUBSCRIBE) return connection.drop(reason, { isFinal: true });
    if (this.#isPersonal) return connection.drop(reason);
    this.#goal = NOWHERE;
    this.#listener.status({ state: "catching up" });
    await pause(fullJitter(this.#tries++));
    if (connection.isLost) return;
    const { channel, offset, epoch } = this.#here();
    await connection.subscribe(channel, { offset, epoch }).catch((error) => refused(connection, error));
  }

  /** Until the next try. @param {Loss} loss */
  async #rest({ reason, isFinal }) {
    if (this.#mustReload) {
      this.#mustReload = false;
      this.#listener.status({ state: "catching up" });
      return pause(fullJitter(this.#tries++));
    }
    const since = (this.#lostAt ??= Date.now());
    if (isFinal) {
      this.#listener.status({ state: "stopped", since, reason });
      return this.#sleep(NOWHERE);
    }
    const wait = navigator.onLine ? fullJitter(this.#tries++) : NOWHERE;
    const retryAt = wait === NOWHERE ? null : Date.now() + wait;
    this.#listener.status({ state: "offline", since, retryAt, reason });
    await this.#sleep(wait);
    this.#listener.status({ state: "offline", since, retryAt: null, reason: "trying now" });
  }

  /** @param {number} milliseconds @returns {Promise<void>} */
  #sleep(milliseconds) {
    return new Promise((resolve) => {
      const timer = milliseconds === NOWHERE ? undefined : setTimeout(() => this.#wake(), milliseconds);
      this.#wake = () => {
        clearTimeout(timer);
        this.#wake = () => {};
        resolve();
      };
    });
  }

  #here() {
    if (this.#store.position === null) throw new Error("orders are not loaded");
    return this.#store.position;
  }
}

/** @param {Connection | null} connection @param {unknown} error */
function refused(connection, error) {
  if (error instanceof Refused) connection?.drop(error.message, { code: error.code, isFinal: !error.isTemporary });
  else connection?.drop(error instanceof Error ? error.message : String(error), { isFinal: !isWorthRetrying(error) });
}

function socketUrl() {
  const url = new URL("/connection/websocket", location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}

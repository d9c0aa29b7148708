/**
 * The true state of the connection, in words. Only the state's name is announced to screen readers: the seconds that
 * count beside it are not.
 *
 * @typedef {import("./feed.js").Status} Status
 * @typedef {import("./api.js").Stream} Stream
 */

import { byId } from "./dom.js";
import { clock, duration } from "./format.js";

const TICK = 250;

const NAMES = Object.freeze({
  connecting: "Connecting",
  "catching up": "Catching up",
  live: "Live",
  offline: "Offline",
  stopped: "Stopped",
});

export class StatusView {
  #pill = byId("status", HTMLElement);
  #name = byId("status-name", HTMLElement);
  #detail = byId("status-detail", HTMLElement);
  #retry = byId("status-retry", HTMLButtonElement);
  #stale = byId("stale", HTMLElement);
  #stream = byId("stream", HTMLElement);
  #offset = byId("stream-offset", HTMLElement);
  #timer = 0;
  #isLoaded = false;

  /** @param {() => void} onRetry */
  constructor(onRetry) {
    this.#retry.onclick = onRetry;
    this.#offset.textContent = "";
  }

  stop() {
    clearInterval(this.#timer);
  }

  /** @param {Status} status */
  show(status) {
    clearInterval(this.#timer);
    this.#pill.dataset.state = document.body.dataset.state = status.state;
    if (this.#name.textContent !== NAMES[status.state]) this.#name.textContent = NAMES[status.state];
    this.#detail.textContent = "";
    const isAway = status.state === "offline" || status.state === "stopped";
    this.#retry.hidden = this.#stale.hidden = !isAway;
    if (!isAway) return;
    this.#stale.textContent = staleness(status, this.#isLoaded);
    this.#tick(status);
    this.#timer = setInterval(() => this.#tick(status), TICK);
  }

  /** @param {Stream} stream */
  at({ channel, offset, epoch }) {
    this.#isLoaded = true;
    this.#offset.textContent = `${channel.startsWith("#") ? "your orders" : channel} · offset ${offset}`;
    this.#stream.title = `Stream ${channel}, epoch ${epoch || "not yet begun"}`;
  }

  /** @param {Extract<Status, {since: number}>} status */
  #tick(status) {
    const retryAt = status.state === "offline" ? status.retryAt : null;
    const next = retryAt === null ? status.reason : `next try in ${duration(retryAt - Date.now())}`;
    this.#detail.textContent = `for ${duration(Date.now() - status.since)} · ${next}`;
  }
}

/** @param {Extract<Status, {since: number}>} status @param {boolean} isLoaded there is something on the page */
function staleness({ state, since }, isLoaded) {
  const known = isLoaded ? `This is what was known at ${clock(new Date(since))}.` : "The orders could not be loaded yet.";
  if (state === "stopped") return `${known} The page no longer tries to connect by itself.`;
  return `${known} ${isLoaded ? "It catches up" : "They come"} as soon as the connection is back.`;
}

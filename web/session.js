/**
 * Who is signed in on this tab, with a token that is renewed while it is valid. It survives a reload of the page, not
 * the tab.
 *
 * @typedef {import("./api.js").Account} Account
 * @typedef {import("./api.js").Api} Api
 * @typedef {import("./api.js").SignIn} SignIn
 */

import { isWorthRetrying } from "./api.js";
import { fullJitter, pause } from "./timing.js";

const KEY = "orderwire.session";
const RENEW_AFTER = 0.8; // of what is left: leaves time for tries while the token still counts

export class Session {
  #ended = false;
  #timer = 0;

  /** @param {Account} account @param {string} token @param {number} expiresAt ms since 1970 */
  constructor(account, token, expiresAt) {
    this.account = account;
    this.token = token;
    this.expiresAt = expiresAt;
  }

  /** @param {SignIn} signIn */
  static begin(signIn) {
    const session = new Session(signIn.account, signIn.access_token, Date.now() + signIn.expires_in * 1000);
    session.#keep();
    return session;
  }

  /** The session of this tab before it was reloaded, if its token still counts. @returns {Session | null} */
  static resume() {
    const kept = sessionStorage.getItem(KEY);
    if (kept === null) return null;
    const { account, token, expiresAt } = JSON.parse(kept);
    return expiresAt > Date.now() ? new Session(account, token, expiresAt) : null;
  }

  /** @param {Api} api @param {(token: string) => void} onToken */
  renew(api, onToken) {
    api.useToken(this.token);
    this.#timer = setTimeout(() => void this.#fetch(api, onToken), (this.expiresAt - Date.now()) * RENEW_AFTER);
  }

  end() {
    this.#ended = true;
    clearTimeout(this.#timer);
    sessionStorage.removeItem(KEY);
  }

  /** @param {Api} api @param {(token: string) => void} onToken */
  async #fetch(api, onToken) {
    for (let attempt = 0; !this.#ended; attempt += 1) {
      try {
        const fresh = await api.freshToken();
        if (this.#ended) return;
        this.token = fresh.access_token;
        this.expiresAt = Date.now() + fresh.expires_in * 1000;
        this.#keep();
        onToken(this.token);
        return this.renew(api, onToken);
      } catch (error) {
        // Anything else than an outage ends in the next request's 401, and so at the sign-in.
        if (!isWorthRetrying(error)) return;
        await pause(fullJitter(attempt));
      }
    }
  }

  #keep() {
    const { account, token, expiresAt } = this;
    sessionStorage.setItem(KEY, JSON.stringify({ account, token, expiresAt }));
  }
}

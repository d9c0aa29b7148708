/** Signing in: with an e-mail address and a password, or as a demo account with one click. */

import { Problem } from "./api.js";
import { byId, element } from "./dom.js";
import { showProblem } from "./problem-view.js";

const DEMO_PASSWORD = "orderwire-demo";
const DEMO_ACCOUNTS = [
  { email: "customer@example.com", role: "Customer", text: "Places orders and follows them" },
  { email: "staff@example.com", role: "Staff", text: "Sees every order and moves it on" },
  { email: "admin@example.com", role: "Admin", text: "May do everything that staff may" },
];

export class SignInView {
  #page = byId("sign-in", HTMLElement);
  #form = byId("sign-in-form", HTMLFormElement);
  #email = byId("email", HTMLInputElement);
  #password = byId("password", HTMLInputElement);
  #problem = byId("sign-in-problem", HTMLElement);
  #notice = byId("sign-in-notice", HTMLElement);
  #demo = byId("demo-accounts", HTMLElement);
  #signIn;

  /** @param {(email: string, password: string) => Promise<void>} signIn */
  constructor(signIn) {
    this.#signIn = signIn;
    this.#demo.append(...DEMO_ACCOUNTS.map((account) => this.#demoButton(account)));
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#try(this.#email.value, this.#password.value);
    });
  }

  /** @param {string} notice why we are here again, "" at first */
  show(notice = "") {
    this.#notice.textContent = notice;
    this.#notice.hidden = notice === "";
    showProblem(this.#problem, null);
    this.#password.value = "";
    this.#page.hidden = false;
  }

  hide() {
    this.#page.hidden = true;
  }

  /** @param {{email: string, role: string, text: string}} account */
  #demoButton({ email, role, text }) {
    const onclick = () => void this.#try(email, DEMO_PASSWORD, true);
    const lines = [element("strong", {}, role), element("span", {}, text)];
    return element("li", {}, element("button", { type: "button", class: "demo-account", onclick }, ...lines));
  }

  /** @param {string} email @param {string} password */
  async #try(email, password, isDemo = false) {
    if (this.#page.ariaBusy === "true") return;
    this.#busy(true);
    showProblem(this.#problem, null);
    try {
      await this.#signIn(email, password);
    } catch (error) {
      showProblem(this.#problem, isDemo ? withoutDemo(error) : error);
      if (!isDemo) this.#password.select();
    } finally {
      this.#busy(false);
    }
  }

  /** @param {boolean} isBusy */
  #busy(isBusy) {
    // `disabled` would take the focus away.
    for (const button of this.#page.querySelectorAll("button")) button.ariaDisabled = String(isBusy);
    this.#page.ariaBusy = String(isBusy);
  }
}

/** @param {unknown} error */
function withoutDemo(error) {
  if (!(error instanceof Problem && error.status === 401)) return error;
  const body = { title: "This server has no demo accounts.", detail: "They come with: orderwire serve --demo" };
  return new Problem(401, { ...body, code: error.code, request_id: error.requestId }, null);
}

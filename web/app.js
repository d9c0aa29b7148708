/** Puts the page together: a sign-in, then a dashboard for as long as somebody is signed in. */

import { ActivityView } from "./activity-view.js";
import { Api } from "./api.js";
import { Catalogue } from "./catalogue.js";
import { byId } from "./dom.js";
import { Feed } from "./feed.js";
import { OrderForm } from "./order-form.js";
import { OrdersView } from "./orders-view.js";
import { Session } from "./session.js";
import { SignInView } from "./sign-in-view.js";
import { StatusView } from "./status-view.js";
import { Store } from "./store.js";

const dashboard = byId("dashboard", HTMLElement);
const account = byId("account", HTMLElement);

/** @type {() => void} */
let leave = () => {};

const signIn = new SignInView(async (email, password) => enter(Session.begin(await new Api().signIn(email, password))));
const expire = () => signOut("Your session has ended. Sign in again.");

/** @param {string} [notice] */
function signOut(notice) {
  leave();
  leave = () => {};
  dashboard.hidden = account.hidden = true;
  signIn.show(notice);
}

/** @param {Session} session */
function enter(session) {
  signIn.hide();
  const { name, role } = session.account;
  byId("account-name", HTMLElement).textContent = name;
  byId("account-role", HTMLElement).textContent = role;
  document.body.dataset.role = role;
  dashboard.hidden = account.hidden = false;
  const stop = run(session);
  leave = () => {
    stop();
    session.end();
  };
}

/** The dashboard of one session. @param {Session} session @returns {() => void} ends it */
function run(session) {
  const api = new Api(expire);
  const status = new StatusView(() => feed.retryNow());
  const activity = new ActivityView();
  const orders = new OrdersView(
    session.account,
    async (id, action) => void store.put(await api.act(id, action)),
    async () => {
      await store.extend((cursor) => api.orders(cursor));
      orders.summarize(store.next !== null);
    },
  );
  const store = new Store({
    order: (order, isNews) => {
      orders.show(order, isNews);
      orders.summarize(store.next !== null);
    },
    forgotten: (id) => orders.forget(id),
    entry: (entry) => {
      activity.add(entry);
      if (store.position) status.at(store.position);
    },
  });
  const form = new OrderForm(api, () => catalogue.load(), (order) => store.put(order));
  const catalogue = new Catalogue(api, (products) => form.show(products));
  const feed = new Feed({
    api,
    store,
    catalogue,
    token: session.token,
    isPersonal: session.account.role === "customer",
    listener: {
      status: (now) => status.show(now),
      reloaded: () => {
        if (!store.position) return;
        activity.loaded(store.position);
        status.at(store.position);
        orders.summarize(store.next !== null);
      },
      signedOut: expire,
    },
  });
  session.renew(api, (token) => void feed.useToken(token));
  feed.start();
  void form.load();
  return () => {
    api.leave();
    feed.stop();
    status.stop();
  };
}

byId("sign-out", HTMLButtonElement).addEventListener("click", () => signOut());
const resumed = Session.resume();
if (resumed) enter(resumed);
else signIn.show();

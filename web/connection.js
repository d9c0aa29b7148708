/**
 * One WebSocket connection in the JSON form of the Centrifuge protocol (docs/protocol.md): from its opening to its
 * loss, never longer. Who keeps one open is feed.js.
 *
 * @typedef {{offset: number, epoch: string}} Position
 * @typedef {{offset: number, data: any}} Publication
 * @typedef {{
 *   recoverable?: boolean, epoch?: string, offset?: number, publications?: Publication[],
 *   was_recovering?: boolean, recovered?: boolean
 * }} SubscribeResult
 * @typedef {{code: number, reason: string, isFinal: boolean}} Loss `isFinal`: trying again would end the same way
 * @typedef {{
 *   connected: (subscriptions: Record<string, SubscribeResult>) => void,
 *   subscribed: (channel: string, result: SubscribeResult) => void,
 *   published: (channel: string, publication: Publication) => void,
 *   unsubscribed: (channel: string, code: number, reason: string) => void
 * }} Listener
 */

const OPEN_TIMEOUT = 10_000;
const REPLY_TIMEOUT = 5_000;
const PING_GRACE = 10_000;

/** @param {number} code of a close frame */
function isFinal(code) {
  return (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000);
}

/** An error reply. */
export class Refused extends Error {
  /** @param {{code: number, message: string, temporary?: boolean}} error */
  constructor(error) {
    super(error.message);
    this.code = error.code;
    this.isTemporary = error.temporary === true;
  }
}

export class Connection {
  #socket;
  #listener;
  #nextId = 1;
  /** @type {Map<number, {settle: (reply: any) => void, timer: number}>} */
  #waiting = new Map();
  #pingTimeout = 25_000 + PING_GRACE;
  #mustPong = true;
  #heardPing = Date.now();
  #watchdog = 0;
  /** @type {(loss: Loss) => void} */
  #lost = () => {};
  isConnected = false;
  isLost = false;

  /** When the connection was lost, and why; never rejects. @type {Promise<Loss>} */
  closed = new Promise((resolve) => (this.#lost = resolve));

  /**
   * @param {string} url
   * @param {Listener} listener called synchronously and in the order of the wire: a publication that shares a frame
   *   with the reply before it must not overtake what the reply carries
   */
  constructor(url, listener) {
    this.#listener = listener;
    this.#socket = new WebSocket(url);
    this.#watchdog = setTimeout(() => this.drop("the server did not answer"), OPEN_TIMEOUT);
    this.#socket.onmessage = (message) => this.#read(message.data);
    this.#socket.onclose = ({ code, reason }) => this.#end(code, reason || "the connection broke", isFinal(code));
  }

  /** Resolves once commands can be sent. */
  opened() {
    return new Promise((resolve) => (this.#socket.onopen = () => resolve(undefined)));
  }

  /**
   * @param {string} token
   * @param {Record<string, Position>} known where we are in the channels that the server subscribes us to
   */
  async connect(token, known) {
    const subs = Object.fromEntries(Object.entries(known).map(([channel, at]) => [channel, { recover: true, ...at }]));
    await this.#command("connect", { token, name: "orderwire-page", subs }, (result) => {
      this.isConnected = true;
      this.#mustPong = result.pong === true;
      if (result.ping) this.#pingTimeout = result.ping * 1000 + PING_GRACE;
      this.#watch();
      this.#listener.connected(result.subs ?? {});
    });
  }

  /** @param {string} channel @param {Position} at what we have already */
  async subscribe(channel, at) {
    await this.#command("subscribe", { channel, recover: true, ...at }, (result) =>
      this.#listener.subscribed(channel, result),
    );
  }

  /** @param {string} token of the same account; replaces the one we connected with */
  async refresh(token) {
    await this.#command("refresh", { token }, () => {});
  }

  /** A laptop that slept kept its timers asleep too: look at the clock. */
  checkPulse() {
    if (Date.now() - this.#heardPing > this.#pingTimeout) this.drop("nothing was heard of the server");
  }

  /**
   * Leave at once: a browser may take long to see that a dead peer does not answer its close.
   * @param {string} reason
   * @param {{code?: number, isFinal?: boolean}} [how] `code` 0 stands for: by our own decision
   */
  drop(reason, { code = 0, isFinal = false } = {}) {
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#end(code, reason, isFinal);
  }

  /** @param {number} code @param {string} reason @param {boolean} isFinal */
  #end(code, reason, isFinal) {
    if (this.isLost) return;
    this.isLost = true;
    clearTimeout(this.#watchdog);
    for (const { timer } of this.#waiting.values()) clearTimeout(timer);
    this.#waiting.clear();
    this.#lost({ code, reason, isFinal });
  }

  /**
   * Rejects with Refused on an error reply; stays pending when the connection is lost: `closed` tells of that.
   * @param {string} method @param {object} request @param {(result: any) => void} take
   * @returns {Promise<void>}
   */
  #command(method, request, take) {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.drop("the server did not reply"), REPLY_TIMEOUT);
      const settle = (/** @type {any} */ reply) => {
        clearTimeout(timer);
        if (reply.error) return reject(new Refused(reply.error));
        take(reply[method] ?? {});
        resolve();
      };
      this.#waiting.set(id, { settle, timer });
      this.#socket.send(JSON.stringify({ id, [method]: request }));
    });
  }

  /** @param {unknown} frame */
  #read(frame) {
    if (typeof frame !== "string") return this.drop("the server sent what is not text");
    for (const line of frame.split("\n")) {
      if (line === "" || this.isLost) continue;
      try {
        this.#take(JSON.parse(line));
      } catch (error) {
        console.error(error);
        this.drop("the server sent what we cannot read");
      }
    }
  }

  /** @param {any} reply */
  #take(reply) {
    if (reply.id) {
      const waiting = this.#waiting.get(reply.id);
      this.#waiting.delete(reply.id);
      waiting?.settle(reply);
    } else if (reply.push) {
      this.#takePush(reply.push);
    } else {
      this.#pong();
    }
  }

  /** @param {any} push */
  #takePush(push) {
    if (push.pub) this.#listener.published(push.channel, push.pub);
    else if (push.unsubscribe) this.#listener.unsubscribed(push.channel, push.unsubscribe.code, push.unsubscribe.reason);
    else if (push.disconnect) this.#end(push.disconnect.code, push.disconnect.reason, isFinal(push.disconnect.code));
  }

  #pong() {
    if (this.#mustPong) this.#socket.send("{}");
    this.#watch();
  }

  #watch() {
    this.#heardPing = Date.now();
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.checkPulse(), this.#pingTimeout + 50);
  }
}

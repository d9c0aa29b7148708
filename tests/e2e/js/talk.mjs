// Does with the JavaScript SDK what it is told on a connection to its port: first a line that says as whom and where to
// connect, {form: "json" | "protobuf", address, transport?: "http_stream" | "sse", token, renewed?}, then a JSON object a
// line for each thing to do. Answers, and tells what happens. A connection is an application of its own, and ends it.
// Usage: node talk.mjs <port>

import { createServer } from "node:net";
import { createInterface } from "node:readline";
import WebSocket from "ws";

const talk = async (connection) => {
  const lines = createInterface({ input: connection })[Symbol.asyncIterator]();
  const { value: first, done: saysNothing } = await lines.next();
  if (saysNothing) return connection.end();
  const { form, address, transport, token, renewed } = JSON.parse(first);
  const { Centrifuge } = await import(form === "protobuf" ? "centrifuge/build/protobuf" : "centrifuge");
  const isText = form === "json";
  // In the Protobuf form the SDK takes and hands on payloads as bytes, an absent one as none.
  const packed = (data) => (isText ? data : new TextEncoder().encode(JSON.stringify(data)));
  const unpacked = (data) => (isText ? data : data?.length ? JSON.parse(new TextDecoder().decode(data)) : undefined);
  const say = (said) => connection.writable && connection.write(`${JSON.stringify(said)}\n`);

  const who = (info) =>
    info && { user: info.user, client: info.client, connInfo: unpacked(info.connInfo), chanInfo: unpacked(info.chanInfo) };
  const publication = ({ offset, data, info, tags }) => {
    return { offset: offset ?? 0, data: unpacked(data), info: who(info), tags };
  };

  // What a subscription tells, and the client of those that the server has made.
  const tell = (source) => {
    for (const kind of ["publication", "join", "leave", "subscribed", "unsubscribed"])
      source.on(kind, (context) => {
        const { channel, wasRecovering, recovered, code } = context;
        const movement = { info: who(context.info), wasRecovering, recovered, code };
        const told = kind === "publication" ? publication(context) : movement;
        say({ event: { kind, channel, ...told } });
      });
  };
  const renewing = (token) =>
    token && {
      getToken: async () => {
        say({ event: { kind: "renewed" } });
        return token;
      },
    };

  const base = address.replace("ws", "http").replace("/connection/websocket", "");
  const endpoint = transport ? [{ transport, endpoint: `${base}/connection/${transport}` }] : address;
  const client = new Centrifuge(endpoint, {
    token,
    emulationEndpoint: `${base}/emulation`,
    websocket: WebSocket,
    maxReconnectDelay: 1000,
    ...renewing(renewed),
  });
  client.on("connected", ({ client }) => say({ event: { kind: "connected", client } }));
  client.on("disconnected", ({ code, reason }) => say({ event: { kind: "disconnected", code, reason } }));
  tell(client);
  client.connect();

  const subscriptions = new Map();
  const on = (channel) => subscriptions.get(channel);
  const does = {
    async subscribe({ channel, renewed, loads, options }) {
      const loading = {
        getState: async () => {
          say({ event: { kind: "loaded" } });
          const { offset, epoch } = await client.history(channel, { limit: 0 });
          return { offset, epoch };
        },
      };
      const subscription = client.newSubscription(channel, { ...options, ...renewing(renewed), ...(loads && loading) });
      subscriptions.set(channel, subscription);
      tell(subscription);
      const outcome = new Promise((resolve, reject) => {
        subscription.once("subscribed", resolve);
        subscription.once("unsubscribed", reject);
      });
      subscription.subscribe();
      const { positioned, recoverable } = await outcome;
      return { positioned, recoverable };
    },
    async unsubscribe({ channel }) {
      on(channel).unsubscribe();
    },
    async publish({ channel, data }) {
      await (on(channel) ?? client).publish(...(on(channel) ? [] : [channel]), packed(data));
    },
    async presence({ channel }) {
      const { clients } = await client.presence(channel);
      return Object.values(clients).map(who);
    },
    async presenceStats({ channel }) {
      return client.presenceStats(channel);
    },
    async rpc({ method, data }) {
      return unpacked((await client.rpc(method, packed(data))).data);
    },
    async history({ channel, limit }) {
      const { publications } = await client.history(channel, { limit });
      return publications.map(publication);
    },
  };

  for await (const line of lines) {
    const { id, act, ...how } = JSON.parse(line);
    does[act](how).then(
      (result) => say({ id, result: result ?? null }),
      ({ code }) => say({ id, error: code }),
    );
  }
  client.disconnect();
  connection.end();
};

createServer({ allowHalfOpen: true }, talk).listen(Number(process.argv[2]), "127.0.0.1");

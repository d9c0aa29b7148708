// Follows a channel with the JavaScript SDK and prints what the SDK reports, one JSON object a line.
// Usage: node follow.mjs json|protobuf <websocket address> [<channel>], with the token in TOKEN; ends when its input does.
// Without a channel it listens to what the server subscribes it to. Each line of input asks for a part of the history.

import { createInterface } from "node:readline";
import WebSocket from "ws";

const [form, address, channel] = process.argv.slice(2);
const { Centrifuge } = await import(form === "protobuf" ? "centrifuge/build/protobuf" : "centrifuge");
// In the Protobuf form the SDK hands payloads on as bytes.
const payload = (data) => (form === "protobuf" ? JSON.parse(new TextDecoder().decode(data)) : data);
const client = new Centrifuge(address, { token: process.env.TOKEN, websocket: WebSocket, maxReconnectDelay: 1000 });
const followed = channel ? client.newSubscription(channel) : client;

const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);
const heard = ({ offset, data }) => ({ offset, data: payload(data) });
followed.on("subscribed", ({ wasRecovering, recovered, streamPosition }) =>
  say({ joined: { wasRecovering, recovered, epoch: streamPosition.epoch } }),
);
followed.on("publication", (publication) => say({ heard: heard(publication) }));
client.on("disconnected", ({ code, reason }) => say({ ended: { code, reason } }));

if (channel) followed.subscribe();
client.connect();
for await (const line of createInterface({ input: process.stdin })) {
  const { publications } = await followed.history(JSON.parse(line));
  say({ past: publications.map(heard) });
}
client.disconnect();

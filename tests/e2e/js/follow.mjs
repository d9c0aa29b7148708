// Follows a channel with the JavaScript SDK and prints what the SDK reports, one JSON object a line.
// Usage: node follow.mjs <websocket address> [<channel>], with the token in TOKEN; ends when its input does.
// Without a channel it listens to what the server subscribes it to.

import { Centrifuge } from "centrifuge";
import WebSocket from "ws";

const [address, channel] = process.argv.slice(2);
const client = new Centrifuge(address, { token: process.env.TOKEN, websocket: WebSocket, maxReconnectDelay: 1000 });
const followed = channel ? client.newSubscription(channel) : client;

const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);
followed.on("subscribed", ({ wasRecovering, recovered }) => say({ joined: { wasRecovering, recovered } }));
followed.on("publication", ({ offset, data }) => say({ heard: { offset, id: data.id, order: data.data } }));
client.on("disconnected", ({ code, reason }) => say({ ended: { code, reason } }));

if (channel) followed.subscribe();
client.connect();
process.stdin.resume().on("end", () => client.disconnect());

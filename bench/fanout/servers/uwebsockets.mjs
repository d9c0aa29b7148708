// uWebSockets, with its own publish/subscribe. It publishes outside of the handler: inside, the publisher's own socket
// has the one buffer in which sends are joined, and each client would get each message in a send of its own.
import uWS from 'uwebsockets';

const app = uWS.App();
const waiting = [];
const publish = () => {
  for (const message of waiting.splice(0)) app.publish('feed', message);
};
const options = { idleTimeout: 0, sendPingsAutomatically: false, maxBackpressure: 1 << 30, compression: uWS.DISABLED };
app.ws('/hear', {
  ...options,
  open: (socket) => {
    socket.subscribe('feed');
    socket.send('"ready"');
  },
});
app.ws('/publish', {
  ...options,
  open: (socket) => socket.send('"ready"'),
  message: (_socket, message) => {
    if (waiting.push(Buffer.from(message).toString()) === 1) setImmediate(publish);
  },
});
app.listen('127.0.0.1', Number(process.argv[2]), () => {});

// ws: one send for each client, as its manual shows a broadcast.
import { WebSocketServer, WebSocket } from 'ws';

const server = new WebSocketServer({ host: '127.0.0.1', port: Number(process.argv[2]), perMessageDeflate: false });
const hearing = new Set();
server.on('connection', (socket, request) => {
  if (request.url === '/hear') {
    hearing.add(socket);
    socket.on('close', () => hearing.delete(socket));
  } else {
    socket.on('message', (message) => {
      for (const client of hearing) {
        if (client.readyState === WebSocket.OPEN) client.send(message, { binary: false });
      }
    });
  }
  socket.send('"ready"');
});

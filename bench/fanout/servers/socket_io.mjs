// Socket.IO for Node.js, with a room.
import { Server } from 'socket.io';

const io = new Server(Number(process.argv[2]), { pingInterval: 600000, perMessageDeflate: false, serveClient: false });
io.on('connection', (socket) => {
  if (socket.handshake.query.hears === '1') socket.join('feed');
  socket.on('publish', (document) => io.to('feed').emit('feed', document));
});

// An upstream for real clients: WebSocket echo (npm `ws`), server-sent events, echo of bodies, refused bodies.
//
// Takes any bearer but the client's own. Prints where it is when it is ready; ends when its standard input does.
import { createHash } from 'node:crypto';
import http from 'node:http';
import { WebSocketServer } from 'ws';

const authorized = (request) => {
  const value = request.headers.authorization ?? '';
  return value.startsWith('Bearer ') && !value.includes('of-the-client');
};

let connections = 0;
const closes = [];

function echo(request, response) {
  const hash = createHash('sha256');
  let bytes = 0;
  request.on('data', (piece) => {
    hash.update(piece);
    bytes += piece.length;
  });
  request.on('end', () => {
    const answer = JSON.stringify({
      method: request.method,
      target: request.url,
      bytes,
      sha256: hash.digest('hex'),
      headers: request.headers,
      connections,
    });
    response.writeHead(200, { 'Content-Type': 'application/json' });
    response.end(answer);
  });
}

function events(response) {
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache' });
  let sent = 0;
  const timer = setInterval(() => {
    response.write(`id: ${sent}\ndata: ${Date.now()}\n\n`);
    if (++sent === 10) {
      clearInterval(timer);
      response.end();
    }
  }, 100);
}

function serve(request, response) {
  if (!authorized(request)) {
    response.writeHead(401, { 'WWW-Authenticate': 'Bearer error="invalid_token"' });
    return response.end();
  }
  const path = request.url.split('?')[0];
  if (path === '/events') return events(response);
  if (path === '/closes') {
    response.writeHead(200, { 'Content-Type': 'application/json' });
    return response.end(JSON.stringify(closes));
  }
  return echo(request, response);
}

const server = http.createServer(serve);
server.on('connection', () => (connections += 1));
server.on('checkContinue', (request, response) => {
  if (request.url === '/refuse') {
    response.writeHead(413, { 'Content-Length': '8' });
    return response.end('too long');
  }
  response.writeContinue();
  return serve(request, response);
});

const sockets = new WebSocketServer({ noServer: true, maxPayload: 64 * 1024 * 1024 });
server.on('upgrade', (request, socket, head) => {
  if (!authorized(request) || request.url === '/forbidden') {
    socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
    return;
  }
  sockets.handleUpgrade(request, socket, head, (client) => {
    client.on('message', (data, isBinary) => {
      const text = isBinary ? '' : data.toString();
      if (text.startsWith('close ')) client.close(Number(text.slice(6)), 'as asked');
      else if (text === 'ping me') client.ping('from the server');
      else client.send(data, { binary: isBinary });
    });
    client.on('pong', (data) => client.send(`pong: ${data}`));
    client.on('close', (code) => closes.push(code));
  });
});

server.listen(0, '127.0.0.1', () => {
  console.log(JSON.stringify({ origin: `http://127.0.0.1:${server.address().port}` }));
});
process.stdin.on('end', () => process.exit(0)).resume();

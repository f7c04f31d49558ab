// Node.js through the proxy of the environment, which stands in for the URL that is given. Fails loudly.
import assert from 'node:assert/strict';
import http from 'node:http';
import https from 'node:https';
import tls from 'node:tls';
import { WebSocket } from 'ws';

const base = new URL(process.argv[2]);
const proxy = new URL(process.env.https_proxy);

/// A tunnel, and TLS on it.
function tunnel() {
  return new Promise((resolve, reject) => {
    const request = http.request({
      host: proxy.hostname,
      port: proxy.port,
      method: 'CONNECT',
      path: base.host,
      headers: { Host: base.host },
    });
    request.on('connect', (answer, socket) => {
      if (answer.statusCode !== 200) return reject(new Error(`CONNECT: ${answer.statusCode}`));
      const secure = tls.connect({ socket, servername: base.hostname, ALPNProtocols: ['http/1.1'] });
      secure.once('secureConnect', () => resolve(secure)).once('error', reject);
    });
    request.on('error', reject).end();
  });
}

class Tunnelled extends https.Agent {
  createConnection(_, callback) {
    tunnel().then((socket) => callback(null, socket), callback);
  }
}

const agent = new Tunnelled({ keepAlive: true, maxSockets: 1 });

function get(path) {
  return new Promise((resolve, reject) => {
    https
      .get(new URL(path, base), { agent }, (answer) => {
        let body = '';
        answer.on('data', (piece) => (body += piece)).on('end', () => resolve({ answer, body }));
      })
      .on('error', reject);
  });
}

for (let index = 0; index < 20; index++) {
  const { answer, body } = await get(`/node/${index}`);
  assert.equal(answer.statusCode, 200);
  assert.equal(JSON.parse(body).target, `/node/${index}`);
}
const { body: events } = await get('/events');
assert.equal(events.split('\n\n').filter(Boolean).length, 10);

const socket = new WebSocket(`wss://${base.host}/socket`, { createConnection: undefined, agent: new Tunnelled() });
await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
socket.send('hello');
const [message] = await new Promise((resolve) => socket.once('message', (...all) => resolve(all)));
assert.equal(message.toString(), 'hello');
socket.close();
agent.destroy();
console.log('intercepted: node https 20 on one tunnel, 10 server-sent events, ws');
process.exit(0);

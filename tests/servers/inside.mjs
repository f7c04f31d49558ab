// Node.js: HTTP/2 to the proxy (`:method CONNECT`), TLS in a stream of it, and in that both versions of HTTP with their
// WebSockets (RFC 6455, RFC 8441). usage: node inside.mjs PROXY BASE. Fails loudly.
import assert from 'node:assert/strict';
import http2 from 'node:http2';
import https from 'node:https';
import tls from 'node:tls';
import { WebSocket } from 'ws';

const [proxy, own] = process.argv.slice(2);
const base = new URL(own);
const outside = http2.connect(proxy);

/// A stream to the upstream, and TLS on it.
async function secured(protocol) {
  const stream = outside.request({ ':method': 'CONNECT', ':authority': base.host });
  const head = await new Promise((resolve, reject) => stream.once('response', resolve).once('error', reject));
  assert.equal(head[':status'], 200);
  assert.equal(head['content-length'], undefined);
  const secure = tls.connect({ socket: stream, servername: base.hostname, ALPNProtocols: [protocol] });
  await new Promise((resolve, reject) => secure.once('secureConnect', resolve).once('error', reject));
  assert.equal(secure.alpnProtocol, protocol);
  return secure;
}

class Through extends https.Agent {
  createConnection(_, callback) {
    secured('http/1.1').then((socket) => callback(null, socket), callback);
  }
}

const own_authorization = 'Bearer of-the-client';

async function over1() {
  const agent = new Through({ keepAlive: true, maxSockets: 1 });
  for (let index = 0; index < 10; index++) {
    const body = await new Promise((resolve, reject) => {
      const request = https.request(
        new URL(`/one/${index}`, base),
        { agent, method: 'POST', headers: { Authorization: own_authorization } },
        (answer) => {
          let text = '';
          answer.on('data', (piece) => (text += piece)).on('end', () => resolve(JSON.parse(text)));
        },
      );
      request.on('error', reject).end('x'.repeat(index * 20_000));
    });
    assert.equal(body.target, `/one/${index}`);
    assert.equal(body.bytes, index * 20_000);
  }
  agent.destroy();
  console.log('inside a tunnel over HTTP/2: HTTP/1.1, 10 requests on one tunnel');
  const socket = new WebSocket(`wss://${base.host}/socket`, { agent: new Through() });
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
  const large = Buffer.alloc(1 << 19, 'y');
  for (const message of ['hello', large]) {
    socket.send(message);
    const [back] = await new Promise((resolve) => socket.once('message', (...all) => resolve(all)));
    assert.ok(Buffer.from(message).equals(back));
  }
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.close(1000);
  assert.equal(await closed, 1000);
  console.log('inside a tunnel over HTTP/2: a WebSocket over HTTP/1.1, text and 512 KiB, closed by its rules');
}

async function answer(session, fields, body) {
  const stream = session.request(fields);
  stream.end(body);
  const head = await new Promise((resolve, reject) => stream.once('response', resolve).once('error', reject));
  let text = '';
  for await (const piece of stream) text += piece;
  return { status: head[':status'], body: JSON.parse(text) };
}

async function over2() {
  const secure = await secured('h2');
  const session = http2.connect(base, { createConnection: () => secure });
  const all = Array.from({ length: 20 }, (_, index) =>
    answer(
      session,
      { ':method': 'POST', ':path': `/two/${index}`, authorization: own_authorization },
      'x'.repeat(index * 20_000),
    ),
  );
  for (const [index, { status, body }] of (await Promise.all(all)).entries()) {
    assert.equal(status, 200);
    assert.equal(body.target, `/two/${index}`);
    assert.equal(body.bytes, index * 20_000);
  }
  console.log('inside a tunnel over HTTP/2: HTTP/2, 20 requests at once');
  if (!session.remoteSettings.enableConnectProtocol) {
    await new Promise((resolve) => session.once('remoteSettings', resolve));
  }
  assert.equal(session.remoteSettings.enableConnectProtocol, true);
  const stream = session.request({
    ':method': 'CONNECT',
    ':protocol': 'websocket',
    ':scheme': 'https',
    ':authority': base.host,
    ':path': '/socket',
    'sec-websocket-version': '13',
    authorization: own_authorization,
  });
  const head = await new Promise((resolve, reject) => stream.once('response', resolve).once('error', reject));
  assert.equal(head[':status'], 200);
  // A text frame, masked with zeros (RFC 6455, 5.2); it comes back unmasked.
  stream.write(Buffer.concat([Buffer.from([0x81, 0x85, 0, 0, 0, 0]), Buffer.from('hello')]));
  let back = Buffer.alloc(0);
  while (back.length < 7) {
    back = Buffer.concat([back, await new Promise((resolve) => stream.once('data', resolve))]);
  }
  assert.deepEqual(back, Buffer.concat([Buffer.from([0x81, 5]), Buffer.from('hello')]));
  stream.close();
  console.log('inside a tunnel over HTTP/2: a WebSocket over HTTP/2 (RFC 8441)');
  session.close();
}

await over1();
await over2();
process.exit(0);

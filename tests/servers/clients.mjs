// Node's own clients and npm `ws` against the proxy at the URL that is given. Prints a figure a line; fails loudly.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import http from 'node:http';
import { once } from 'node:events';
import WebSocket from 'ws';

const base = process.argv[2];
const figures = [];

async function opened(path, options = {}) {
  const socket = new WebSocket(base.replace('http', 'ws') + path, {
    headers: { Authorization: 'Bearer of-the-client' },
    ...options,
  });
  await once(socket, 'open');
  return socket;
}

async function said(socket, data, options) {
  const answer = once(socket, 'message');
  socket.send(data, options);
  const [echoed, isBinary] = await answer;
  return [echoed, isBinary];
}

async function webSockets() {
  for (const perMessageDeflate of [false, true]) {
    const socket = await opened('/socket', { perMessageDeflate });
    const [text, isText] = await said(socket, 'grüße');
    assert.equal(text.toString(), 'grüße');
    assert.equal(isText, false);
    const [binary, isBinary] = await said(socket, Buffer.from([0, 1, 255]));
    assert.deepEqual([...binary], [0, 1, 255]);
    assert.equal(isBinary, true);
    const large = randomBytes(1 << 20);
    assert.ok((await said(socket, large))[0].equals(large));
    const whole = once(socket, 'message');
    socket.send('one ', { fin: false });
    socket.send('and ', { fin: false });
    socket.send('another', { fin: true });
    assert.equal((await whole)[0].toString(), 'one and another');
    const pong = once(socket, 'pong');
    socket.ping('from the client');
    assert.equal((await pong)[0].toString(), 'from the client');
    const answered = once(socket, 'message');
    socket.send('ping me');
    assert.equal((await answered)[0].toString(), 'pong: from the server');
    const empty = await said(socket, '');
    assert.equal(empty[0].length, 0);
    const closed = once(socket, 'close');
    socket.send('close 4321');
    const [code, reason] = await closed;
    assert.deepEqual([code, reason.toString()], [4321, 'as asked']);
  }
  const socket = await opened('/socket');
  const closed = once(socket, 'close');
  socket.close(4002, 'enough');
  assert.equal((await closed)[0], 4002);
  const closes = await (await fetch(`${base}/closes`)).json();
  assert.deepEqual(closes.slice(-1), [4002]);
  const refused = new WebSocket(`${base.replace('http', 'ws')}/forbidden`);
  const [, response] = await once(refused, 'unexpected-response');
  assert.equal(response.statusCode, 403);
  refused.on('error', () => {});
  refused.terminate();
  figures.push('ws: text, binary, 1 MiB, fragments, ping and pong both ways, close codes both ways, refusal');
}

async function events() {
  const response = await fetch(`${base}/events`);
  assert.equal(response.headers.get('content-type'), 'text/event-stream');
  const late = [];
  for await (const piece of response.body) {
    const text = Buffer.from(piece).toString();
    const sent = [...text.matchAll(/data: (\d+)/g)].map((found) => Number(found[1]));
    assert.equal(sent.length, 1, `events came together: ${text}`);
    late.push(Date.now() - sent[0]);
  }
  assert.equal(late.length, 10);
  assert.ok(Math.max(...late) < 80, `late by ${late} ms`);
  figures.push(`server-sent events: 10, each alone, late by at most ${Math.max(...late)} ms`);
}

function ask(agent, options, body) {
  return new Promise((resolve, reject) => {
    const request = http.request(base + (options.path ?? '/'), { agent, ...options }, (response) => {
      const pieces = [];
      response.on('data', (piece) => pieces.push(piece));
      response.on('end', () =>
        resolve({ status: response.statusCode, body: Buffer.concat(pieces), reused: request.reusedSocket }));
    });
    request.on('error', reject);
    request.end(body);
  });
}

async function keptAlive() {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  let reused = 0;
  for (let index = 0; index < 30; index += 1) {
    const body = index % 3 === 0 ? undefined : 'x'.repeat(index * 1000);
    const answer = await ask(agent, { method: body === undefined ? 'GET' : 'POST' }, body);
    assert.equal(answer.status, 200);
    assert.equal(JSON.parse(answer.body).bytes, body?.length ?? 0);
    reused += answer.reused ? 1 : 0;
  }
  assert.equal(reused, 29);
  agent.destroy();
  for (let index = 0; index < 20; index += 1) {
    const answer = await fetch(`${base}/fetch`, { method: 'PUT', body: new Blob(['y'.repeat(100_000)]) });
    assert.equal((await answer.json()).bytes, 100_000);
  }
  const stream = new ReadableStream({
    start(controller) {
      for (let index = 0; index < 10; index += 1) controller.enqueue(new Uint8Array(10_000));
      controller.close();
    },
  });
  const streamed = await fetch(`${base}/fetch`, { method: 'POST', body: stream, duplex: 'half' });
  assert.equal((await streamed.json()).bytes, 100_000);
  figures.push('node http and fetch: 51 requests, 29 of 30 on a kept connection');
}

await webSockets();
await events();
await keptAlive();
for (const figure of figures) console.log(figure);
process.exit(0);

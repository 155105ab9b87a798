// The npm package `ws`.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import WebSocket from 'ws';
import { eventually, start } from './gateway.mjs';

let gateway;
before(async () => { gateway = await start({ TIDEGATE_SESSIONS__HEARTBEAT: '500ms', TIDEGATE_SESSIONS__PONG_TIMEOUT: '500ms' }); });
after(async () => { assert.equal(await gateway.stop(), 0); });

/** An open socket whose messages are kept in a list. */
async function open(query, ...rest) {
  const socket = new WebSocket(`${gateway.socket}/v1/subscribe?${query}`, ...rest);
  socket.received = [];
  socket.on('message', (data, binary) => socket.received.push(binary ? data : data.toString()));
  await once(socket, 'open');
  return socket;
}

const objects = (socket, type) => socket.received.map((text) => JSON.parse(text)).filter((object) => object.type === type);

test('messages arrive in order', async () => {
  const socket = await open('channel=a');
  for (let number = 1; number <= 50; number += 1) await gateway.publish('a', number);
  await eventually('50 messages', () => objects(socket, 'message').length === 50);
  assert.deepEqual(objects(socket, 'message').map((message) => message.data), Array.from({ length: 50 }, (_, index) => index + 1));
  socket.close(1000, 'done');
  const [code] = await once(socket, 'close');
  assert.equal(code, 1000);
});

test('commands are answered with their reference', async () => {
  const socket = await open('');
  socket.send(JSON.stringify({ type: 'subscribe', channel: 'commands', ref: 1 }));
  socket.send(JSON.stringify({ type: 'publish', channel: 'commands', data: { n: 1 }, ref: 'two' }));
  socket.send(JSON.stringify({ type: 'ping', ref: 3 }));
  socket.send(JSON.stringify({ type: 'unsubscribe', channel: 'commands', ref: 4 }));
  await eventually('the last answer', () => objects(socket, 'unsubscribed').length === 1);
  const answers = socket.received.map((text) => JSON.parse(text)).filter((object) => object.type !== 'message');
  assert.deepEqual(answers.map((object) => [object.type, object.ref]), [['subscribed', 1], ['published', 'two'], ['pong', 3], ['unsubscribed', 4]]);
  socket.terminate();
});

test('raw is a plain socket, text and binary', async () => {
  const socket = await open('channel=raw&format=raw');
  socket.send('Hello Server!');
  await eventually('the greeting', () => socket.received.length === 1);
  assert.equal(socket.received[0], 'Hello Server!');
  socket.send(Buffer.from([0, 255]));
  await eventually('the bytes', () => socket.received.length === 2);
  assert.deepEqual(socket.received[1], Buffer.from([0, 255]));
  socket.terminate();
});

test('large messages are whole', async () => {
  const socket = await open('channel=large');
  await gateway.publish('large', 'x'.repeat(250_000));
  await eventually('the message', () => objects(socket, 'message').length === 1);
  assert.equal(objects(socket, 'message')[0].data.length, 250_000);
  socket.terminate();
});

test('a socket that resumes misses nothing', async () => {
  let socket = await open('channel=resume');
  let last = (await eventually('subscribed', () => objects(socket, 'subscribed')[0])).position;
  const seen = [];
  for (let round = 0; round < 5; round += 1) {
    await gateway.publish('resume', round * 2);
    await eventually('a message', () => objects(socket, 'message').length > 0);
    for (const message of objects(socket, 'message')) { seen.push(message.data); last = message.id; }
    socket.terminate();
    await gateway.publish('resume', round * 2 + 1);
    socket = await open(`channel=resume&since=${last}`);
    await eventually('what was missed', () => objects(socket, 'message').length > 0);
    for (const message of objects(socket, 'message')) { seen.push(message.data); last = message.id; }
    socket.received.length = 0;
  }
  assert.deepEqual(seen, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  socket.terminate();
});

test('pings are answered and the socket lives', async () => {
  const socket = await open('channel=idle');
  let pings = 0;
  socket.on('ping', () => { pings += 1; });
  await eventually('four pings', () => pings >= 4);
  assert.equal(socket.readyState, WebSocket.OPEN);
  socket.terminate();
});

test('a client that does not answer pings is told why it is dropped', async () => {
  const socket = await open('channel=idle', { autoPong: false });
  const [code, reason] = await once(socket, 'close');
  assert.equal(code, 4408);
  assert.match(reason.toString(), /^unresponsive( \d+)?$/);
});

test('the subprotocol is chosen', async () => {
  const socket = await open('channel=a', ['tidegate.v1', 'tidegate.token.abc']);
  assert.equal(socket.protocol, 'tidegate.v1');
  socket.terminate();
});

test('a frame that is too large gets 1009', async () => {
  const socket = await open('channel=a');
  socket.send('x'.repeat(1_000_000));
  const [code] = await once(socket, 'close');
  assert.equal(code, 1009);
});

test('a foreign origin is refused', async () => {
  const socket = new WebSocket(`${gateway.socket}/v1/subscribe?channel=a`, { origin: 'https://evil.example' });
  const [, answer] = await once(socket, 'unexpected-response');
  assert.equal(answer.statusCode, 403);
  socket.on('error', () => {}).terminate();
});

test('a drain closes with 1001 and the delay', async () => {
  const other = await start();
  const socket = new WebSocket(`${other.socket}/v1/subscribe?channel=a`);
  await once(socket, 'open');
  const closed = once(socket, 'close');
  const stopped = other.stop();
  const [code, reason] = await closed;
  assert.equal(code, 1001);
  assert.match(reason.toString(), /^shutdown \d+$/);
  assert.equal(await stopped, 0);
});

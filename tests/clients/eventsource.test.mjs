// The npm package `eventsource`, and Node's own `fetch`.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { EventSource } from 'eventsource';
import { eventually, proxyTo, start } from './gateway.mjs';

let gateway;
before(async () => { gateway = await start(); });
after(async () => { assert.equal(await gateway.stop(), 0); });

const upTo = (last) => Array.from({ length: last }, (_, index) => index + 1);

/** An event source whose messages are kept in a list; open once its channel is subscribed. */
async function open(url) {
  const source = new EventSource(url);
  source.received = [];
  source.subscribed = 0;
  source.onmessage = (event) => source.received.push(event);
  source.addEventListener('tidegate.subscribed', () => { source.subscribed += 1; });
  await eventually('subscribed', () => source.subscribed > 0);
  return source;
}

test('messages arrive in onmessage, in order', async () => {
  const source = await open(`${gateway.http}/v1/subscribe?channel=a`);
  for (const number of upTo(50)) await gateway.publish('a', number);
  await eventually('50 messages', () => source.received.length === 50);
  assert.deepEqual(source.received.map((event) => JSON.parse(event.data).data), upTo(50));
  assert.equal(source.received[49].lastEventId, JSON.parse(source.received[49].data).id);
  source.close();
});

test('raw events hold the payload alone', async () => {
  const source = await open(`${gateway.http}/v1/subscribe?channel=raw&format=raw`);
  await gateway.publish('raw', 'one\ntwo\r\n\r\nid: 9\n\nthree', { 'Content-Type': 'text/plain' });
  await eventually('a message', () => source.received.length === 1);
  assert.equal(source.received[0].data, 'one\ntwo\n\nid: 9\n\nthree');
  source.close();
});

test('a named event has its listener', async () => {
  const source = await open(`${gateway.http}/v1/subscribe?channel=named`);
  const named = [];
  source.addEventListener('created', (event) => named.push(JSON.parse(event.data)));
  await gateway.publish('named', { n: 1 }, { 'Content-Type': 'application/json', 'Tidegate-Event': 'created' });
  await eventually('the event', () => named.length === 1);
  assert.equal(named[0].event, 'created');
  assert.equal(source.received.length, 0);
  source.close();
});

test('a connection that is cut again and again loses and doubles nothing', async () => {
  const proxy = await proxyTo(gateway.publicPort);
  const source = await open(`http://127.0.0.1:${proxy.port}/v1/subscribe?channel=cut&channel=other`);
  let number = 0;
  for (let round = 0; round < 3; round += 1) {
    for (let step = 0; step < 5; step += 1) await gateway.publish('cut', number += 1);
    proxy.cut();
    for (let step = 0; step < 5; step += 1) await gateway.publish('cut', number += 1);
    await eventually('all so far', () => source.received.length >= number);
  }
  assert.deepEqual(source.received.map((event) => JSON.parse(event.data).data), upTo(number));
  source.close();
  await proxy.close();
});

test('a cut before any message loses nothing either', async () => {
  const proxy = await proxyTo(gateway.publicPort);
  const source = await open(`http://127.0.0.1:${proxy.port}/v1/subscribe?channel=fresh`);
  proxy.cut();
  await gateway.publish('fresh', 1);
  await eventually('the message', () => source.received.length === 1);
  source.close();
  await proxy.close();
});

test('a server that is full is come back to', async () => {
  const full = await start({ TIDEGATE_LIMITS__CONNECTIONS: '1' });
  const place = await open(`${full.http}/v1/subscribe?channel=a`);
  const second = new EventSource(`${full.http}/v1/subscribe?channel=a`);
  let errors = 0;
  let subscribed = false;
  second.onerror = () => { errors += 1; };
  second.addEventListener('tidegate.subscribed', () => { subscribed = true; });
  await eventually('it is turned away', () => errors > 0);
  assert.notEqual(second.readyState, 2, 'and not for ever');
  place.close();
  await eventually('it is let in', () => subscribed);
  second.close();
  assert.equal(await full.stop(), 0);
});

test('a fetch loop polls without loss', async () => {
  const seen = [];
  let cursor = '';
  let going = true;
  const poll = (async () => {
    while (going && seen.length < 100) {
      const answer = await fetch(`${gateway.http}/v1/subscribe?channel=poll&wait=5&since=${cursor}`);
      assert.equal(answer.status, 200);
      const document = await answer.json();
      assert.deepEqual(document.gaps, []);
      seen.push(...document.messages.map((message) => message.data));
      cursor = document.cursor;
    }
  })();
  await gateway.untilSubscribers('poll', 1);
  for (const number of upTo(100)) await gateway.publish('poll', number);
  await poll.finally(() => { going = false; });
  assert.deepEqual(seen, upTo(100));
});

test('fetch reads an NDJSON stream', async () => {
  const stop = new AbortController();
  const answer = await fetch(`${gateway.http}/v1/subscribe?channel=lines`, { headers: { Accept: 'application/x-ndjson' }, signal: stop.signal });
  assert.equal(answer.headers.get('content-type'), 'application/x-ndjson');
  for (const number of upTo(20)) await gateway.publish('lines', number);
  const seen = [];
  let rest = '';
  for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + piece).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      const object = JSON.parse(line);
      if (object.type === 'message') seen.push(object.data);
    }
    if (seen.length === 20) break;
  }
  stop.abort();
  assert.deepEqual(seen, upTo(20));
});

// Headless Chromium: the best-known snippets unchanged, a polling loop, and the console page.
// With TIDEGATE_SCREENSHOT=FILE the console's picture is written there.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launch } from './chromium.mjs';
import { eventually, proxyTo, start } from './gateway.mjs';

// Not a byte of it is ours but what stands for URL.
const SNIPPET = `const newEventSource = new EventSource(URL)            // messages arrive in onmessage
const socket = new WebSocket(URL);
socket.addEventListener('open', function (event) { socket.send('Hello Server!'); });
socket.addEventListener('message', function (event) { console.log('Message from server ', event.data); });
`;

let gateway;
let chromium;
const page = () => chromium.page();

before(async () => {
  gateway = await start();
  chromium = await launch();
});

after(async () => {
  await chromium?.close();
  assert.equal(await gateway.stop(), 0);
});

/** The snippet in a page, with these two addresses. */
async function snippet(query) {
  const opened = await page();
  const urls = [`${gateway.http}/v1/subscribe?${query}`, `${gateway.socket}/v1/subscribe?${query}`];
  await opened.addScriptTag({ content: SNIPPET.replace(/\bURL\b/g, () => JSON.stringify(urls.shift())) });
  await opened.addScriptTag({ content: 'const seen = []; newEventSource.onmessage = (event) => seen.push(event.data);' });
  return opened;
}

test('the snippet with format=raw: the greeting comes back as a message', async () => {
  const opened = await snippet('channel=hello&format=raw');
  await eventually('the greeting', () => opened.logged.includes('Message from server  Hello Server!'));
  await gateway.untilSubscribers('hello', 2);
  await gateway.publish('hello', 'Hello Client!', { 'Content-Type': 'text/plain' });
  await eventually('the answer', () => opened.logged.includes('Message from server  Hello Client!'));
  await eventually('onmessage', async () => (await opened.evaluate('seen')).includes('Hello Client!'));
  await opened.close();
});

test('the snippet without it: an error object comes and the socket lives', async () => {
  const opened = await snippet('channel=hello2');
  await eventually('the error', () => opened.logged.some((line) => line.startsWith('Message from server  {"type":"error"')));
  await gateway.untilSubscribers('hello2', 2);
  await gateway.publish('hello2', { n: 1 });
  const message = (line) => /"type":"message".*"data":\{"n":1\}/.test(line);
  await eventually('a message over the socket', () => opened.logged.some(message));
  await eventually('the same in onmessage', async () => (await opened.evaluate('seen')).some(message));
  assert.equal(await opened.evaluate('socket.readyState'), 1);
  await opened.close();
});

test('EventSource comes back over a cut connection without loss or double', async () => {
  const proxy = await proxyTo(gateway.publicPort);
  const opened = await page();
  await opened.evaluate((url) => {
    window.seen = [];
    window.opened = 0;
    window.source = new EventSource(url);
    window.source.onopen = () => { window.opened += 1; };
    window.source.onmessage = (event) => window.seen.push(JSON.parse(event.data).data);
  }, `http://127.0.0.1:${proxy.port}/v1/subscribe?channel=cut&channel=quiet`);
  await gateway.untilSubscribers('cut', 1);
  let number = 0;
  for (let round = 0; round < 3; round += 1) {
    for (let step = 0; step < 5; step += 1) await gateway.publish('cut', number += 1);
    proxy.cut();
    for (let step = 0; step < 5; step += 1) await gateway.publish('cut', number += 1);
    await eventually('all so far', async () => (await opened.evaluate('seen.length')) >= number);
  }
  assert.deepEqual(await opened.evaluate('seen'), Array.from({ length: number }, (_, index) => index + 1));
  assert.ok((await opened.evaluate('opened')) >= 4);
  await opened.close();
  await proxy.close();
});

test('a fetch loop in a page polls without loss', async () => {
  const opened = await page();
  await opened.evaluate((url) => {
    window.seen = [];
    window.loop = (async () => {
      let cursor = '';
      while (window.seen.length < 60) {
        const answer = await fetch(`${url}&since=${cursor}`);
        const document = await answer.json();
        window.seen.push(...document.messages.map((message) => message.data));
        cursor = document.cursor;
      }
    })();
  }, `${gateway.http}/v1/subscribe?channel=loop`);
  await gateway.untilSubscribers('loop', 1);
  for (let number = 1; number <= 60; number += 1) await gateway.publish('loop', number);
  await opened.evaluate('loop');
  assert.deepEqual(await opened.evaluate('seen'), Array.from({ length: 60 }, (_, index) => index + 1));
  await opened.close();
});

test('a page reads the status and code of a problem', async () => {
  const opened = await page();
  const [status, code] = await opened.evaluate(async (url) => {
    const answer = await fetch(url);
    return [answer.status, (await answer.json()).code];
  }, `${gateway.http}/v1/subscribe?chanel=a`);
  assert.deepEqual([status, code], [400, 'unknown_parameter']);
  await opened.close();
});

test('a page of another host gets nothing', async () => {
  const opened = await chromium.browser.newPage();
  // A page that claims to be elsewhere, without leaving this machine.
  await opened.route('http://elsewhere.example/', (route) => route.fulfill({ contentType: 'text/html', body: '<title>x</title>' }));
  await opened.goto('http://elsewhere.example/');
  const outcome = await opened.evaluate(async ([url, socketUrl]) => {
    const fetched = await fetch(url).then(() => 'served', () => 'refused');
    const socket = await new Promise((resolve) => {
      const attempt = new WebSocket(socketUrl);
      attempt.onopen = () => resolve('served');
      attempt.onerror = () => resolve('refused');
    });
    return [fetched, socket];
  }, [`${gateway.http}/v1/subscribe?channel=a&wait=0`, `${gateway.socket}/v1/subscribe?channel=a`]);
  assert.deepEqual(outcome, ['refused', 'refused']);
  await opened.close();
});

test('the console shows one POST arriving three ways', async () => {
  const opened = await chromium.browser.newPage({ viewport: { width: 1200, height: 700 } });
  const faults = [];
  opened.on('pageerror', (error) => faults.push(String(error)));
  await opened.goto(`${gateway.internal}/`);
  const channel = await opened.inputValue('#channel');
  assert.ok(channel);
  await gateway.untilSubscribers(channel, 3);
  const columns = ['#websocket', '#sse', '#poll'];
  const arrives = async (text) => {
    for (const column of columns) {
      await opened.locator(`${column} .messages`).getByText(text).first().waitFor({ timeout: 15_000 });
    }
  };
  await gateway.publish(channel, { order: 42, state: 'paid' });
  await arrives('"order":42');
  for (const text of ['Hello from the page', 'One POST, three ways']) {
    await opened.fill('#text', text);
    await opened.click('#publish');
    await arrives(text);
  }
  if (process.env.TIDEGATE_SCREENSHOT) await opened.screenshot({ path: process.env.TIDEGATE_SCREENSHOT });
  // What is published is text, never markup.
  await gateway.publish(channel, '<img src=x onerror=alert(1)>', { 'Content-Type': 'text/plain' });
  await arrives('<img src=x onerror=alert(1)>');
  assert.equal(await opened.locator('img').count(), 0);
  assert.deepEqual(faults, []);
  await opened.close();
});

// A page in Chromium against gateways behind Services: run by tests/cluster/life.py, which gives their addresses and the
// credentials on standard input. Prints each way by which a message arrived; `guide` is the page of docs/deploying.md.

import { once } from 'node:events';
import http from 'node:http';
import { json } from 'node:stream/consumers';
import { chromium } from 'playwright-core';

const { public: address, internal, key, token, page: html } = await json(process.stdin);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-proxy-server', '--disable-background-networking'],
});
try {
  const page = await browser.newPage();
  // A page of the gateways' own origin.
  await page.goto(`${address}/live`);
  await page.evaluate(async ([url, credential]) => {
    const query = `channel=page&token=${credential}`;
    const first = (target) => new Promise((resolve, reject) => {
      target.onmessage = (event) => {
        const object = JSON.parse(event.data);
        if (object.type === 'message') resolve(object.data);
      };
      target.onerror = () => reject(new Error(`${target.constructor.name} failed`));
    });
    const opened = (target) => new Promise((resolve) => { target.onopen = resolve; });
    const socket = new WebSocket(`${url.replace('http', 'ws')}/v1/subscribe?${query}`);
    const source = new EventSource(`${url}/v1/subscribe?${query}`);
    const arrived = [first(socket), first(source)];
    await Promise.all([opened(socket), opened(source)]);
    const poll = async (more) => (await fetch(`${url}/v1/subscribe?${query}&transport=poll${more}`)).json();
    const { cursor } = await poll('&wait=0');
    arrived.push(poll(`&since=${cursor}`).then((document) => document.messages[0].data));
    window.arrived = Promise.all(arrived);
  }, [address, token]);
  const answer = await fetch(`${internal}/v1/channels/page/messages`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json' },
    body: '"hello"',
  });
  if (answer.status !== 202) throw new Error(await answer.text());
  const arrived = await page.evaluate('window.arrived');
  ['websocket', 'eventsource', 'fetch'].forEach((way, index) => {
    if (arrived[index] === 'hello') console.log(way);
  });
  // Served from this machine, it reaches the gateways by the forwarded port of the guide.
  const pages = http.createServer((_, answer) => answer.setHeader('Content-Type', 'text/html').end(html)).listen(8080, 'localhost');
  await once(pages, 'listening');
  const guide = await browser.newPage();
  guide.on('console', (message) => console.error(message.text()));
  await guide.goto(`http://localhost:8080/page.html#${token}`);
  await guide.waitForSelector('li:has-text("paid")');
  console.log('guide');
  pages.closeAllConnections();
  pages.close();
} finally {
  await browser.close();
}

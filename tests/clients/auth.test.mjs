// The page of docs/auth.md, as it is there, in headless Chromium: tokens expire under it, and it loses nothing.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { BINARY, eventually, start } from './gateway.mjs';

const GUIDE = fs.readFileSync(fileURLToPath(new URL('../../docs/auth.md', import.meta.url)), 'utf8');
const PAGE = GUIDE.match(/<<'PAGE'\n(.*?)^PAGE\n/ms)[1];

const tidegate = (...args) => execFileSync(BINARY, args, { encoding: 'utf8' });

let folder;
let secret;
let key;
let gateway;
let browser;
let tokens = 0;
let pages;

before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tidegate-auth-'));
  secret = path.join(folder, 'secret');
  fs.writeFileSync(secret, 'x'.repeat(32));
  const entry = tidegate('key', 'backend', '--channels', 'demo', '--operations', 'publish,read');
  [key] = entry.match(/tgk_\S+/);
  fs.writeFileSync(path.join(folder, 'keys.toml'), entry);
  gateway = await start({
    TIDEGATE_AUTH__JWT__KEY_FILE: secret,
    TIDEGATE_AUTH__JWT__LEEWAY: '0s',
    TIDEGATE_AUTH__KEYS_FILE: path.join(folder, 'keys.toml'),
  });
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-dev-shm-usage',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
    ],
  });
  pages = http.createServer((request, answer) => {
    if (request.url === '/token') {
      tokens += 1;
      answer.end(tidegate('token', '--key-file', secret, '--sub', 'alice', '--channels', 'demo', '--expires', '3s'));
    } else {
      answer.setHeader('Content-Type', 'text/html').end(PAGE.replaceAll('http://127.0.0.1:8000', gateway.http));
    }
  }).listen(0, '127.0.0.1');
  await once(pages, 'listening');
});

after(async () => {
  await browser?.close();
  pages?.closeAllConnections();
  pages?.close();
  fs.rmSync(folder, { recursive: true, force: true });
  assert.equal(await gateway.stop(), 0);
});

test('the page of the guide comes back with new tokens and shows each message once', async () => {
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${pages.address().port}/`);
  const headers = { 'Content-Type': 'application/json', Authorization: `Bearer ${key}` };
  const shown = () => page.locator('#messages li').allTextContents();
  let number = 0;
  while (tokens < 4) {
    await gateway.publish('demo', number += 1, headers);
    await eventually('it is shown', async () => (await shown()).length >= number);
  }
  assert.deepEqual(await shown(), Array.from({ length: number }, (_, index) => String(index + 1)));
  await page.close();
});

test('a plain EventSource with a token that has expired stops for ever', async () => {
  const token = tidegate('token', '--key-file', secret, '--sub', 'alice', '--channels', 'demo', '--expires', '1s').trim();
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${pages.address().port}/token`);
  await page.evaluate((url) => {
    window.source = new EventSource(url);
    window.goodbyes = [];
    window.source.addEventListener('tidegate.goodbye', (event) => window.goodbyes.push(JSON.parse(event.data).code));
  }, `${gateway.http}/v1/subscribe?channel=demo&token=${token}`);
  await eventually('it is closed', async () => (await page.evaluate('source.readyState')) === 2, 40_000);
  assert.ok((await page.evaluate('goodbyes')).every((code) => code === 'token_expired'));
  await page.close();
});

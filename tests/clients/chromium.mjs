// Headless Chromium, and a page of an application's own, which is served from another port of this machine.

import { once } from 'node:events';
import http from 'node:http';
import { chromium } from 'playwright-core';

export async function launch() {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-dev-shm-usage',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
    ],
  });
  const pages = http.createServer((_, answer) => {
    answer.setHeader('Content-Type', 'text/html').end('<!doctype html><title>A page of somebody else</title>');
  }).listen(0, '127.0.0.1');
  await once(pages, 'listening');
  const address = `http://localhost:${pages.address().port}/`;
  return {
    browser,

    /** The page, with all that it logs. */
    async page() {
      const opened = await browser.newPage();
      opened.logged = [];
      opened.on('console', (message) => opened.logged.push(message.text()));
      await opened.goto(address);
      return opened;
    },

    async close() {
      await browser.close();
      pages.closeAllConnections();
      pages.close();
    },
  };
}

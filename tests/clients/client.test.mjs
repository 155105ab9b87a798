// /client.js in headless Chromium: through cut connections, refused transports, and gateways that are restarted.

import assert from 'node:assert/strict';
import { createHash, createHmac } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { launch } from './chromium.mjs';
import { eventually, proxyTo, start, startRedis } from './gateway.mjs';

const TRANSPORTS = ['websocket', 'sse', 'poll'];

let gateway;
let chromium;

before(async () => {
  gateway = await start();
  chromium = await launch();
});

after(async () => {
  await chromium?.close();
  assert.equal(await gateway.stop(), 0);
});

const PACE = 20; // ms between messages: who is away for 20 s still finds all of them in the history

const upTo = (last) => Array.from({ length: last }, (_, index) => index + 1);

/** A page and, before the gateway, a proxy; both end with the test. */
async function stage(t, ...ports) {
  const proxy = await proxyTo(...(ports.length > 0 ? ports : [gateway.publicPort]));
  t.after(() => proxy.close());
  const page = await chromium.page();
  t.after(() => page.close());
  return { page, proxy, origin: `http://127.0.0.1:${proxy.port}` };
}

/**
 * A client in a page, as `window[name]`, with what it was told. `origin` serves the client and the channels; the token
 * `mint` is what the page's function of that name gives.
 */
async function follow(page, origin, options, name = 'follower') {
  await page.evaluate(async ([origin, options, name]) => {
    const { Tidegate } = await import(`${origin}/client.js`);
    if (options.token === 'mint') options.token = () => window.mint();
    const told = window[name] = { seen: [], gaps: [], states: [], errors: [] };
    told.client = new Tidegate({
      ...options,
      onMessage: (message) => told.seen.push(message.data),
      onGap: (gap) => told.gaps.push(gap),
      onState: (state, about) => told.states.push({ state, ...about }),
      onError: (error) => told.errors.push(error),
    });
  }, [origin, options, name]);
  return {
    get: (what) => page.evaluate(`${name}.${what}`),
    /** Waits until it is connected, for the `times`th time. */
    opened(times = 1) {
      const open = `${name}.states.filter(({ state }) => state === 'open')`;
      return eventually(`${name} is open`, async () => (await page.evaluate(`${open}.length`)) >= times
        && page.evaluate(`${open}.at(-1).transport`));
    },
    /** Waits until it has seen so many, and checks that they are the numbers from 1. */
    async sees(count) {
      await eventually(`${name} sees ${count}`, async () => (await page.evaluate(`${name}.seen.length`)) >= count);
      assert.deepEqual(await page.evaluate(`${name}.seen`), upTo(count));
    },
  };
}

for (const transport of TRANSPORTS) {
  test(`${transport}: nothing is lost or doubled over cut connections`, async (t) => {
    const { page, proxy, origin } = await stage(t);
    const channel = `cut-${transport}`;
    const follower = await follow(page, origin, { channels: [channel, 'quiet'], transports: [transport] });
    assert.equal(await follower.opened(), transport);
    let number = 0;
    for (let round = 0; round < 3; round += 1) {
      for (let step = 0; step < 5; step += 1) await gateway.publish(channel, number += 1);
      proxy.cut();
      for (let step = 0; step < 5; step += 1) await gateway.publish(channel, number += 1);
      await follower.sees(number);
    }
    assert.deepEqual(await follower.get('gaps'), []);
    assert.deepEqual(await follower.get('errors'), []);
  });

  test(`${transport}: channels come and go while it is connected`, async (t) => {
    const { page } = await stage(t);
    const [first, second] = [`first-${transport}`, `second-${transport}`];
    await gateway.publish(second, 1);
    const follower = await follow(page, gateway.http, { channels: [first], transports: [transport] });
    await follower.opened();
    await page.evaluate((channel) => follower.client.subscribe(channel, 'earliest'), second);
    await follower.sees(1);
    await gateway.publish(first, 2);
    await follower.sees(2);
    await page.evaluate((channel) => follower.client.unsubscribe(channel), first);
    await gateway.untilSubscribers(first, 0);
    await gateway.publish(first, 'for nobody');
    await gateway.publish(second, 3);
    await follower.sees(3);
    assert.deepEqual(Object.keys(await follower.get('client.positions')), [second]);
    await page.evaluate((channel) => follower.client.unsubscribe(channel), second);
    await gateway.untilSubscribers(second, 0);
    await page.evaluate((channel) => follower.client.subscribe(channel, 'last:1'), first);
    await eventually('the last of the first', async () => (await follower.get('seen')).at(-1) === 'for nobody');
  });

  test(`${transport}: what is missing is told`, async (t) => {
    const { page, proxy, origin } = await stage(t);
    const channel = `gone-${transport}`;
    const follower = await follow(page, origin, { channels: [channel], transports: [transport] });
    await follower.opened();
    await gateway.publish(channel, 1);
    await follower.sees(1);
    proxy.refused = /subscribe/;
    proxy.cut();
    await gateway.publish(channel, 'gone');
    await fetch(`${gateway.internal}/v1/channels/${channel}/messages`, { method: 'DELETE' });
    await gateway.publish(channel, 2);
    proxy.refused = undefined;
    await follower.sees(2);
    assert.deepEqual((await follower.get('gaps')).map(({ channel, reason }) => [channel, reason]), [[channel, 'deleted']]);
  });
}

test('where WebSocket is refused it goes on with SSE, and where that is refused too with polls', async (t) => {
  const { page, proxy, origin } = await stage(t);
  proxy.refused = /^Upgrade: websocket/im;
  const follower = await follow(page, origin, { channels: ['refused'] });
  assert.equal(await follower.opened(), 'sse');
  await gateway.publish('refused', 1);
  await follower.sees(1);
  proxy.refused = /^Upgrade: websocket|transport=sse/im;
  proxy.cut();
  await gateway.publish('refused', 2);
  assert.equal(await follower.opened(2), 'poll');
  await gateway.publish('refused', 3);
  await follower.sees(3);
  const tried = (await follower.get('states')).filter(({ state }) => state === 'connecting').map(({ transport }) => transport);
  assert.deepEqual(tried.slice(0, 2), ['websocket', 'sse']);
  assert.deepEqual(await follower.get('gaps'), []);
});

test('positions that were kept are gone on from by another client, over another transport', async (t) => {
  const { page } = await stage(t);
  const first = await follow(page, gateway.http, { channels: ['kept', 'kept-too'], transports: ['poll'] }, 'first');
  await first.opened();
  await gateway.publish('kept', 1);
  await first.sees(1);
  await page.evaluate('first.client.close()');
  const channels = await first.get('client.positions');
  await gateway.untilSubscribers('kept', 0);
  await gateway.publish('kept', 1);
  await gateway.publish('kept-too', 2);
  const second = await follow(page, gateway.http, { channels }, 'second');
  assert.equal(await second.opened(), 'websocket');
  await eventually('both', async () => (await second.get('seen.length')) === 2);
  assert.deepEqual((await second.get('seen')).sort(), [1, 2]);
  assert.deepEqual(await first.get('seen'), [1]);
  assert.equal((await first.get('states')).at(-1).state, 'closed');
});

for (const transport of ['websocket', 'sse']) {
  test(`${transport}: a goodbye for good is obeyed`, async (t) => {
    const { page } = await stage(t);
    const channel = `ended-${transport}`;
    const follower = await follow(page, gateway.http, { channels: [channel], transports: [transport, 'poll'] });
    await follower.opened();
    await gateway.untilSubscribers(channel, 1);
    const asked = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ channel }) };
    assert.equal((await fetch(`${gateway.internal}/v1/disconnect`, asked)).status, 202);
    await eventually('it is closed', async () => (await follower.get('states')).at(-1).state === 'closed');
    assert.deepEqual((await follower.get('errors')).map(({ code }) => code), ['revoked']);
    assert.equal(await gateway.subscribers(channel), 0);
  });
}

test('what cannot be served ends it, with the sentence of the problem', async (t) => {
  const { page } = await stage(t);
  const follower = await follow(page, gateway.http, { channels: ['not a channel'] });
  await eventually('it is closed', async () => (await follower.get('states')).at(-1).state === 'closed');
  const [error] = await follower.get('errors');
  assert.equal(error.code, 'invalid_channel');
  assert.match(error.detail, /not a channel/);
});

test('a callback that throws is the page\'s affair', async (t) => {
  const { page } = await stage(t);
  const thrown = [];
  page.on('pageerror', (error) => thrown.push(String(error)));
  await page.evaluate(async (origin) => {
    const { Tidegate } = await import(`${origin}/client.js`);
    window.seen = [];
    window.client = new Tidegate({ channels: ['throws'], onMessage: ({ data }) => { window.seen.push(data); throw new Error(`at ${data}`); } });
  }, gateway.http);
  await gateway.untilSubscribers('throws', 1);
  for (const number of upTo(3)) await gateway.publish('throws', number);
  await eventually('all three', async () => (await page.evaluate('seen')).length === 3);
  await eventually('all are thrown', () => thrown.length === 3);
});

test('a rolling restart of two gateways over Redis: nothing is lost or doubled', async (t) => {
  const redis = await startRedis();
  t.after(() => redis.stop());
  const keys = { TIDEGATE_BROKER__URL: redis.url };
  const gateways = [await start(keys), await start(keys)];
  t.after(() => Promise.all(gateways.map((running) => running.stop())));
  const { page, proxy, origin } = await stage(t, ...gateways.map(({ publicPort }) => publicPort));
  const followers = [];
  for (const transports of [TRANSPORTS, ...TRANSPORTS.map((transport) => [transport])]) {
    followers.push(await follow(page, origin, { channels: ['rolling'], transports }, `follower${followers.length}`));
  }
  await Promise.all(followers.map((follower) => follower.opened()));
  let number = 0;
  let through = 0;
  let ends = false;
  const publishing = (async () => {
    while (!ends) {
      await gateways[through].publish('rolling', number += 1);
      await pause(PACE);
    }
  })();
  const isBack = async (follower) => (await follower.get('states')).at(-1).state === 'open';
  for (const old of [0, 1]) {
    through = 1 - old;
    // The proxy goes on sending connections to the one that leaves, and then to nobody.
    assert.equal(await gateways[old].stop(), 0);
    gateways[old] = await start(keys);
    proxy.ports = gateways.map(({ publicPort }) => publicPort);
    await Promise.all(followers.map((follower) => eventually('it is back', () => isBack(follower))));
  }
  ends = true;
  await publishing;
  assert.ok(number > 20, `${number} messages`);
  for (const follower of followers) {
    await follower.sees(number);
    assert.deepEqual(await follower.get('gaps'), []);
    assert.deepEqual(await follower.get('errors'), []);
  }
});

/** Signs a token for all channels, which holds for so many seconds. */
function sign(seconds, secret) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const claims = { sub: 'somebody', exp: Math.floor(Date.now() / 1000) + seconds, channels: ['*'] };
  const signed = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode(claims)}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

/** A gateway that asks for tokens, and a page in which `mint()` gives what `give` says for each time it is asked. */
async function guarded(t, give) {
  const folder = await mkdtemp(join(tmpdir(), 'tidegate-tokens-'));
  t.after(() => rm(folder, { recursive: true }));
  const secret = 'a secret of this test, and of nobody else';
  const key = 'tgk_a-key-of-this-test-and-of-nobody-else-0000000';
  const sha256 = createHash('sha256').update(key).digest('hex');
  await writeFile(join(folder, 'secret'), secret);
  await writeFile(join(folder, 'keys.toml'), `[[auth.keys]]\nname = "test"\nsha256 = "${sha256}"\nchannels = ["*"]\noperations = ["publish", "read", "manage"]\n`);
  const keys = {
    TIDEGATE_AUTH__JWT__KEY_FILE: join(folder, 'secret'),
    TIDEGATE_AUTH__JWT__LEEWAY: '0s',
    TIDEGATE_AUTH__KEYS_FILE: join(folder, 'keys.toml'),
  };
  const guarded = await start(keys, key);
  t.after(() => guarded.stop());
  const { page } = await stage(t, guarded.publicPort);
  const minted = { times: 0 };
  await page.exposeFunction('mint', () => give(minted.times += 1, (seconds) => sign(seconds, secret)));
  return { page, guarded, minted };
}

for (const transport of TRANSPORTS) {
  test(`${transport}: a token that ends is followed by a fresh one, and nothing is lost`, async (t) => {
    const { page, guarded: gateway, minted } = await guarded(t, (_, sign) => sign(5));
    const follower = await follow(page, gateway.http, { channels: ['tokens'], transports: [transport], token: 'mint' });
    await follower.opened();
    let number = 0;
    while (minted.times < 3) {
      await gateway.publish('tokens', number += 1);
      await pause(PACE);
    }
    await follower.sees(number);
    assert.deepEqual(await follower.get('gaps'), []);
    assert.deepEqual(await follower.get('errors'), []);
    // Over a WebSocket it is shown in place; on a busy machine one may be late.
    if (transport === 'websocket') {
      const opened = (await follower.get('states')).filter(({ state }) => state === 'open').length;
      assert.ok(opened < minted.times, `${opened} connections for ${minted.times} tokens`);
    }
  });

  test(`${transport}: a token that does not hold ends it, when a fresh one does not either`, async (t) => {
    const { page, guarded: gateway, minted } = await guarded(t, (_, sign) => `${sign(60)}x`);
    const follower = await follow(page, gateway.http, { channels: ['tokens'], transports: [transport], token: 'mint' });
    await eventually('it is closed', async () => (await follower.get('states')).at(-1).state === 'closed');
    assert.deepEqual((await follower.get('errors')).map(({ code }) => code), ['unauthorized']);
    assert.equal(minted.times, 2);
  });
}

test('a function that gives no token is asked again', async (t) => {
  const { page, guarded: gateway, minted } = await guarded(t, (times, sign) => {
    if (times < 3) throw new Error('nobody is logged in');
    return sign(60);
  });
  const follower = await follow(page, gateway.http, { channels: ['tokens'], token: 'mint' });
  assert.equal(await follower.opened(), 'websocket');
  assert.equal(minted.times, 3);
  const waited = (await follower.get('states')).filter(({ state }) => state === 'waiting');
  assert.deepEqual(waited.map(({ code }) => code), ['token_unavailable', 'token_unavailable']);
  assert.match(waited[0].detail, /nobody is logged in/);
});

// A `tidegate` process on free ports, and a proxy whose connections can be cut.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';

export const BINARY = process.env.TIDEGATE_BIN ?? fileURLToPath(new URL('../../target/release/tidegate', import.meta.url));

/** A port that is free now, and not among those that the system gives to outgoing connections. */
export async function freePort() {
  for (;;) {
    const server = net.createServer();
    const port = 10_000 + Math.floor(Math.random() * 10_000);
    const free = await new Promise((resolve) => {
      server.once('error', () => resolve(false)).listen(port, '127.0.0.1', () => resolve(true));
    });
    if (!free) continue;
    server.close();
    await once(server, 'close');
    return port;
  }
}

/** Asks `check` again and again until it gives something. */
export async function eventually(what, check, patience = 20_000) {
  const deadline = Date.now() + patience;
  for (;;) {
    const found = await check();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`never happened: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Starts a gateway; `keys` are `TIDEGATE_…` variables, and `apiKey` is what it asks of a backend. */
export async function start(keys = {}, apiKey = undefined) {
  const publicPort = await freePort();
  let internalPort = await freePort();
  while (internalPort === publicPort) internalPort = await freePort();
  const environment = Object.entries(process.env).filter(([name]) => !name.startsWith('TIDEGATE_'));
  const child = spawn(BINARY, [], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...Object.fromEntries(environment),
      TIDEGATE_PUBLIC__LISTEN: `127.0.0.1:${publicPort}`,
      TIDEGATE_INTERNAL__LISTEN: `127.0.0.1:${internalPort}`,
      TIDEGATE_DRAIN__NOTICE: '0s',
      TIDEGATE_DRAIN__PERIOD: '1s',
      ...keys,
    },
  });
  const authorization = apiKey ? { Authorization: `Bearer ${apiKey}` } : {};
  const gateway = {
    child,
    said: '',
    publicPort,
    http: `http://127.0.0.1:${publicPort}`,
    socket: `ws://127.0.0.1:${publicPort}`,
    internal: `http://127.0.0.1:${internalPort}`,

    /** Publishes JSON, or what `headers` says; gives the receipt. */
    async publish(channel, data, headers = { 'Content-Type': 'application/json' }) {
      const body = headers['Content-Type'] === 'application/json' ? JSON.stringify(data) : data;
      const post = { method: 'POST', headers: { ...headers, ...authorization }, body };
      const answer = await fetch(`${this.internal}/v1/channels/${channel}/messages`, post);
      if (answer.status !== 202) throw new Error(`${answer.status}: ${await answer.text()}`);
      return answer.json();
    },

    async subscribers(channel) {
      const answer = await fetch(`${this.internal}/v1/channels/${channel}`, { headers: authorization });
      return (await answer.json()).subscribers;
    },

    async untilSubscribers(channel, wanted) {
      await eventually(`${wanted} subscribers of ${channel}`, async () => (await this.subscribers(channel)) === wanted);
    },

    /** Ends it politely and gives the exit code. */
    async stop() {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill('SIGTERM');
        await once(child, 'exit');
      }
      return child.exitCode;
    },
  };
  for (const pipe of [child.stdout, child.stderr]) {
    pipe.setEncoding('utf8').on('data', (text) => { gateway.said += text; });
  }
  await eventually('the gateway starts', async () => {
    if (child.exitCode !== null) throw new Error(`it ended with ${child.exitCode}:\n${gateway.said}`);
    return fetch(`${gateway.http}/ready`).then((answer) => answer.ok, () => false);
  });
  return gateway;
}

/** Passes connections on to these ports in turn, until they are cut. */
export async function proxyTo(...ports) {
  const open = new Set();
  let next = 0;
  const server = net.createServer((client) => {
    const upstream = net.connect(proxy.ports[next++ % proxy.ports.length], '127.0.0.1');
    for (const socket of [client, upstream]) {
      open.add(socket);
      socket.on('error', () => {}).on('close', () => open.delete(socket));
    }
    client.on('data', (bytes) => {
      if (proxy.refused?.test(bytes)) client.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
      else upstream.write(bytes);
    }).on('end', () => upstream.end());
    upstream.pipe(client);
    upstream.on('close', () => client.end());
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const proxy = {
    port: server.address().port,
    ports,
    /** Requests that look like this are refused, as by a firewall that reads along. */
    refused: undefined,
    /** Ends every connection that passes now. */
    cut() {
      for (const socket of open) socket.destroy();
    },
    async close() {
      this.cut();
      server.close();
      await once(server, 'close');
    },
  };
  return proxy;
}

/** A Redis of the test's own, on a free port. */
export async function startRedis() {
  const port = await freePort();
  const child = spawn('redis-server', ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'], {
    stdio: 'ignore', cwd: tmpdir(),
  });
  await eventually('Redis listens', () => new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1').on('error', () => resolve(false));
    socket.on('connect', () => { socket.destroy(); resolve(true); });
  }));
  return {
    url: `redis://127.0.0.1:${port}`,
    async stop() {
      child.kill('SIGKILL');
      await once(child, 'exit');
    },
  };
}

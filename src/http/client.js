// Tidegate's client for browsers. It follows channels over WebSocket, else Server-Sent Events, else long polling, and
// comes back with its positions when a connection ends: nothing is lost or doubled, and a gap tells what is missing.
//
//   import { Tidegate } from 'https://push.example.org/client.js';
//   new Tidegate({ channels: ['orders'], onMessage: (message) => console.log(message.data) });  // options: client.d.ts

const TRANSPORTS = ['websocket', 'sse', 'poll'];
const OPENING = 10_000; // ms in which an attempt must bring its first word
const BEAT = { websocket: 25_000, sse: 75_000, poll: 75_000 }; // ms; silent from one beat to the next: dead
const FIRST_WAIT = 500, LONGEST_WAIT = 30_000; // ms before coming back where the server did not say; doubled each time
const RENEW_BEFORE = 30_000; // ms from asking for a new token to the end of the old one
const NEVER_AGAIN = [1002, 1003, 1007, 1009, 4400, 4403, 4410];

/** Why a connection is over, and what follows: 'retry', 'wait' (no other transport would help), 'token' or 'stop'. */
class End extends Error {
  constructor(next, code, detail = code, after = undefined) {
    super(detail);
    Object.assign(this, { next, code, after });
  }
}

/** Follows channels until `close()`. */
export class Tidegate {
  #options; #base; #transports; #state; #wake;
  #channels; // name → where to go on from: a keyword at first, then a position
  #connection; // the attempt or connection of now
  #token; #renewal; // and the timer that asks for the next one

  constructor(options) {
    const { channels = [], since = 'latest', url = new URL('.', import.meta.url), transports = TRANSPORTS } = options;
    [this.#options, this.#transports] = [options, transports];
    this.#base = String(url).replace(/\/+$/, '');
    const isList = Array.isArray(channels);
    this.#channels = new Map(isList ? channels.map((name) => [name, since]) : Object.entries(channels));
    if (typeof options.token !== 'function') this.#token = options.token;
    queueMicrotask(() => this.#run()); // whoever makes it shall have it before it calls back
  }

  /** Where each channel stands. Given to another client as its `channels`, it goes on from there. */
  get positions() {
    return Object.fromEntries(this.#channels);
  }

  /** Follows one more channel. */
  subscribe(channel, since = 'latest') {
    if (this.#channels.has(channel)) return;
    this.#channels.set(channel, since);
    this.#change({ type: 'subscribe', channel, since }, channel);
  }

  /** Follows a channel no longer. */
  unsubscribe(channel) {
    if (this.#channels.delete(channel)) this.#change({ type: 'unsubscribe', channel });
  }

  /** Ends, for good. */
  close() {
    this.#finish(new End('stop', 'closed'));
  }

  /** Connects again and again, by the best transport that ever worked; until one did, by each of them in turn. */
  async #run() {
    let at = 0, best = Infinity, failures = 0, refusals = 0;
    while (this.#state !== 'closed') {
      if (this.#channels.size === 0) {
        this.#become('idle');
        await new Promise((resolve) => { this.#wake = resolve; });
        continue;
      }
      const { end, isOpen, token } = await this.#attempt(this.#transports[at]);
      if (isOpen) [best, failures, refusals] = [Math.min(best, at), 0, 0];
      // What worked before is given two more chances: a restart is no reason to go on with less.
      const isDoubted = at !== best || failures >= 2;
      if (end.next === 'retry' && !isOpen && isDoubted && at + 1 < this.#transports.length) {
        at += 1;
        continue;
      }
      at = best < Infinity ? best : 0;
      if (end.next === 'token') {
        if (this.#token === token) this.#token = undefined;
        refusals += 1;
        // A new token is shown at once. Where that one does not hold either, asking again will not help.
        const isHopeless = refusals > 1 && end.code === 'unauthorized';
        if (isHopeless || typeof this.#options.token !== 'function') end.next = 'stop';
        else if (refusals === 1) end.after ??= 0;
      }
      if (end.next === 'stop') return this.#finish(end);
      end.after ??= Math.min(FIRST_WAIT * 2 ** failures++, LONGEST_WAIT) * (0.5 + Math.random() / 2);
      if (end.after === 0) continue;
      this.#become('waiting', { code: end.code, detail: end.message, after: end.after });
      await new Promise((resolve) => { this.#wake = resolve; setTimeout(resolve, end.after); });
    }
  }

  /** One connection, from the attempt to its end. */
  async #attempt(transport) {
    const abort = new AbortController();
    const connection = { transport, abort, signal: abort.signal, names: [...this.#channels.keys()], refs: [] };
    this.#connection = connection;
    this.#become('connecting', { transport });
    try {
      if (this.#token === undefined && this.#options.token) await this.#renew();
      connection.opening = setTimeout(() => abort.abort(new End('retry', 'timeout')), OPENING);
      connection.beat = setInterval(() => {
        if (!connection.heard) abort.abort(new End('retry', 'silent'));
        connection.heard = false;
        connection.socket?.send('{"type":"ping"}');
      }, BEAT[transport]);
      connection.signal.throwIfAborted();
      if (transport === 'websocket') await this.#websocket(connection);
      else if (transport === 'sse') await this.#sse(connection);
      else await this.#poll(connection);
    } catch (error) {
      connection.end ??= error instanceof End ? error : new End('retry', 'lost', String(error));
    }
    clearTimeout(connection.opening);
    clearInterval(connection.beat);
    abort.abort();
    return connection;
  }

  #websocket(connection) {
    const token = connection.token = this.#token;
    return new Promise((_, reject) => {
      const url = this.#address(connection).replace(/^http/, 'ws');
      const socket = new WebSocket(url, token ? ['tidegate.v1', `tidegate.token.${token}`] : []);
      connection.signal.addEventListener('abort', () => { socket.close(); reject(connection.signal.reason); });
      socket.onopen = () => { connection.socket = socket; };
      socket.onmessage = ({ data }) => this.#take(JSON.parse(data), connection);
      socket.onclose = ({ code, reason }) => reject(closed(code, reason));
    });
  }

  async #sse(connection) {
    const response = await this.#fetch(connection);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '', event = {}, retry;
    for (;;) {
      const { done, value } = await reader.read();
      // A stream that ends before it began is the server's way of saying: later.
      if (done && retry && !connection.isOpen) throw new End('wait', 'busy', 'busy', retry);
      if (done) throw new End('retry', 'lost');
      const lines = (rest + value).split('\n');
      rest = lines.pop();
      connection.heard = true;
      for (const line of lines) {
        const [, field, text] = /^(\w*)(?:: ?)?(.*)/s.exec(line);
        if (field === 'retry') retry = Number(text);
        event[field] = text;
        if (line !== '') continue;
        if (event.data) this.#take(JSON.parse(event.data), connection);
        if (event.id) this.#moveAll(event.id, connection); // also of a heartbeat, which has no data
        event = {};
      }
    }
  }

  async #poll(connection) {
    for (let wait = 0; ; wait = 25) { // the first answer comes at once, with the position to wait from
      const { messages, gaps, cursor } = await (await this.#fetch(connection, `&wait=${wait}`)).json();
      connection.signal.throwIfAborted();
      this.#opened(connection);
      // A gap does not move the position: messages from before it may follow.
      for (const gap of gaps) if (this.#channels.has(gap.channel)) this.#call('onGap', gap);
      for (const message of messages) this.#take(message, connection);
      this.#moveAll(cursor, connection);
      connection.signal.throwIfAborted();
    }
  }

  async #fetch(connection, extra = '') {
    const token = connection.token = this.#token;
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const response = await fetch(this.#address(connection) + extra, { headers, signal: connection.signal });
    connection.heard = true;
    if (response.ok) return response;
    throw refused(response, await response.json().catch(() => undefined));
  }

  #address({ transport, names }) {
    const since = names.map((name) => this.#channels.get(name)).join();
    const query = [...names.map((name) => ['channel', name]), ['transport', transport], ['since', since]];
    return `${this.#base}/v1/subscribe?${new URLSearchParams(query)}`;
  }

  /** An object from the server. */
  #take(object, connection) {
    if (connection.signal.aborted) return;
    connection.heard = true;
    const { type, channel, code } = object;
    if (type === 'message' && this.#move(channel, object.id)) this.#call('onMessage', object);
    else if (type === 'gap' && this.#move(channel, object.to)) this.#call('onGap', object);
    else if (type === 'subscribed') {
      this.#move(channel, object.position);
      this.#opened(connection);
    } else if (type === 'unsubscribed' && code !== 'requested') {
      this.#channels.delete(channel);
      this.#call('onError', { code, detail: 'the channel may no longer be followed', channel });
    } else if (type === 'error') {
      const asked = connection.refs[object.ref];
      this.#channels.delete(asked);
      this.#call('onError', { code, detail: object.detail, channel: asked });
    } else if (type === 'goodbye') {
      const after = object.reconnect_after_ms;
      const next = code === 'unauthorized' || code === 'token_expired' ? 'token' : after === null ? 'stop' : 'wait';
      connection.end = new End(next, code, `the gateway ended the connection: ${code}`, after ?? undefined);
    }
  }

  #opened(connection) {
    clearTimeout(connection.opening);
    connection.isOpen = true;
    if (this.#state !== 'open') this.#become('open', { transport: connection.transport });
  }

  #move(channel, position) {
    return this.#channels.has(channel) && this.#channels.set(channel, position);
  }

  /** Takes over a cursor, which has an entry for each channel of the request. */
  #moveAll(cursor, { names, signal }) {
    if (!signal.aborted) cursor.split(',').forEach((position, index) => this.#move(names[index], position));
  }

  /** Tells the server of another set of channels: by a command, or by coming back with it. */
  #change(command, asked) {
    const { socket, isOpen, refs, abort } = this.#connection ?? {};
    if (isOpen && socket) socket.send(JSON.stringify({ ...command, ref: refs.push(asked) - 1 }));
    else abort?.abort(new End('wait', 'changed', 'changed', 0));
    if (this.#state === 'idle') this.#wake?.();
  }

  /** Asks for a token, and again before it ends. */
  async #renew() {
    clearTimeout(this.#renewal);
    try {
      this.#token = await this.#options.token();
    } catch (error) {
      throw new End('wait', 'token_unavailable', String(error));
    }
    const left = expiry(this.#token) - Date.now();
    const delay = Math.min(left - Math.min(RENEW_BEFORE, left / 5), 2 ** 31 - 1); // no timer is longer
    // Without `exp`, or by a clock that is wrong, it is the server who says when.
    if (left > 0) this.#renewal = setTimeout(() => this.#renew().then(() => this.#show(), () => {}), delay);
  }

  /** Shows a new token in place where there are commands; a stream is ended by the server, and comes back with it. */
  #show() {
    const connection = this.#connection;
    if (!connection.isOpen || !connection.socket) return;
    const token = connection.token = this.#token;
    connection.socket.send(JSON.stringify({ type: 'authenticate', token }));
  }

  #finish(end) {
    if (this.#state === 'closed') return;
    if (end.code !== 'closed') this.#call('onError', { code: end.code, detail: end.message });
    this.#become('closed', { code: end.code, detail: end.message });
    clearTimeout(this.#renewal);
    this.#connection?.abort.abort(end);
    this.#wake?.();
  }

  #become(state, about = {}) {
    if (this.#state === 'closed') return;
    this.#state = state;
    this.#call('onState', state, about);
  }

  /** What a callback throws is its page's to see, and no fault of the connection. */
  #call(name, ...values) {
    try { this.#options[name]?.(...values); } catch (error) { queueMicrotask(() => { throw error; }); }
  }
}

/** What a close frame means where no goodbye came before it. */
function closed(code, reason) {
  const [, name, ms] = /^(\w*) ?(\d*)/.exec(reason);
  const isOurs = code === 1001 || code >= 4000;
  const next = code === 4401 ? 'token' : NEVER_AGAIN.includes(code) ? 'stop' : isOurs ? 'wait' : 'retry';
  return new End(next, name || `closed_${code}`, name || `closed with ${code}`, ms ? Number(ms) : undefined);
}

/** What a status other than 200 means. Without a code it is a proxy's, and another transport may pass. */
function refused({ status, headers }, problem) {
  const { code, detail = `the answer was ${status}` } = problem ?? {};
  const seconds = Number(headers.get('Retry-After'));
  if (status === 401) return new End('token', code ?? 'unauthorized', detail);
  if (seconds > 0) return new End('wait', code ?? `status_${status}`, detail, 1000 * (seconds + Math.random()));
  const isFinal = code && status < 500 && status !== 408 && status !== 429;
  return new End(isFinal ? 'stop' : 'retry', code ?? `status_${status}`, detail);
}

/** When a JWT ends, in ms since 1970; NaN where it does not say. */
function expiry(token) {
  try {
    return JSON.parse(atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/'))).exp * 1000;
  } catch { return NaN; }
}

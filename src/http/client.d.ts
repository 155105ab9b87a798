// Types of /client.js.

/** A way from the gateway to the page. */
export type Transport = 'websocket' | 'sse' | 'poll';

/** Where to start: a position (the `id` of a message), `latest`, `earliest` or `last:N`. */
export type Since = string;

/** A message. It has `data`, or `data_base64` where bytes were published. */
export interface Message<Data = unknown> {
  type: 'message';
  channel: string;
  /** Its position in the channel. */
  id: string;
  /** When it was published, in ms since 1970. */
  time: number;
  /** The name of the event, where one was given. */
  event?: string;
  /** The JSON that was published, or a string for text. */
  data: Data;
  /** Bytes in base64. */
  data_base64?: string;
}

/** Messages between `from` and `to` may be missing. All that come after `to` follow. */
export interface Gap {
  type: 'gap';
  channel: string;
  reason: 'trimmed' | 'expired' | 'deleted' | 'failover' | 'reset' | 'link';
  from: string;
  to: string;
}

/** `idle`: there is no channel to follow. `closed`: for good. */
export type State = 'connecting' | 'open' | 'waiting' | 'idle' | 'closed';

/** What goes with a state. */
export interface About {
  /** With `connecting` and `open`. */
  transport?: Transport;
  /** With `waiting` and `closed`: why, by name. */
  code?: string;
  /** With `waiting` and `closed`: why, as a sentence. */
  detail?: string;
  /** With `waiting`: ms until it comes back. */
  after?: number;
}

/** What the gateway refused. */
export interface Refusal {
  /** A code of docs/problems.md, or a name of the table of close codes. */
  code: string;
  detail: string;
  /** The channel that is followed no longer, where it is about one. */
  channel?: string;
}

export interface Options<Data = unknown> {
  /** Names, or an object of names and where to start each, such as the `positions` of another client. */
  channels?: string[] | Record<string, Since>;
  /** Where to start the channels that were given by name alone; `latest` where nothing is said. */
  since?: Since;
  /** The public listener. Without it: where this module came from. */
  url?: string | URL;
  /** A token, or what gives a fresh one: asked at first, before the token ends, and when it was refused. */
  token?: string | (() => string | Promise<string>);
  /** The transports to try, in this order. */
  transports?: Transport[];
  onMessage?(message: Message<Data>): void;
  /** Load the state of the channel anew, and go on. */
  onGap?(gap: Gap): void;
  onState?(state: State, about: About): void;
  /** A channel was refused or, where the state `closed` follows, everything. */
  onError?(refusal: Refusal): void;
}

/** Follows channels until `close()`. */
export class Tidegate<Data = unknown> {
  constructor(options: Options<Data>);
  /** Where each channel stands. Given to another client as its `channels`, it goes on from there. */
  readonly positions: Record<string, Since>;
  /** Follows one more channel; `since` is `latest` where nothing is said. */
  subscribe(channel: string, since?: Since): void;
  /** Follows a channel no longer. */
  unsubscribe(channel: string): void;
  /** Ends, for good. */
  close(): void;
}

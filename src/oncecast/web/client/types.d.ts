/** The client's public interface. The modules are checked against it by `tsc`; it is not sent to browsers. */

/**
 * Listen and publish to a server. Nothing is opened before the first `subscribe`, `publish` or `history`.
 * @param url of the server, with or without `/v1` at its end; in a page it may be relative
 */
export declare function connect(url: string | URL, options?: Options): Cast;

export type TransportName = "websocket" | "sse" | "long-poll" | "short-poll";

/** Where to start; at most one of the three. */
export interface Start {
  /** A cursor, `"latest"` or `"earliest"`. */
  after?: string;
  /** With the last N messages of each channel. */
  last?: number;
  /** With the first message at or after this time, in Unix seconds. */
  since?: number;
}

export interface SubscribeOptions extends Start {
  /** Closes the subscription. */
  signal?: AbortSignal;
}

export interface HistoryOptions extends Start {
  /** The largest number of messages; default: `last` for each channel, or 1,000. */
  limit?: number;
  /** Ends the call; the promise rejects with the signal's reason. */
  signal?: AbortSignal;
  /** Milliseconds for which the call is tried; `Infinity` for no limit. Default: `timing.publish`. */
  timeout?: number;
}

export interface SendOptions {
  /** Ends the call; the promise rejects with the signal's reason. The message may be appended all the same. */
  signal?: AbortSignal;
  /** Milliseconds for which the call is tried; `Infinity` for no limit. Default: `timing.publish`. */
  timeout?: number;
}

export interface PublishOptions extends SendOptions {
  /** The event name, 1 to 128 characters. */
  event?: string;
  /** The idempotency key; by default each message has a random one. */
  key?: string;
}

/** A message to publish. */
export interface Draft {
  channel: string;
  data: unknown;
  event?: string;
  key?: string;
}

export interface Options {
  /** Gives the token for `Authorization: Bearer`. Called again, once, with `true`, when the server answers 401. */
  getToken?: (renew: boolean) => string | Promise<string>;
  /** The transports to use, best first. Default: all four. */
  transports?: readonly TransportName[];
  /** Whether the tabs of one origin listen through one connection. Default: where the browser can do it. */
  shareTabs?: boolean;
  /** Writes to `console.debug` what is done, and why. */
  debug?: boolean;
  /** For Node before 22: a WebSocket class, as of `ws`. Without one, the client begins with `sse`. */
  WebSocket?: any;
  /** Instead of the global `fetch`. */
  fetch?: typeof fetch;
  /** The messages that wait for a slow `for await`, before the client stops reading. Default: 1,024. */
  buffer?: number;
  timing?: Partial<Timing>;
}

/** Milliseconds. The defaults suit the internet. */
export interface Timing {
  /** Within which a connection must show life, or it is given up. 2,000 */
  open: number;
  /** A connection that is cut sooner speaks against its transport; at the third one the next transport is used. 10,000 */
  early: number;
  /** The longest time between two tries of a better transport. 30,000 */
  probe: number;
  /** The ceiling of the first pause before reconnecting; it doubles. The server's `retry` replaces it. 1,000 */
  backoff: number;
  /** Between two short polls. 1,000 */
  poll: number;
  /** The longest wait of a long poll. 25,000 */
  wait: number;
  /** Between two heartbeats of the server, until some have come. 15,000 */
  heartbeat: number;
  /** For which a transport that works is remembered. 600,000 */
  memory: number;
  /** For which a WebSocket stays open without a subscription. 5,000 */
  linger: number;
  /** The default `timeout` of `publish`, `publishMany` and `history`. 60,000 */
  publish: number;
}

export interface Message<T = any> {
  /** The cursor just after this message. */
  id: string;
  channel: string;
  /** What was published: a JSON value, a string, or a `Uint8Array`. */
  data: T;
  event: string | null;
  /** When the server's broker appended it, in Unix seconds. */
  time: number;
  /** The trace that it was published in, if it was: W3C Trace Context. */
  traceparent?: string;
}

/** Messages that are missing. */
export interface Gap {
  channel: string;
  reason: "expired" | "epoch" | "slow" | "unknown" | (string & {});
  missed_from: string | null;
  missed_to: string | null;
  /** Where the stream goes on. */
  cursor: string;
}

export interface Receipt {
  id: string;
  durability: "memory" | "process" | "broker" | "fsync" | (string & {});
}

/** A refusal for good: the same request would be refused again. */
export declare class Refused extends Error {
  private constructor();
  /** The server's error code; `"queue_full"` of this client; or null where something in between has refused. */
  readonly code: string | null;
  /** The HTTP status, or 0. */
  readonly status: number;
  /** Milliseconds after which the server would be asked again, where it said so. */
  readonly retryAfter: number | null;
}

/** Some messages of a `publishMany` were not acknowledged. */
export interface PublishError extends AggregateError {
  /** For each message, in order: its receipt, or why there is none. */
  readonly results: readonly (Receipt | Error)[];
}

export interface History<T = any> {
  messages: Message<T>[];
  /** What is missing before or between the messages. */
  gaps: Gap[];
  /** Where a subscription or another call goes on. */
  cursor: string;
}

export type State = "idle" | "connecting" | "live" | "waiting" | "closed";

export interface StateChange {
  from: State;
  to: State;
  reason: string;
}

export interface TransportChange {
  from: TransportName | null;
  to: TransportName;
  reason: string;
}

/** A request to publish has failed, and will be repeated. */
export interface Publishing {
  reason: string;
  /** Failures in a row. */
  attempts: number;
  /** Milliseconds until the next attempt. */
  retry: number;
  /** Messages that are not acknowledged. */
  waiting: number;
}

export interface Cast {
  readonly state: State;
  /** The transport that messages come by, or came by last. */
  readonly transport: TransportName | null;
  /** Listen to a channel, or to several. */
  subscribe<T = any>(channels: string | readonly string[], options?: SubscribeOptions): Subscription<T>;
  /**
   * Publish: a `Uint8Array` or `ArrayBuffer` is kept as binary, a string as text, anything else as JSON. Resolves once
   * the server has acknowledged it, and is repeated until then; it is appended once. What one page publishes keeps its
   * order. Rejects with a `TypeError` for a value that JSON cannot hold, a `Refused`, a `TimeoutError`, or the signal's
   * reason.
   */
  publish(channel: string, data: unknown, options?: PublishOptions): Promise<Receipt>;
  /** Publish several messages. Rejects with a `PublishError` if any is not acknowledged; the others are appended. */
  publishMany(messages: Iterable<Draft>, options?: SendOptions): Promise<Receipt[]>;
  /** What channels have, in the order of the log. Without a start: from the oldest message that is kept. */
  history<T = any>(channels: string | readonly string[], options?: HistoryOptions): Promise<History<T>>;
  on(name: "state", listener: (change: StateChange) => void): () => void;
  on(name: "transport", listener: (change: TransportChange) => void): () => void;
  on(name: "publishing", listener: (failure: Publishing) => void): () => void;
  close(): void;
}

/** The messages of its channels, each once, and in the order of its channel. Closing a `for await` closes it. */
export interface Subscription<T = any> {
  [Symbol.asyncIterator](): AsyncIterableIterator<Message<T>>;
  /** Messages and gaps; only a gap has a `reason`. */
  events(): AsyncIterableIterator<Message<T> | Gap>;
  readonly channels: readonly string[];
  /** For each channel the place after the last message that the application has had, once it is known. */
  readonly cursors: Readonly<Record<string, string>>;
  /** The first of `channels`. */
  readonly channel: string;
  /** The cursor of `channel`: where another subscription would go on. */
  readonly cursor: string | null;
  on(name: "message", listener: (message: Message<T>) => void): () => void;
  on(name: "gap", listener: (gap: Gap) => void): () => void;
  /** The server has said where a channel begins. */
  on(name: "subscribed", listener: (place: { channel: string; cursor: string }) => void): () => void;
  /** The subscription has ended: what was refused will not be tried again. */
  on(name: "error", listener: (error: Refused) => void): () => void;
  close(): void;
}

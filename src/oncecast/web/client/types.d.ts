/**
 * The client's public interface, and what its modules say to one another. The modules are checked against it by
 * `tsc`; it is not sent to browsers.
 */

/**
 * Listen and publish to the server whose interface is at `url`, say `/v1`. Nothing is opened before the first
 * `subscribe` or `publish`.
 */
export declare function connect(url: string, options?: Options): Cast;

export type TransportName = "websocket" | "sse" | "long-poll" | "short-poll";

/** Where a subscription begins: a cursor, an end of the log, the last N messages, or a time in Unix seconds. */
export type Start = string | { last: number } | { since: number };

export interface Options {
  /** Gives the token for `Authorization: Bearer`. Asked again, once, when the server answers 401. */
  getToken?: (renew: boolean) => string | Promise<string>;
  /** The ways to listen, best first. Default: all four. */
  transports?: readonly TransportName[];
  /** Whether the tabs of one origin listen through one connection. Default: where the browser can do it. */
  shareTabs?: boolean;
  /** Tells on `console.debug` what is done, and why. */
  debug?: boolean;
  /** For Node before 22: a WebSocket class, as of `ws`. Without one, the client begins with `sse`. */
  WebSocket?: any;
  /** Instead of the global `fetch`. */
  fetch?: typeof fetch;
  /** How many messages wait for a `for await` that is slow, before the client stops reading. Default: 1024. */
  buffer?: number;
  timing?: Partial<Timing>;
}

/** Milliseconds. The defaults suit the internet. */
export interface Timing {
  /** Within which a connection must show life, or it is given up. 2,000 */
  open: number;
  /** A connection that is cut sooner is a bad sign; at the third one the next transport has its turn. 10,000 */
  early: number;
  /** The longest time between two tries of a better transport. 30,000 */
  probe: number;
  /** The first pause before reconnecting, at most; it doubles. The server's `retry` replaces it. 1,000 */
  backoff: number;
  /** Between two short polls. 1,000 */
  poll: number;
  /** How long a long poll asks the server to wait. 25,000 */
  wait: number;
  /** Between two heartbeats of the server, until the client has seen how long it is. 15,000 */
  heartbeat: number;
  /** For how long a transport that works is remembered. 600,000 */
  memory: number;
}

export interface Message {
  /** The cursor just after this message. */
  id: string;
  channel: string;
  /** What was published: a JSON value, a string, or a `Uint8Array`. */
  data: any;
  event: string | null;
  /** When the server's broker appended it, in Unix seconds. */
  time: number;
}

/** What is missing, said instead of passed over in silence. */
export interface Gap {
  channel: string;
  reason: "expired" | "epoch" | "slow" | "unknown" | string;
  missed_from: string | null;
  missed_to: string | null;
  /** Where the stream goes on. */
  cursor: string;
}

export interface Receipt {
  id: string;
  durability: "memory" | "broker" | "fsync" | string;
}

/** A refusal that a repetition would not change. `code` is the server's, or null where something else has refused. */
export interface Refused extends Error {
  code: string | null;
  status: number;
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

export interface Cast {
  readonly state: State;
  /** What messages come by at present, or came by last. */
  readonly transport: TransportName | null;
  subscribe(channel: string, options?: { after?: Start }): Subscription;
  /**
   * Publish: a `Uint8Array` or `ArrayBuffer` is kept as binary, a string as text, anything else as JSON. Resolves once
   * the server has acknowledged it, and is repeated until then; it is appended once. What one page publishes keeps its
   * order.
   */
  publish(channel: string, data: unknown, options?: { event?: string; key?: string }): Promise<Receipt>;
  on(name: "state", listener: (change: StateChange) => void): () => void;
  on(name: "transport", listener: (change: TransportChange) => void): () => void;
  close(): void;
}

/** The messages of one channel, each once and in order. Closing a `for await` closes it. */
export interface Subscription extends AsyncIterable<Message> {
  readonly channel: string;
  /** The place after the last message that the page has had: where another subscription would go on. */
  readonly cursor: string | null;
  on(name: "message", listener: (message: Message) => void): () => void;
  on(name: "gap", listener: (gap: Gap) => void): () => void;
  /** The server has said where it begins. */
  on(name: "subscribed", listener: (place: { cursor: string }) => void): () => void;
  /** It is over: what was refused will not be tried again. */
  on(name: "error", listener: (error: Refused) => void): () => void;
  close(): void;
}

// Between the modules

/** A subscription, as those see it who feed it (`subscription.js`). */
export interface Feed extends Subscription {
  /** Where it would be read on from. */
  readonly place: Start;
  /** Whether as much waits for the page as may: then nothing is taken. */
  readonly full: boolean;
  readonly closed: boolean;
  refuse(failure: Failure): void;
  /** The feed has `item`, which `cursor` is the place after; before, it was at `told`. */
  take(told: Start, cursor: string, item?: Item): void;
  /** Poll from the place until there is nothing more. */
  fill(reason: string): void;
}

/** What a connection tells. */
export type Tell = (
  ...event:
    | ["told", ...Told]
    | ["refused", channel: string, failure: Failure]
    | ["state", StateChange]
    | ["transport", TransportChange]
) => void;

/** A message or a gap. A gap has a reason, a message never has. */
export type Item = Message | Gap;

/**
 * What a channel's feed tells: `item` and the cursor after it, or only that nothing lies before `cursor`. Who is at
 * `told` or after it has missed nothing.
 */
export type Told = [channel: string, told: Start, cursor: string, item?: Item];

/** A failure to listen or to ask. */
export interface Failure {
  reason: string;
  /** The server does not want to be asked again. */
  fatal?: boolean;
  code?: string | null;
  status?: number;
  /** Milliseconds to wait, at least; -1: not at all. */
  retry?: number;
  /** Nobody's fault: the transport is as good as before. */
  calm?: boolean;
}

export interface Place {
  /** Where the channel's feed is. */
  at: Start;
  /** The place of the last item that was told, or where the feed began. */
  told: Start;
}

/** A way to listen, at work. It reports to its host, and to nobody once it is closed. */
export interface Link {
  /** Whether heartbeats come by it. */
  readonly beats?: boolean;
  /** The channels that are wanted have changed. */
  adjust(): void;
  /** Show that you live. */
  check(reason: string): void;
  close(): void;
}

/** What a link may know and say. */
export interface Host {
  readonly net: Net;
  readonly places: Map<string, Place>;
  /** Whether one of the channels may have been refused, so that each is asked for by itself first. */
  apart: boolean;
  /** It works; `proved`: even the part that is easily cut. */
  opened(link: Link, proved?: boolean): void;
  /** Bytes have come; `beat`: they were a heartbeat. */
  alive(link: Link, beat?: boolean): void;
  item(link: Link, channel: string, cursor: string, item: Item): void;
  /** Nothing of these channels lies before the cursor. */
  raise(link: Link, channels: Iterable<string>, cursor: string): void;
  refused(link: Link, channel: string, failure: Failure): void;
  lost(link: Link, failure: Failure): void;
}

/** How to reach the server. */
export interface Net {
  readonly timing: Timing;
  readonly WebSocket: any;
  /** The pause that the server asks for before a reconnect. */
  retry: number;
  /** How long a long poll may wait on this network. */
  wait: number;
  /** Within which an answer must begin on this network. */
  open: number;
  say(text: string): void;
  url(path: string, query?: Record<string, string | number>): URL;
  token(renew?: boolean): Promise<string | null>;
  /** Rejects with a `Failure` unless the answer is of the 2xx. */
  ask(url: URL, init?: RequestInit): Promise<Response>;
}

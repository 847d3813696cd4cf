/**
 * What the client's modules say to one another; `tsc` checks the modules against it. It is no part of the package.
 */

import type { Gap, Message, State, StateChange, Subscription, Timing, TransportChange } from "./types.js";

/** Where a feed begins: a cursor or an end of the log, the last N messages, or a time in Unix seconds. */
export type Start = string | { last: number } | { since: number };

/** One channel of a subscription, as its connection or another tab feeds it (`feed.js`). */
export interface Feed {
  readonly channel: string;
  /** Where it would be read on from. */
  readonly place: Start;
  /** The feed has `item`: `before` is the place before it, `cursor` the place after it. */
  take(before: Start, cursor: string, item?: Item): void;
  /** Poll from the place until there is nothing more. */
  fill(reason: string): void;
}

/** What a feed delivers to. */
export interface Reader {
  /** Whether as much waits for the application as may: then nothing is taken. */
  readonly full: boolean;
  readonly signal: AbortSignal;
  /** The first cursor of a channel is known. */
  begins(channel: string, cursor: string): void;
  put(channel: string, cursor: string, item?: Item): void;
  refuse(channel: string, failure: Failure): void;
}

/** A subscription, as the client sees it (`subscription.js`). */
export interface Entry {
  readonly subscription: Subscription;
  readonly feeds: Feed[];
  readonly full: boolean;
  readonly closed: boolean;
  refuse(channel: string, failure: Failure): void;
}

/** What a connection tells. */
export type Tell = (
  ...event:
    | ["advance", ...Advance]
    | ["refused", channel: string, failure: Failure]
    | ["state", StateChange]
    | ["transport", TransportChange]
) => void;

/** A message or a gap. A gap has a reason, a message never has. */
export type Item = Message | Gap;

/**
 * An advance of a channel's feed: `item` and the cursor after it, or only that nothing lies before `cursor`. A reader at
 * `before` or after it has missed nothing.
 */
export type Advance = [channel: string, before: Start, cursor: string, item?: Item];

/** A failure to listen or to ask. */
export interface Failure {
  reason: string;
  /** The server does not want to be asked again. */
  fatal?: boolean;
  code?: string | null;
  status?: number;
  /** Milliseconds to wait, at least; -1: not at all. */
  retry?: number;
  /** It says nothing about the transport, which is as good as before. */
  calm?: boolean;
}

export interface Place {
  /** Where the channel's feed is. */
  at: Start;
  /** The place after the last item, or where the feed began. */
  before: Start;
}

/** A way to listen, at work. It reports to its host, and to nobody once it is closed. */
export interface Link {
  /** Whether heartbeats come by it. */
  readonly beats?: boolean;
  /** Whether it can stay open without a channel. */
  readonly lingers?: boolean;
  /** The channels that are wanted have changed. */
  adjust(): void;
  /** Send something that is answered; missing where that is not possible. */
  check?(): void;
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
  /** Between two heartbeats, as announced or as assumed. */
  heartbeat: number;
  /** Whether the server has announced it. */
  announced: boolean;
  /** The characters that a URL may have on this network. */
  urlMax: number;
  say(text: string): void;
  url(path: string, query?: Record<string, string | number>): URL;
  token(renew?: boolean): Promise<string | null>;
  /** Another token before the present one ends; null where there is none. */
  renew(): Promise<string | null>;
  /** Rejects with a `Failure` unless the answer is of the 2xx. */
  ask(url: URL, init?: RequestInit): Promise<Response>;
}

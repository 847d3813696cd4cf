/** What all bindings have. `messages`, `last` and the others are of one channel, and immutable. */

import type { Cast, Gap, Message, Start, State } from "../types.js";

export type { Cast, Gap, Message };

export interface ChannelOptions extends Start {
  /** How many messages are kept, the newest ones. Default: 100; at most 100,000. */
  limit?: number;
  /** Instead of the client that the components share. */
  client?: Cast;
}

/** `"idle"`: without a channel, or not heard; `"closed"`: refused, or the client is closed. */
export type ChannelStatus = State;

export interface ChannelState<T = any> {
  /** The newest `limit` messages since the component asked for them, the oldest first. */
  readonly messages: readonly Message<T>[];
  readonly last: Message<T> | null;
  /** How many messages `limit` has removed from `messages`. */
  readonly dropped: number;
  /** The last gap: messages are missing, so reload what they change. While nobody reads this, each gap is a warning. */
  readonly gap: Gap | null;
  /** Why the channel is closed: a `Refused` of the server, or that the client is closed. */
  readonly error: Error | null;
  readonly status: ChannelStatus;
}

/** Set the client of all components that are given none; by default it is `connect("/")`. */
export declare function setClient(client: Cast): void;

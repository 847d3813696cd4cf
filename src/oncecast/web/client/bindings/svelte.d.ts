import type { Cast, ChannelOptions, ChannelState } from "./types.js";

export * from "./types.js";

/** A readable store, by the contract of `svelte/store`. */
export interface ChannelStore<T = any> {
  subscribe(run: (state: ChannelState<T>) => void): () => void;
}

/**
 * What a channel has, and what arrives while the store has subscribers; `null` is no channel. Stores of the same
 * channel, start and limit share all of it.
 */
export declare function channel<T = any>(name: string | null | undefined, options?: ChannelOptions): ChannelStore<T>;

/** The client of the stores that are given none. */
export declare function getClient(): Cast;

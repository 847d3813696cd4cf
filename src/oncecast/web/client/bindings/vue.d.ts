import type { ComputedRef, InjectionKey, MaybeRefOrGetter } from "vue";

import type { Cast, ChannelOptions, ChannelState } from "./types.js";

export * from "./types.js";

export type ChannelRefs<T = any> = {
  readonly [Name in keyof ChannelState<T>]: ComputedRef<ChannelState<T>[Name]>;
};

/**
 * What a channel has, and what arrives until the scope is disposed; `null` is no channel. Both arguments may be refs or
 * getters, which are followed. Components that ask for the same channel, start and limit share all of it.
 */
export declare function useChannel<T = any>(
  channel: MaybeRefOrGetter<string | null | undefined>,
  options?: MaybeRefOrGetter<ChannelOptions | undefined>,
): ChannelRefs<T>;

/** To give components a client: `app.provide(clientKey, client)`, or `provide` in a component. */
export declare const clientKey: InjectionKey<Cast>;

/** The client that `useChannel` uses here. */
export declare function useClient(): Cast;

import type { FunctionComponentElement, ProviderProps, ReactNode } from "react";

import type { Cast, ChannelOptions, ChannelState } from "./types.js";

export * from "./types.js";

/**
 * What a channel has, and what arrives while the component is mounted; `null` is no channel. Components that ask for the
 * same channel, start and limit share all of it.
 */
export declare function useChannel<T = any>(
  channel: string | null | undefined,
  options?: ChannelOptions,
): ChannelState<T>;

/** Gives the components below it a client. */
export declare function ClientProvider(props: {
  client: Cast;
  children?: ReactNode;
}): FunctionComponentElement<ProviderProps<Cast | null>>;

/** The client that `useChannel` uses here: to publish, and to subscribe in an effect. */
export declare function useClient(): Cast;

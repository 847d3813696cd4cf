/** The binding for Svelte, as a strict application sees it. */

import { connect } from "oncecast";
import { channel, getClient, setClient, type ChannelState } from "oncecast/svelte";
import { derived, get, type Readable } from "svelte/store";

interface Price {
  euros: number;
}

setClient(connect("/"));
const prices = channel<Price>("prices", { last: 10, limit: 50, client: getClient() });
const readable: Readable<ChannelState<Price>> = prices;
get(readable).messages.map(({ data }) => data.euros.toFixed());
derived(prices, ({ last, status }) => (status === "live" ? last?.data.euros : null));
const leave: () => void = prices.subscribe(({ gap, error, dropped }) => [gap?.reason, error?.message, dropped.toFixed()]);
leave();
channel(null);
// @ts-expect-error: a channel has a name
channel(3);
// @ts-expect-error: it is no writable store
prices.set({});

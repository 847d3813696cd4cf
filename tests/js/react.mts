/** The binding for React, as a strict application sees it. */

import { connect, type Message } from "oncecast";
import { ClientProvider, setClient, useChannel, useClient, type ChannelState } from "oncecast/react";

interface Price {
  euros: number;
}

const client = connect("/", { getToken: async () => "token" });
setClient(client);
ClientProvider({ client, children: "text" });
const state: ChannelState<Price> = useChannel<Price>("prices", { last: 10, limit: 50, client });
const { messages, last, gap, error, status, dropped } = state;
messages.map((message: Message<Price>) => message.data.euros.toFixed());
last?.data.euros.toFixed();
gap?.missed_from?.trim();
error?.message.trim();
if (status === "live") dropped.toFixed();
useChannel(Math.random() ? "prices" : null).last?.data.anything;
useClient().publish("prices", { euros: 1 });
// @ts-expect-error: the list is what the store has
messages.push(last);
// @ts-expect-error: there is no such option
useChannel("prices", { size: 3 });
// @ts-expect-error: a provider has a client
ClientProvider({});

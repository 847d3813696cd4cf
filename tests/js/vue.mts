/** The binding for Vue, as a strict application sees it. */

import { connect } from "oncecast";
import { clientKey, setClient, useChannel, useClient } from "oncecast/vue";
import { createApp, provide, ref } from "vue";

interface Price {
  euros: number;
}

const client = connect("/");
setClient(client);
createApp({}).provide(clientKey, client);
provide(clientKey, client);
const { messages, last, gap, error, status, dropped } = useChannel<Price>("prices", { last: 10, limit: 50 });
messages.value.map(({ data }) => data.euros.toFixed());
last.value?.data.euros.toFixed();
gap.value?.missed_from?.trim();
error.value?.message.trim();
if (status.value === "live") dropped.value.toFixed();
useChannel(ref<string | null>(null));
useChannel(() => "prices", () => ({ since: 1, client }));
useClient().publish("prices", { euros: 1 });
// @ts-expect-error: a channel has a name
useChannel(3);
// @ts-expect-error: what is computed is not assigned
status.value = "live";

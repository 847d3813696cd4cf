/** An application in TypeScript, which is compiled against the package as npm would install it. */

import { connect, Refused, type Gap, type Message, type PublishError, type Receipt } from "oncecast";

interface Price {
  euros: number;
}

const cast = connect(new URL("https://example.org/v1"), { timing: { linger: 0 } });
const prices = cast.subscribe<Price>(["a", "b"], { last: 3, signal: new AbortController().signal });
prices.on("message", ({ data }: Message<Price>) => data.euros.toFixed());
prices.on("gap", (gap: Gap) => gap.missed_from);
for await (const { data } of prices) data.euros.toFixed();
for await (const item of prices.events()) {
  if ("reason" in item) item.missed_to;
  else item.data.euros.toFixed();
}
const receipt: Receipt = await cast.publish("a", { euros: 1 }, { key: "k", timeout: 1_000 });
if (receipt.durability === "process") receipt.id.trim();
const { messages, gaps, cursor } = await cast.history<Price>("a", { after: "earliest", limit: 10 });
messages[0].data.euros.toFixed();
gaps[0].reason.trim();
cast.subscribe("a", { after: cursor }).cursor?.trim();
cast.on("publishing", ({ reason, attempts, retry, waiting }) => [reason.trim(), attempts + retry + waiting]);
try {
  await cast.publishMany([{ channel: "a", data: 1 }]);
} catch (error) {
  if (error instanceof Refused) [error.code, error.status, error.retryAfter];
  (error as PublishError).results.length;
}
// @ts-expect-error: there is no such event
cast.on("message", () => {});
// @ts-expect-error: a start is not nested
cast.subscribe("a", { after: { last: 3 } });
cast.close();

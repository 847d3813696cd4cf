/**
 * Listen with `eventsource`: node events.mjs URL COUNT
 *
 * Leaves all coming back to the library, and prints {data, errors, lastEventId} once COUNT messages were heard.
 */

import { EventSource } from "eventsource";

const [, , url, count] = process.argv;
const source = new EventSource(url);
const data = [];
let errors = 0;

source.addEventListener("error", () => (errors += 1));
source.addEventListener("message", (event) => {
  if (data.push(JSON.parse(event.data)) !== Number(count)) return;
  source.close();
  console.log(JSON.stringify({ data, errors, lastEventId: event.lastEventId }));
});

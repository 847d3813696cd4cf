/**
 * The board. Three subscriptions make it: which matches there are, the clock, and the matches themselves.
 *
 * All begin with the last message of each channel, which is its present state; the client goes on from there, also
 * after a cut. So there is no code here for joining late, and none for coming back.
 */

import { connect } from "./rt/oncecast.js";
import { showState } from "./shared/state.js";
import { createCard, words } from "./match.js";

const MATCHES = 32; // on the board at most
const HEARD = 40; // events in the list beside it

const $ = (id) => document.getElementById(id);
const cast = connect("./rt/v1");

showState(cast, $("state"));

let minute = null;
subscribe("clock", ({ data }) => {
  minute = data.minute;
  $("minute").textContent = `${minute}′`;
  $("pause").textContent = data.pause ?? "";
});

let scores = null; // the subscription to the matches of this day
subscribe("matches", ({ data }) => {
  scores?.close();
  $("day").textContent = `Match day ${data.day}`;
  const cards = new Map(data.matches.slice(0, MATCHES).map((match) => [match.channel, createCard(cast, match)]));
  $("board").replaceChildren(...[...cards.values()].map((card) => card.element));
  const known = new Set(); // channels whose present score has come: what follows is news

  scores = subscribe([...cards.keys()], (message) => {
    const { id, channel, data: event } = message;
    const card = cards.get(channel);
    card.show(id, event, { news: known.has(channel) });
    if (known.has(channel)) hear(message, card);
    else if (known.add(channel).size === cards.size) join(cards.size);
  });
});

/** Listen from the present state on. A gap needs nothing: the next message has the whole score again. */
function subscribe(channels, listener) {
  const subscription = cast.subscribe(channels, { last: 1 });
  subscription.on("message", listener);
  subscription.on("gap", () => {});
  return subscription;
}

/** Say what joining has cost; once, as a new day is no joining. */
function join(count) {
  if ($("joined").dataset.minute) return;
  $("joined").dataset.minute = minute ?? 0;
  $("joined").textContent = `You joined in minute ${minute ?? 0}. ${count} messages, one of each match, brought the present score.`;
}

/**
 * Put an event into the list, the latest on top. Each channel's messages come in order; what several of them have for
 * us after a cut may come one channel after the other, so the place is found by the time.
 */
function hear({ id, channel, time, data: event }, card) {
  const line = document.createElement("li");
  Object.assign(line.dataset, { id, channel, time, kind: event.kind });
  const [when, what] = [document.createElement("span"), document.createElement("span")];
  when.textContent = `${event.minute}′`;
  what.textContent = event.team === null ? `${card.name}: ${event.kind}` : words(event, card.teams);
  line.append(when, what);
  $("heard").insertBefore(line, [...$("heard").children].find((other) => Number(other.dataset.time) <= time) ?? null);
  while ($("heard").children.length > HEARD) $("heard").lastElementChild.remove();
  if (event.kind === "goal") $("goal").textContent = `${what.textContent}. ${card.name} ${event.score.join(" to ")}.`;
}

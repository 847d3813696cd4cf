/** The page of the chat. One subscription has all rooms, so a message in another room is counted where it belongs. */

import { connect } from "./rt/oncecast.js";
import { showState } from "./shared/state.js";

const SHOWN = 200; // messages of a room that the page keeps
const TYPING_MS = 3_000; // for which somebody is shown as typing
const TELL_MS = 1_500; // between two notes that this user is typing
const PENS = ["--blue", "--violet", "--green", "--red", "--amber"];

const $ = (id) => document.getElementById(id);
const cast = connect("./rt");
const rooms = await (await fetch("./rooms")).json();
const kept = new Map(rooms.map((room) => [room, { items: [], unread: 0 }]));
const typists = new Map(); // "room name" -> the timer that ends it
let room = rooms.includes(location.hash.slice(1)) ? location.hash.slice(1) : rooms[0];
let told = 0;
let unsent = 0;

showState(cast, $("state"));
$("name").value = localStorage.getItem("chat.name") ?? `Guest ${Math.floor(100 + Math.random() * 900)}`;

const talk = cast.subscribe(rooms.map((each) => `room.${each}`), { last: 50 });
talk.on("message", ({ channel, data, time }) => add(channel.slice("room.".length), { ...data, time }));
talk.on("gap", ({ channel }) => add(channel.slice("room.".length), null));

const typing = cast.subscribe(rooms.map((each) => `typing.${each}`));
typing.on("message", ({ channel, data }) => {
  const key = `${channel.slice("typing.".length)} ${data.name}`;
  clearTimeout(typists.get(key));
  typists.set(key, setTimeout(() => stopTyping(key), TYPING_MS));
  showTyping();
});

/** Keep a message of a room, or `null` for messages that are missing, and show it. */
function add(where, item) {
  const { items } = kept.get(where);
  items.push(item);
  items.splice(0, items.length - SHOWN);
  if (item) stopTyping(`${where} ${item.name}`);
  if (where === room) {
    const list = $("messages");
    const below = list.scrollHeight - list.scrollTop - list.clientHeight;
    list.append(...rows(item, items.at(-2)));
    while (list.children.length > 2 * SHOWN) list.firstElementChild.remove();
    if (below < 80) list.scrollTop = list.scrollHeight; // who reads older messages is left there
  } else {
    kept.get(where).unread += 1;
    showRooms();
  }
}

/** The rows of a message: who and when, unless the message before it says so, and the text. */
function rows(item, before) {
  if (!item) return [element("li", "gap notice", "Older messages than the server keeps are missing here.")];
  const text = element("li", "text", item.text);
  if (before?.name === item.name && item.time - before.time < 300) return [text];
  const who = element("li", "who");
  const name = element("b", "", item.name);
  name.style.setProperty("--pen", `var(${PENS[[...item.name].reduce((sum, c) => sum + c.codePointAt(0), 0) % PENS.length]})`);
  const time = element("time", "", new Date(item.time * 1000).toLocaleTimeString([], { timeStyle: "short" }));
  who.append(name, time);
  return [who, text];
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function showRooms() {
  for (const [index, row] of [...$("rooms").children].entries()) {
    const { unread } = kept.get(rooms[index]);
    row.querySelector("button").ariaCurrent = String(rooms[index] === room);
    const badge = row.querySelector(".unread");
    badge.hidden = unread === 0;
    badge.textContent = unread > 99 ? "99+" : String(unread);
    badge.setAttribute("aria-label", `${unread} unread`);
  }
}

function enter(where) {
  room = where;
  const { items } = kept.get(where);
  kept.get(where).unread = 0;
  history.replaceState(null, "", `#${where}`); // a reload stays in the room
  $("title").textContent = where;
  $("messages").replaceChildren(...items.flatMap((item, index) => rows(item, items[index - 1])));
  $("messages").scrollTop = $("messages").scrollHeight;
  showRooms();
  showTyping();
}

function stopTyping(key) {
  clearTimeout(typists.get(key));
  typists.delete(key);
  showTyping();
}

function showTyping() {
  const names = [...typists.keys()].filter((key) => key.startsWith(`${room} `)).map((key) => key.slice(room.length + 1));
  const others = names.filter((name) => name !== $("name").value.trim()).slice(0, 3);
  $("typing").textContent = others.length ? `${others.join(", ")} ${others.length > 1 ? "are" : "is"} typing…` : "";
}

$("rooms").append(
  ...rooms.map((each) => {
    const row = element("li", "");
    const button = element("button", "");
    button.append(element("span", "", each), element("span", "unread"));
    button.addEventListener("click", () => enter(each));
    row.append(button);
    return row;
  }),
);
enter(room);

$("name").addEventListener("change", () => localStorage.setItem("chat.name", $("name").value.trim()));

$("text").addEventListener("input", () => {
  const now = performance.now();
  if (now - told < TELL_MS || !$("text").value) return;
  told = now;
  cast.publish(`typing.${room}`, { name: $("name").value.trim() }, { timeout: TELL_MS }).catch(() => {}); // of no use later
});

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("text").value;
  $("text").value = "";
  told = 0;
  unsent += 1;
  const outcome = setTimeout(() => { $("outcome").textContent = `Not sent yet: ${unsent}. Waiting for the network.`; }, 1_000);
  try {
    await cast.publish(`room.${room}`, { name: $("name").value.trim(), text });
    $("outcome").textContent = "";
  } catch (error) {
    $("outcome").textContent = `Not sent: ${error.message.replace(`${error.code}: `, "")}`;
    $("text").value ||= text;
  } finally {
    clearTimeout(outcome);
    unsent -= 1;
  }
});

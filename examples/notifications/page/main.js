import { connect } from "./rt/oncecast.js";
import { showState } from "./shared/state.js";
import { createInbox } from "./inbox.js";

const NAMES = { ann: "Ann", ben: "Ben", cleo: "Cleo" };
const TITLE = document.title;
const the = (id) => document.getElementById(id);

let cast = null;
let me = "";
let inbox = createInbox();
let token = { ends: 0, fetched: 0 };

for (const button of document.querySelectorAll("[data-login]")) {
  button.addEventListener("click", () => logIn(button.dataset.login));
}
the("notify").addEventListener("submit", notify);
the("read").addEventListener("click", readAll);
the("spy").addEventListener("click", spy);
setInterval(showToken, 1_000);
if (localStorage.getItem("user")) listen(localStorage.getItem("user")); // the session of before may still hold

async function logIn(user) {
  const answer = await fetch(`./login/${user}`, { method: "POST" });
  if (!answer.ok) return showProblem(await answer.text());
  localStorage.setItem("user", user);
  listen(user);
}

function listen(user) {
  cast?.close();
  me = user;
  inbox = createInbox();
  token = { ends: 0, fetched: 0 };
  // Tabs of a browser share a session, but not a connection: after another login two tabs may belong to two users.
  cast = connect("./rt", { getToken: () => tokenOf(user), shareTabs: false });
  showState(cast, the("state"));
  const channel = cast.subscribe(`user.${user}`, { after: "earliest" });
  channel.on("message", (message) => {
    inbox.take(message);
    showInbox();
  });
  channel.on("gap", () => {}); // messages that are no longer kept are no notifications any more
  channel.on("error", ({ message }) => showProblem(message));
  showProblem("");
  showUser();
  showInbox();
}

/** Fetch a token. The client calls this when it connects, and before the last one ends. */
async function tokenOf(user) {
  const answer = await fetch("./token");
  const text = await answer.text();
  if (answer.status === 401) {
    localStorage.removeItem("user"); // the session is over, and nothing helps but another one
    cast.close();
    showProblem(text);
  }
  if (!answer.ok) throw new Error(text);
  const { sub, exp } = JSON.parse(atob(text.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
  if (me === user && sub !== user) listen(sub); // another tab has logged in as somebody else
  token = { ends: exp, fetched: token.fetched + 1 };
  showToken();
  return text;
}

async function notify(event) {
  event.preventDefault();
  const { to, text } = event.target.elements;
  const answer = await fetch(`./notify/${to.value}`, { method: "POST", body: text.value }).catch(String);
  the("sent").textContent = answer.ok ? `Sent to ${NAMES[to.value]}.` : `Not sent: ${answer.ok === false ? await answer.text() : answer}`;
  if (answer.ok) text.value = "";
}

/** Say in the user's own channel what is read: the other devices of this user hear it too. */
function readAll() {
  const last = inbox.notes.at(-1);
  if (last) cast.publish(`user.${me}`, last.id, { event: "read" });
}

/** Try what the rules forbid. */
function spy() {
  const channel = cast.subscribe(`user.${other()}`);
  channel.on("error", ({ message }) => (the("refusal").textContent = `Refused. ${message}`));
}

function other() {
  return Object.keys(NAMES).find((name) => name !== me);
}

// What is shown

function showProblem(text) {
  the("problem").hidden = !text;
  the("problem").textContent = text;
}

function showUser() {
  the("session").hidden = false;
  the("user").textContent = NAMES[me];
  the("subject").textContent = me;
  the("other").textContent = `user.${other()}`;
  the("refusal").textContent = the("sent").textContent = "";
  the("notify").elements.to.value = other();
  for (const button of document.querySelectorAll("[data-login]")) {
    button.setAttribute("aria-pressed", String(button.dataset.login === me));
  }
}

function showInbox() {
  const { notes, unread } = inbox;
  the("unread").textContent = unread;
  the("unread").toggleAttribute("data-none", !unread);
  the("read").disabled = !unread;
  the("none").hidden = notes.length > 0;
  document.title = unread ? `(${unread}) ${TITLE}` : TITLE;
  the("list").replaceChildren(...notes.toReversed().map(rowOf));
}

function rowOf({ from, text, time, read }) {
  const row = document.createElement("li");
  row.className = read ? "read" : "new";
  const [name, said, when] = ["b", "span", "time"].map((tag) => row.appendChild(document.createElement(tag)));
  name.textContent = NAMES[from] ?? from;
  said.textContent = text;
  when.textContent = new Date(time * 1000).toLocaleTimeString();
  return row;
}

function showToken() {
  the("left").textContent = Math.max(0, Math.round(token.ends - Date.now() / 1000));
  the("fetched").textContent = token.fetched;
}

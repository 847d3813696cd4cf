import { colourOf, createArena } from "./arena.js";
import { openSocket } from "./socket.js";
import { listenToPlayer } from "./steering.js";

const STEER_MS = 1_000; // an unchanged direction is repeated: who says nothing for ten seconds has left
const the = (id) => document.getElementById(id);

export const arena = createArena(the("canvas"));
let me = JSON.parse(sessionStorage.getItem("player") ?? "null"); // a reloaded page goes on as the same player
let direction = [0, 0];
let steered = 0; // how often
let sent = new Map(); // when, by the number
let states = []; // when the last second's came

const socket = openSocket({ token: () => me?.token ?? "", hear, show: showState });
listenToPlayer(the("canvas"), steer, arena.from);
setInterval(publish, STEER_MS);
the("join").addEventListener("submit", join);
play(me);

async function join(event) {
  event.preventDefault();
  const answer = await fetch("./join", { method: "POST", body: event.target.elements.name.value }).catch(() => null);
  showProblem(answer?.ok ? "" : answer ? await answer.text() : "The server can't be reached.");
  if (!answer?.ok) return;
  play(await answer.json());
  socket.login();
  document.activeElement?.blur(); // the keys are for the arena now
}

function play(player) {
  me = player;
  arena.me = me?.id ?? "";
  the("join").hidden = Boolean(me);
  if (me) sessionStorage.setItem("player", JSON.stringify(me));
  else sessionStorage.removeItem("player");
}

/** The server knows the player no more. */
function leave() {
  showProblem("You were away for too long: join again.");
  play(null);
  socket.open(); // as one who watches
}

function steer(x, y) {
  if (direction[0] === x && direction[1] === y) return;
  direction = [x, y];
  publish();
}

function publish() {
  if (!me) return;
  steered += 1;
  sent.set(steered, performance.now());
  if (sent.size > 100) sent.delete(sent.keys().next().value);
  socket.publish("input", direction, steered);
}

function hear({ type, data, ref, code }, size) {
  if (type === "message") {
    arena.take(data);
    states.push(performance.now());
    the("size").textContent = size;
    showPlayers(data.players);
  } else if (type === "published") {
    if (sent.has(ref)) the("delay").textContent = `${(performance.now() - sent.get(ref)).toFixed(1)} ms`;
    sent.delete(ref);
  } else if (type === "error" && me && code !== "too_many_requests") {
    leave();
  }
}

// What is shown

setInterval(() => {
  states = states.filter((time) => time > performance.now() - 1_000);
  the("rate").textContent = states.length;
}, 500);

function showProblem(text) {
  the("problem").hidden = !text;
  the("problem").textContent = text;
}

function showState(text, live) {
  the("state").textContent = text;
  the("state").dataset.state = live ? "live" : "waiting";
}

let shown = "";
function showPlayers(players) {
  const sorted = players.toSorted((one, other) => other[4] - one[4]);
  const text = JSON.stringify([me?.id, sorted.map(([id, , , , score]) => [id, score])]);
  if (text === shown) return;
  shown = text;
  the("players").replaceChildren(
    ...sorted.map(([id, name, , , score]) => {
      const row = document.createElement("tr");
      const head = row.appendChild(document.createElement("th"));
      head.scope = "row";
      head.style.setProperty("--colour", colourOf(id));
      head.textContent = id === me?.id ? `${name} (you)` : name;
      const points = row.appendChild(document.createElement("td"));
      points.className = "number";
      points.textContent = score;
      return row;
    }),
  );
}

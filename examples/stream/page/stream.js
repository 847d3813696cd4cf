/**
 * The page of the stream. What it has of an answer is one value, its pieces and the cursor behind the last of them, and
 * that is kept as one value, so a reload can neither lose a word nor show one twice.
 */

import { connect } from "./rt/oncecast.js";
import { showState } from "./shared/state.js";

const AWAY_SECONDS = 2; // a word that is older when it arrives was written while the page was away

const $ = (id) => document.getElementById(id);
const cast = connect("./rt");
let reading = null; // the subscription

showState(cast, $("state"));
$("again").addEventListener("click", () => location.reload());
$("form").addEventListener("submit", ask);
window.addEventListener("hashchange", read);
read();

async function ask(event) {
  event.preventDefault();
  $("outcome").textContent = "";
  try {
    const answered = await fetch(`./ask?${new URLSearchParams({ question: $("question").value })}`, { method: "POST" });
    const { channel, error } = await answered.json();
    if (error) throw new Error(error);
    location.hash = channel; // the address of the page is that of the answer
  } catch (error) {
    $("outcome").textContent = `Not asked: ${error.message}`;
  }
}

/** Show the answer that the page's address names: what is kept of it, and then what comes after. */
function read() {
  reading?.close();
  const channel = location.hash.slice(1);
  const known = /^answer\.[0-9a-f]{32}$/.test(channel);
  for (const id of ["answer", "facts"]) $(id).hidden = !known;
  $("gap").hidden = true;
  if (!known) return;
  const kept = JSON.parse(sessionStorage.getItem(channel)) ?? { words: [], cursor: "earliest", state: "writing" };
  $("text").replaceChildren();
  kept.words.forEach(append);
  show(kept);
  $("link").href = location.href;
  if (kept.state !== "writing") return;

  reading = cast.subscribe(channel, { after: kept.cursor });
  const mine = reading;
  reading.on("message", ({ id, data, event, time }) => {
    kept.cursor = id;
    if (event) {
      kept.state = event; // done, or failed
      mine.close();
    } else {
      kept.words.push({ text: data, late: Date.now() / 1000 - time > AWAY_SECONDS });
      append(kept.words.at(-1));
    }
    sessionStorage.setItem(channel, JSON.stringify(kept));
    show(kept);
  });
  reading.on("gap", () => { $("gap").hidden = false; });
  reading.on("error", (error) => { $("outcome").textContent = `Not read: ${error.message}`; });
}

function append({ text, late }) {
  const word = document.createElement("span");
  word.textContent = text;
  word.className = late ? "late" : "";
  $("text").append(word);
}

function show({ words, cursor, state }) {
  $("answer").dataset.state = state;
  $("answer").ariaBusy = String(state === "writing"); // a screen reader waits for the end
  $("words").textContent = String(words.length);
  $("late").textContent = String(words.filter(({ late }) => late).length);
  $("cursor").textContent = cursor;
}

import { connect } from "./rt/oncecast.js";
import { showState } from "./shared/state.js";
import { bind } from "./binding.js";
import { keepHistory } from "./history.js";
import { meetPeople } from "./people.js";
import { Doc } from "./yjs.js";

const GUESTS = ["Heron", "Otter", "Lynx", "Wren", "Badger", "Swift", "Hare", "Stork"];
const the = (id) => document.getElementById(id);

const doc = new Doc();
const text = doc.getText("text");
const area = the("text");
const cast = connect("./rt");
let unsaved = false;

the("name").value = sessionStorage.getItem("name") ?? GUESTS[Math.floor(Math.random() * GUESTS.length)];
the("name").addEventListener("input", () => {
  sessionStorage.setItem("name", the("name").value);
  people.moved();
});

showState(cast, the("state"));
const apply = bind(area, text, () => {
  people.moved();
  showPeople();
});
const people = meetPeople(cast, text, area, () => the("name").value, showPeople);
keepHistory(cast, doc, { apply, show: showHistory, fail: showProblem });
area.addEventListener("scroll", () => (the("carets").scrollTop = area.scrollTop));
addEventListener("beforeunload", (event) => unsaved && event.preventDefault());

function showProblem({ message }) {
  the("problem").hidden = false;
  the("problem").textContent = message;
}

function showHistory(history) {
  unsaved = history.unsaved;
  the("saved").textContent = unsaved ? "Saving" : "Saved";
  the("changes").textContent = history.heard;
}

/** Show who is there, in a list and behind the text: a copy of the text, which can't be seen, has the carets in it. */
function showPeople() {
  const all = people.list().toSorted((one, other) => one.at - other.at);
  the("people").replaceChildren(
    ...all.map(({ id, name, at }) => {
      const row = document.createElement("li");
      row.style.setProperty("--hue", hueOf(id));
      row.textContent = at < 0 ? name : `${name}, line ${text.toString().slice(0, at).split("\n").length}`;
      return row;
    }),
  );
  const shown = text.toString();
  let from = 0;
  const pieces = all.flatMap(({ id, name, at }) => {
    if (at < 0) return [];
    const caret = document.createElement("span");
    caret.dataset.name = name;
    caret.style.setProperty("--hue", hueOf(id));
    const before = shown.slice(from, at);
    from = at;
    return [before, caret];
  });
  the("carets").replaceChildren(...pieces, shown.slice(from) + "\n");
  the("carets").scrollTop = area.scrollTop;
}

/** Return a person's colour, the same in every page. */
function hueOf(id) {
  return (parseInt(id.slice(0, 4), 16) * 137) % 360 || 0;
}

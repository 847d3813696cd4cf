/** A match on the board: its score, what happened last, and on demand its story from the kick-off. */

const STORY = 200; // events shown of one match

const begun = (text) => `${text[0].toUpperCase()}${text.slice(1)}`;

const whose = ({ kind, team }, teams) => ` ${kind === "goal" ? "by" : "for"} ${teams[team]}`;

/** What happened, in words. */
export function words(event, teams) {
  return begun(event.kind) + (event.team === null ? "" : `${whose(event, teams)}, number ${event.shirt}`);
}

/** Make the card of a match. `show` takes an event; with `news`, a goal is made visible as one. */
export function createCard(cast, { channel, teams }) {
  const element = document.getElementById("match").content.firstElementChild.cloneNode(true);
  const find = (selector) => element.querySelector(selector);
  element.dataset.channel = channel;
  [find(".home").textContent, find(".away").textContent] = teams;

  let story = null; // the subscription, while the story is open
  find("details").addEventListener("toggle", ({ target }) => {
    story?.close();
    find(".story").replaceChildren();
    if (!target.open) return;
    story = cast.subscribe(channel, { after: "earliest" });
    story.on("message", ({ id, data }) => tell(id, data));
    story.on("gap", () => tell("", { minute: "?", kind: "events are missing here", team: null }));
  });

  /** Put a line on top of the story. Its side says whose it is; for those who do not see the side, a text does. */
  function tell(id, event) {
    const line = document.createElement("li");
    const [minute, text, team] = ["span", "span", "span"].map((name) => document.createElement(name));
    Object.assign(line.dataset, { id, kind: event.kind, side: ["home", "away"][event.team] ?? "both" });
    minute.textContent = `${event.minute}′`;
    text.textContent = begun(event.kind) + (event.team === null ? "" : `, number ${event.shirt}`);
    if (event.team !== null) team.textContent = whose(event, teams);
    team.className = "unseen";
    text.append(team);
    line.append(minute, text);
    find(".story").prepend(line);
    if (find(".story").children.length > STORY) find(".story").lastElementChild.remove();
  }

  return {
    element,
    teams,
    name: teams.join(" – "),
    show(id, event, { news }) {
      element.dataset.id = id;
      find(".score").textContent = event.score.join(" : ");
      find(".last").textContent = `${event.minute}′ ${words(event, teams)}`;
      if (!news || event.kind !== "goal") return;
      element.classList.remove("goal");
      void element.offsetWidth; // the animation begins again
      element.classList.add("goal");
    },
  };
}

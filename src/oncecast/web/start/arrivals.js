/**
 * One publish, four arrivals: a table that shows for each message when each listener got it.
 *
 * The acknowledgement or the first listener makes the row of a message; the others add to it.
 */

import { element } from "./dom.js";
import * as format from "./format.js";

/** Rows kept. The newest is on top. */
const ROWS = 4;

/** The bar under a delay is logarithmic, from this to this many milliseconds. */
const FASTEST_MS = 0.1;
const SLOWEST_MS = 10_000;

const TEXT_CHARS = 200;

const UNNAMED = "An EventSource hears a named event only if it listened for that name.";
const LATE = "Published while this listener was away, and caught up on return.";
const EXPIRED = "It expired while this listener was away, and a gap said so.";
const BEFORE = "Published before the part of the log that this listener began with.";
const MISSED = "This listener has read past it, and no gap was declared.";

/**
 * @typedef {{cell: HTMLTableCellElement, done: boolean}} Arrival
 *
 * @typedef {object} Row
 * @property {HTMLElement} body
 * @property {HTMLElement} note
 * @property {Map<string, Arrival>} cells by kind of listener
 * @property {number} time Unix seconds, the server's clock; infinite while only the acknowledgement is known
 */

export class Arrivals {
  /** @type {Map<string, Row>} */
  #rows = new Map();

  /** @type {Map<string, boolean>} whether each listener is cut */
  #away = new Map();

  /**
   * @param {HTMLTableElement} table
   * @param {readonly string[]} kinds of the listeners, in the order of the columns
   * @param {string} channel whose messages are shown
   */
  constructor(table, kinds, channel) {
    this.table = table;
    this.kinds = kinds;
    this.channel = channel;
  }

  /**
   * Enter the acknowledgement of a message.
   * @param {string} id
   * @param {unknown} data
   */
  published(id, data) {
    const row = this.#row(id, data);
    row.body.dataset.own = "";
    this.#count(row);
  }

  /**
   * Enter the arrival of a message at a listener.
   * @param {string} kind
   * @param {import("./transport.js").Message} message
   * @param {import("./panel.js").Delivery} delivery
   * @param {boolean} history whether it is older than the page
   */
  arrived(kind, message, { delay, late }, history) {
    const row = this.#row(message.id, message.data, message.event);
    row.time = message.time;
    const arrival = row.cells.get(kind);
    if (!arrival || arrival.done) return;
    arrival.done = true;
    const { cell } = arrival;
    cell.dataset.ms = String(Math.round(delay * 10) / 10);
    cell.dataset.outcome = history ? "history" : late ? "late" : "live";
    const text = history ? "earlier" : late ? `+${format.duration(delay)}` : format.duration(delay);
    this.#fill(cell, text, history ? null : delay);
    cell.title = late && !history ? LATE : "";
    this.#count(row);
  }

  /**
   * A listener has reached a time, so an older message that it lacks will most likely not come. The cell gives the reason:
   * a declared gap, a listener that began after the message, or a named event, which an `EventSource` receives only with
   * a listener for that name. A message that comes later all the same is entered: channels may be caught up one after the
   * other.
   * @param {string} kind
   * @param {number} time Unix seconds, the server's clock
   * @param {{begins: number, lacks: (channel: string, id: string) => boolean}} panel
   */
  passed(kind, time, panel) {
    for (const [id, row] of this.#rows) {
      const arrival = row.cells.get(kind);
      if (!arrival || arrival.done || row.time >= time) continue;
      const [text, title] = this.#why(kind, id, row, panel);
      arrival.cell.dataset.outcome = title === MISSED ? "missed" : "unheard";
      arrival.cell.title = title;
      this.#fill(arrival.cell, text, null);
    }
  }

  /**
   * Return why a listener lacks a message.
   * @param {string} kind
   * @param {string} id
   * @param {Row} row
   * @param {{begins: number, lacks: (channel: string, id: string) => boolean}} panel
   */
  #why(kind, id, row, panel) {
    if (kind === "sse" && row.note.dataset.event) return ["unnamed", UNNAMED];
    if (panel.lacks(this.channel, id)) return ["gap", EXPIRED];
    return row.time < panel.begins ? ["before", BEFORE] : ["missed", MISSED];
  }

  /**
   * A listener went away, or came back.
   * @param {string} kind
   * @param {boolean} away
   */
  away(kind, away) {
    this.#away.set(kind, away);
    for (const { cells } of this.#rows.values()) {
      const arrival = cells.get(kind);
      if (arrival && !arrival.done) this.#wait(kind, arrival);
    }
  }

  // Elements

  /**
   * @param {string} id
   * @param {unknown} data
   * @param {string | null} [event]
   */
  #row(id, data, event = null) {
    const known = this.#rows.get(id);
    if (known) {
      if (event) known.note.dataset.event = event;
      return known;
    }
    const body = document.createElement("tbody");
    body.dataset.messageId = id;
    const top = body.insertRow();
    const head = document.createElement("th");
    head.scope = "rowgroup";
    head.colSpan = this.kinds.length;
    const note = element("span", "", "note");
    if (event) note.dataset.event = event;
    // The text may be in any script: `bdi` isolates its direction from that of the row.
    head.append(element("span", id, "said-id"), element("bdi", shown(data), "said"), note);
    top.append(head);

    const cells = new Map();
    const bottom = body.insertRow();
    for (const kind of this.kinds) {
      const cell = bottom.insertCell();
      cell.dataset.arrival = kind;
      const arrival = { cell, done: false };
      cells.set(kind, arrival);
      this.#wait(kind, arrival);
    }
    const row = { body, note, cells, time: Infinity };
    this.#rows.set(id, row);
    this.#place(row);
    return row;
  }

  /** Insert a row by its time, newest first, and remove the rows beyond the bound. @param {Row} row */
  #place({ body }) {
    this.table.querySelector("[data-empty]")?.remove();
    this.table.tHead?.after(body);
    for (const [id, row] of this.#rows) {
      if (this.#rows.size <= ROWS) return;
      this.#rows.delete(id); // a Map is in order of insertion: the oldest first
      row.body.remove();
    }
  }

  /**
   * @param {string} kind
   * @param {Arrival} arrival
   */
  #wait(kind, { cell }) {
    cell.dataset.outcome = this.#away.get(kind) ? "away" : "waiting";
    this.#fill(cell, this.#away.get(kind) ? "cut" : "…", null);
  }

  /** @param {Row} row */
  #count({ body, note, cells }) {
    const done = [...cells.values()].filter((arrival) => arrival.done).length;
    const event = note.dataset.event ? `event: ${note.dataset.event} · ` : "";
    note.textContent = `${event}${done} of ${cells.size}`;
    body.dataset.arrivals = String(done);
  }

  /**
   * @param {HTMLTableCellElement} cell
   * @param {string} text
   * @param {number | null} delay
   */
  #fill(cell, text, delay) {
    cell.replaceChildren(element("span", text, "when"));
    if (delay === null) return;
    const bar = element("span", "", "bar");
    const share = Math.log(Math.max(delay, FASTEST_MS) / FASTEST_MS) / Math.log(SLOWEST_MS / FASTEST_MS);
    bar.style.setProperty("--share", String(Math.min(1, share)));
    cell.append(bar);
  }
}

/** @param {unknown} data */
function shown(data) {
  const text = typeof data === "string" ? data : (JSON.stringify(data) ?? "binary data");
  return text.length > TEXT_CHARS ? `${text.slice(0, TEXT_CHARS)}…` : text;
}

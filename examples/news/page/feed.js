/** The list of items, the newest first, and what is new since the last visit. */

const SHOWN = 1_000; // items in the list at most; the oldest leave it
const VISIT = "news.visit"; // in localStorage: the time of the newest item that was shown

/** @param {HTMLElement} list */
export function createFeed(list) {
  const elements = new Map(); // by the message's id
  const since = Number(localStorage.getItem(VISIT) ?? Infinity);
  let live = 0;

  return {
    get size() {
      return elements.size;
    },
    get live() {
      return live;
    },
    clear() {
      elements.clear();
      list.replaceChildren();
      live = 0;
    },
    /** Put messages on top, the oldest of them first. */
    add(messages, { live: isLive = false } = {}) {
      for (const message of messages) {
        const element = createItem(message, { isNew: message.time > since, isLive });
        elements.set(message.id, element);
        list.prepend(element);
        live += isLive ? 1 : 0;
        localStorage.setItem(VISIT, message.time);
      }
      while (elements.size > SHOWN) {
        elements.delete(list.lastElementChild.dataset.id);
        list.lastElementChild.remove();
      }
    },
    /** Put those messages below that come before all that are here; return the newest one's element. */
    addOlder(messages) {
      const here = messages.findIndex(({ id }) => elements.has(id));
      const older = messages.slice(0, here === -1 ? messages.length : here).reverse();
      const added = older.slice(0, SHOWN - elements.size).map((message) => {
        const element = createItem(message, { isNew: message.time > since, isLive: false });
        elements.set(message.id, element);
        list.append(element);
        return element;
      });
      return added[0];
    },
  };
}

function createItem({ id, channel, data, time }, { isNew, isLive }) {
  const item = document.createElement("li");
  item.tabIndex = -1;
  Object.assign(item.dataset, { id, new: isNew, live: isLive });
  const [title, about, when] = ["h3", "p", "time"].map((name) => document.createElement(name));
  title.textContent = data.title;
  const date = new Date(time * 1000);
  when.dateTime = date.toISOString();
  when.textContent = date.toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
  const category = document.createElement("b");
  category.textContent = channel.split(".")[1];
  category.dataset.category = category.textContent;
  about.append(category, " · ", when, data.by ? ` · by ${data.by}` : "", isNew ? " · new since your last visit" : "");
  item.append(title, about);
  return item;
}

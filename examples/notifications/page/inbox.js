/**
 * What a user's channel says: the notifications, and which of them are read. It needs no other store, as the channel's
 * log is replayed from its oldest message when the page is opened.
 */

const MOST = 200; // what oncecast.toml keeps

export function createInbox() {
  /** The notifications, the oldest first. @type {{ id: string, from: string, text: string, time: number, read: boolean }[]} */
  const notes = [];
  return {
    notes,
    get unread() {
      return notes.filter(({ read }) => !read).length;
    },
    take,
  };

  /** Take the next message of the channel. */
  function take({ id, event, data, time }) {
    if (event === "read") {
      const last = notes.findIndex((note) => note.id === data); // one that is no longer kept is -1
      for (const note of notes.slice(0, last + 1)) note.read = true;
    } else if (event === "notification") {
      notes.push({ id, from: data.from, text: data.text, time, read: false });
      if (notes.length > MOST) notes.shift();
    }
  }
}

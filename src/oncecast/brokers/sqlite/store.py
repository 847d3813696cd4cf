"""What is asked of the log in an SQLite file by the thread that writes: its beginning, to append, and to follow.

Invariants
* Numbers are given inside the write transaction, one after the other, so that two processes never give the same one and
  a life of the log has no holes: a range with fewer rows than numbers has been trimmed.
* `channels.mark_seq` and `mark_time` are those of the channel's last trimmed message.
* Times never decrease along the numbers.
* The head is the greater of `log.head` and the last row's number, so that a commit writes two pages where it can: the
  end of the messages and the end of their index. A step that deletes a row raises `log.head` and `log.time` to it.

A **life** begins when the file is opened by the only process that has it open. Its numbers start above
`NUMBERS_A_SECOND` times the seconds since the file was made, which no earlier life can have reached. So if the file is
an older copy put back, or has lost its end in a power cut, the numbers that are gone are never given again: they lie in
a hole between two lives, and a cursor from there is answered with a gap (`Opening.holes`).

The file itself, without its write-ahead log, always says which life it is of (`log.life`): `begin` sees to that. So it
can be known, before SQLite opens it, whether the two belong together (`life_of`).

The tables are in `file.py`, the pages of the history in `pages.py`, and what trims in `trims.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...message import Draft, Mark, Message, Receipt
from ..base import NUMBERS_A_SECOND, Opening
from ..stored import stored_data, stored_kind
from .file import MESSAGE, File, Row
from .pages import Pages
from .trims import Trims

RECENT = 10_000  # messages read at the start, so that clients that come back at once are served from memory
RECENT_BYTES = 16 << 20
HOLES = 1000  # lives of the log whose lost ends are known; a cursor from before that is believed


@dataclass(frozen=True, slots=True)
class Appended:
    """What came of an append: a receipt for each draft, and the messages made, which begin after `before`.

    `others` is what other processes had appended before that, or None where some of it is gone or it is too much.
    """

    receipts: list[Receipt]
    messages: list[Message]
    others: list[Message] | None
    before: int


class Store:
    """The log. `pages` and `trims` use the same connection."""

    def __init__(self, path: Path, *, durability: str, write: bool = True) -> None:
        self.file = File(path, durability=durability, write=write)
        self.pages = Pages(self.file)
        self.trims = Trims(self.file)
        self.epoch = ""
        self._durability = durability
        self._db = self.file.db

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    # -- the beginning

    def begin(self, epoch: str, now: float, *, alone: bool) -> Opening:
        """Return where the log stands. `alone` begins a new life; `epoch` is the name of a log that is made now."""
        if alone:
            # What earlier lives have left goes into the file first: a crash before the note is made loses nothing.
            self._checkpoint()
            with self.file.writing():
                if self._db.execute("SELECT 1 FROM log").fetchone() is None:
                    self._db.execute("INSERT INTO log VALUES (1, ?, ?, 0, 0, 0, 0, 0)", (epoch, now))
                else:
                    self._begin_life(now)
            self._checkpoint()
        with self.file.reading():
            self.epoch = self._db.execute("SELECT epoch FROM log").fetchone()[0]
            head, time = self.file.head()
            recent, floor, marks = self._recent(head, time)
            holes = tuple(self._db.execute("SELECT before, after FROM holes ORDER BY before"))
        return Opening(self.epoch, head=head, floor=floor, recent=recent, marks=marks, holes=holes)

    def _begin_life(self, now: float) -> None:
        created = self._db.execute("SELECT created FROM log").fetchone()[0]
        head, time = self.file.head()
        # A second ahead of the clock, so that it is above what came at once after an earlier life began; no further, or
        # a server that is started again and again runs ahead of what an older copy of the file can know.
        first = int((max(now, time) - created + 1) * NUMBERS_A_SECOND)
        if first <= head:  # the clock was set back: a number that another life in its place would hardly begin with
            first = head + 1 + secrets.randbelow(NUMBERS_A_SECOND)
        self._db.execute("INSERT INTO holes VALUES (?, ?)", (head, first))
        self._db.execute(
            "DELETE FROM holes WHERE before <= (SELECT before FROM holes ORDER BY before DESC LIMIT 1 OFFSET ?)",
            (HOLES,),
        )
        self._db.execute("UPDATE log SET head = ?, life = ?", (first, first))

    def _checkpoint(self) -> None:
        """Move the write-ahead log into the file."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _recent(self, head: int, time: float) -> tuple[tuple[Message, ...], Mark, dict[str, Mark]]:
        """Return the end of the log, the last message before it, and which channels have been trimmed inside it."""
        rows: list[Row] = []
        size = 0
        for row in self._db.execute(f"{MESSAGE} ORDER BY m.seq DESC LIMIT ?", (RECENT,)):
            size += len(row[2])
            if size > RECENT_BYTES:
                break
            rows.append(row)
        # No message before has a later time than the first of these.
        floor = Mark(rows[-1][0] - 1, rows[-1][5]) if rows else Mark(head, time)
        marks = {
            name: Mark(*mark)
            for name, *mark in self._db.execute(
                "SELECT name, mark_seq, mark_time FROM channels WHERE mark_seq > ? LIMIT ?", (floor.seq, RECENT + 1)
            )
        }
        if len(marks) > RECENT:
            return (), Mark(head, time), {}
        messages = [message for row in reversed(rows) if (message := self.file.message(row)) is not None]
        return tuple(messages), floor, marks

    # -- writing and following

    def append(self, drafts: Sequence[Draft], now: float, key_seconds: float, seen: int) -> Appended:
        """Append drafts in one transaction; `seen` is the number up to which this process knows the log."""
        with self.file.writing():
            head, time = self.file.head()
            before = head
            others = self._between(seen, head)
            now = max(now, time)
            receipts: list[Receipt] = []
            messages: list[Message] = []
            rows = []
            ids: dict[str, int] = {}
            keys: dict[tuple[int, str], int] = {}
            for draft in drafts:
                channel = ids.get(draft.channel) or ids.setdefault(draft.channel, self._channel(draft.channel))
                if draft.key is not None:
                    first = keys.get((channel, draft.key)) or self._keyed(channel, draft.key, now - key_seconds)
                    if first:
                        receipts.append(Receipt(self.epoch, first, self._durability))
                        continue
                head += 1
                if draft.key is not None:
                    keys[channel, draft.key] = head
                rows.append((head, channel, stored_kind(draft), draft.event, now, stored_data(draft)))
                messages.append(Message(head, draft.channel, draft.data, draft.kind, draft.event, now, draft.trace))
                receipts.append(Receipt(self.epoch, head, self._durability))
            if rows:
                self._db.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?)", rows)
            if keys:
                named = [(channel, key, seq, now) for (channel, key), seq in keys.items()]
                self._db.executemany("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?)", named)
        return Appended(receipts, messages, others, before)

    def follow(self, seen: int) -> tuple[int, list[Message] | None]:
        """Return the head, and what was appended after `seen`; None where some of it is gone, or it is too much."""
        with self.file.reading():
            head, _ = self.file.head()
            return head, self._between(seen, head)

    def _between(self, seen: int, head: int) -> list[Message] | None:
        if head == seen:
            return []
        if head - seen > RECENT:
            return None
        messages = []
        found = size = 0
        for row in self._db.execute(f"{MESSAGE} WHERE m.seq > ? AND m.seq <= ? ORDER BY m.seq", (seen, head)):
            size += len(row[2])
            if size > RECENT_BYTES:
                return None
            found += 1
            if (message := self.file.message(row)) is not None:
                messages.append(message)
        return messages if found == head - seen else None

    def _channel(self, name: str) -> int:
        row = self._db.execute("SELECT id FROM channels WHERE name = ?", (name,)).fetchone()
        if row is None:  # it may have been there before, and be forgotten
            row = self._db.execute(
                "INSERT INTO channels SELECT NULL, ?, floor_seq, floor_time FROM log RETURNING id", (name,)
            ).fetchone()
        channel: int = row[0]
        return channel

    def _keyed(self, channel: int, key: str, oldest: float) -> int | None:
        row = self._db.execute(
            "SELECT seq FROM keys WHERE channel = ? AND key = ? AND time > ?", (channel, key, oldest)
        ).fetchone()
        return None if row is None else row[0]

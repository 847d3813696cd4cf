"""The log in an SQLite file: its tables, and what is asked of them. One connection, used by one thread at a time.

Invariants
* Numbers are given inside the write transaction, one after the other, so that two processes never give the same one and
  a life of the log has no holes: a range with fewer rows than numbers has been trimmed.
* `channels.mark_seq` and `mark_time` are those of the channel's last trimmed message.
* Times never decrease along the numbers.
* The head is the greater of `log.head` and the last row's number, so that a commit writes two pages where it can: the
  end of the messages and the end of their index. Whoever deletes a row raises `log.head` and `log.time` to it.

A **life** begins when the file is opened and nobody else has it open. Its numbers start above `NUMBERS_A_SECOND` times
the seconds since the file was made, which no earlier life can have reached. So if the file is an older copy put back,
or has lost its end in a power cut, the numbers that are gone are never given again: they lie in a hole between two
lives, and who holds a cursor from there is told so (`Opening.holes`).

The file itself, without its write-ahead log, always says which life it is of (`log.life`): `begin` sees to that. So it
can be known, before SQLite opens it, whether the two belong together (`life_of`).

To change the tables, raise `VERSION` and say in `open_file` what becomes of older files.
"""

from __future__ import annotations

import contextlib
import heapq
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from ...errors import ConfigurationError
from ...message import Draft, Kind, Mark, Message, Page, Receipt, Retention, Start, StartKind
from ..base import Opening

VERSION = 1  # of the tables, in the file's user_version
APPLICATION = 0x4F636173  # "Ocas", in the file's application_id
NUMBERS_A_SECOND = 1 << 17  # more than is ever published; a life of the log begins above them
BUSY_SECONDS = 5.0  # for what other programs do to the file: a backup, a look inside
PAGES_KEPT = 4000  # 4 KiB each: the cache of a connection
CHECKPOINT_PAGES = 2000  # of the write-ahead log, before they are moved into the file
RECENT = 10_000  # messages read at the start, so that clients that come back at once are served from memory
RECENT_BYTES = 16 << 20
HOLES = 1000  # lives of the log whose lost ends are known; a cursor from before that is taken at its word
FORGET_SECONDS = 7 * 86400.0  # a channel with nothing left is forgotten, and its mark merged into the floor
SWEEP_CHANNELS = 500  # looked at in one step of the sweep
TRIM_ROWS = 500  # trimmed in one transaction: a few milliseconds

_TABLES = """
CREATE TABLE log (
    id INTEGER PRIMARY KEY CHECK (id = 1), epoch TEXT NOT NULL, created REAL NOT NULL,
    life INTEGER NOT NULL, head INTEGER NOT NULL, time REAL NOT NULL,
    floor_seq INTEGER NOT NULL, floor_time REAL NOT NULL
);
CREATE TABLE holes (before INTEGER PRIMARY KEY, after INTEGER NOT NULL);
CREATE TABLE channels (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, mark_seq INTEGER NOT NULL, mark_time REAL NOT NULL
);
CREATE TABLE messages (
    seq INTEGER PRIMARY KEY, channel INTEGER NOT NULL, kind INTEGER NOT NULL, event TEXT, time REAL NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX messages_of_channel ON messages (channel);
CREATE TABLE keys (
    channel INTEGER NOT NULL, key TEXT NOT NULL, seq INTEGER NOT NULL, time REAL NOT NULL, PRIMARY KEY (channel, key)
) WITHOUT ROWID;
CREATE INDEX keys_by_time ON keys (time);
"""
_MESSAGE = "SELECT m.seq, c.name, m.data, m.kind, m.event, m.time FROM messages m JOIN channels c ON c.id = m.channel"

_IS_EMPTY = "mark_time > 0 AND mark_time < ? AND NOT EXISTS (SELECT 1 FROM messages m WHERE m.channel = c.id)"
_EMPTY = f"SELECT id, mark_seq, mark_time FROM channels c WHERE {_IS_EMPTY} LIMIT ?"  # noqa: S608 - no input in it
_FORGET = f"DELETE FROM channels AS c WHERE {_IS_EMPTY} AND id = ?"  # noqa: S608
_OLDEST = "SELECT seq FROM messages WHERE channel = ? ORDER BY seq LIMIT ?"
_LAST_OF = "SELECT min(seq) FROM (SELECT seq FROM messages WHERE channel = ? ORDER BY seq DESC LIMIT ?)"
_NEWEST = "SELECT seq FROM messages WHERE channel = ? ORDER BY seq DESC LIMIT ?"
_LAST = "SELECT seq, time FROM messages ORDER BY seq DESC LIMIT 1"
_NEXT = "SELECT seq, time FROM messages WHERE seq >= ? ORDER BY seq LIMIT 1"

Row = tuple[int, str, bytes, int, str | None, float]
Policy = Callable[[str], Retention]


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
    """One connection to the file. Raises `sqlite3.Error` where the disk or the file fails."""

    def __init__(self, path: Path, *, durability: str, write: bool = True) -> None:
        self.durability = durability
        self.epoch = ""
        self._db = open_file(path, durability, write=write)
        self._swept = 0

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # -- the beginning

    def begin(self, epoch: str, now: float, *, alone: bool) -> Opening:
        """Return where the log stands. `alone` begins a new life; `epoch` is the name of a log that is made now."""
        if alone:
            # What earlier lives have left goes into the file first: a crash before the note is made loses nothing.
            self._checkpoint()
            with self._writing():
                if self._db.execute("SELECT 1 FROM log").fetchone() is None:
                    self._db.execute("INSERT INTO log VALUES (1, ?, ?, 0, 0, 0, 0, 0)", (epoch, now))
                else:
                    self._begin_life(now)
            self._checkpoint()
        with self._reading():
            self.epoch = self._db.execute("SELECT epoch FROM log").fetchone()[0]
            head, time = self._head()
            recent, floor, marks = self._recent(head, time)
            holes = tuple(self._db.execute("SELECT before, after FROM holes ORDER BY before"))
        return Opening(self.epoch, head=head, floor=floor, recent=recent, marks=marks, holes=holes)

    def _begin_life(self, now: float) -> None:
        created = self._db.execute("SELECT created FROM log").fetchone()[0]
        head, time = self._head()
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
        for row in self._db.execute(f"{_MESSAGE} ORDER BY m.seq DESC LIMIT ?", (RECENT,)):
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
        return tuple(map(_message, reversed(rows))), floor, marks

    # -- writing

    def append(self, drafts: Sequence[Draft], now: float, key_seconds: float, seen: int) -> Appended:
        """Append drafts in one transaction; `seen` is the number up to which this process knows the log."""
        with self._writing():
            head, time = self._head()
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
                        receipts.append(Receipt(self.epoch, first, self.durability))
                        continue
                head += 1
                if draft.key is not None:
                    keys[channel, draft.key] = head
                rows.append((head, channel, int(draft.kind), draft.event, now, draft.data))
                messages.append(Message(head, draft.channel, draft.data, draft.kind, draft.event, now))
                receipts.append(Receipt(self.epoch, head, self.durability))
            if rows:
                self._db.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?)", rows)
            if keys:
                named = [(channel, key, seq, now) for (channel, key), seq in keys.items()]
                self._db.executemany("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?)", named)
        return Appended(receipts, messages, others, before)

    def follow(self, seen: int) -> tuple[int, list[Message] | None]:
        """Return the head, and what was appended after `seen`; None where some of it is gone, or it is too much."""
        with self._reading():
            head, _ = self._head()
            return head, self._between(seen, head)

    def _between(self, seen: int, head: int) -> list[Message] | None:
        if head == seen:
            return []
        if head - seen > RECENT:
            return None
        messages = []
        size = 0
        for row in self._db.execute(f"{_MESSAGE} WHERE m.seq > ? AND m.seq <= ? ORDER BY m.seq", (seen, head)):
            size += len(row[2])
            if size > RECENT_BYTES:
                return None
            messages.append(_message(row))
        return messages if len(messages) == head - seen else None

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

    # -- reading

    def read(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int) -> Page:
        """Read on from a start, as `History.read` says."""
        with self._reading():
            head, _ = self._head()
            floor = Mark(*self._db.execute("SELECT floor_seq, floor_time FROM log").fetchone())
            ids: dict[str, int] = {}
            marks: dict[str, Mark] = {}
            for name in channels:
                row = self._db.execute(
                    "SELECT id, mark_seq, mark_time FROM channels WHERE name = ?", (name,)
                ).fetchone()
                if row is None:
                    marks[name] = floor
                else:
                    ids[name] = row[0]
                    marks[name] = Mark(row[1], row[2])
            floors: dict[str, int] = {}
            if start.kind is StartKind.LAST:
                floors = {name: self._floor(ids.get(name), start.number, head) for name in channels}
                after = min(floors.values(), default=head)
            else:
                after = self._place(ids, start, head, marks)
            above = floors or dict(zip(channels, start.floors, strict=False))
            from_ = {channel: max(after, above.get(name, 0)) for name, channel in ids.items()}
            messages, more = self._page(from_, limit, max_bytes)
        upto = (messages[-1].seq if messages else after) if more else max(head, after)
        return Page(after, messages, upto if limit else after, marks, floors)

    def _floor(self, channel: int | None, count: float, head: int) -> int:
        """Return the number above which a channel's newest messages stand, `count` of them."""
        # No channel has more messages than the head says, and the head is a number that SQLite can hold.
        row = self._db.execute(_LAST_OF, (channel, int(min(count, head)))).fetchone()
        return head if row[0] is None else int(row[0]) - 1

    def _place(self, ids: dict[str, int], start: Start, head: int, marks: dict[str, Mark]) -> int:
        match start.kind:
            case StartKind.CURSOR:
                assert start.cursor is not None
                return min(start.cursor.seq, head)
            case StartKind.LATEST:
                return head
            case StartKind.EARLIEST:
                first = min((s for c in ids.values() for s in self._numbers(_OLDEST, c, 1)), default=None)
                return head if first is None else first - 1
            case _:
                trimmed = [mark.seq for mark in marks.values() if mark.seq and mark.time >= start.number]
                return min([self._first_since(start.number, head), *trimmed]) - 1

    def _numbers(self, query: str, channel: int, limit: int) -> Iterator[int]:
        return (row[0] for row in self._db.execute(query, (channel, limit)))

    def _first_since(self, time: float, head: int) -> int:
        """Return the first number whose message is not older than `time`, or the one after the head: by bisection."""
        low, high = 0, head + 1  # the answer is above low, and at most high
        while high - low > 1:
            middle = (low + high) // 2
            row = self._db.execute(_NEXT, (middle,)).fetchone()
            if row is None or row[1] >= time:
                high = middle
            else:
                low = row[0]
        row = self._db.execute(_NEXT, (high,)).fetchone()
        return head + 1 if row is None else int(row[0])

    def _page(self, after: dict[int, int], limit: int, max_bytes: int) -> tuple[list[Message], bool]:
        """Return the next messages of channels, each after a number, and whether a bound was met before their end."""
        messages: list[Message] = []
        size = 0
        for row in heapq.merge(*(self._rows(channel, seq) for channel, seq in after.items()), key=itemgetter(0)):
            size += len(row[2])
            if len(messages) >= limit or (messages and size > max_bytes):
                return messages, True
            messages.append(_message(row))
        return messages, False

    def _rows(self, channel: int, after: int) -> Iterator[Row]:
        # The index ends with the row's number, so this reads on in order, a row at a time.
        return self._db.execute(f"{_MESSAGE} WHERE m.channel = ? AND m.seq > ? ORDER BY m.seq", (channel, after))

    # -- trimming

    def sweep(self, policy: Policy, now: float, *, counts: bool) -> dict[str, int]:
        """Look at the next channels; return those with messages to trim, and up to which number.

        By their age, and with `counts` by their number too, which takes longer.
        """
        due: dict[str, int] = {}
        old: dict[float, int] = {}  # by the seconds that are kept, the first number that is young enough
        with self._reading():
            head, _ = self._head()
            rows = self._db.execute(
                "SELECT id, name, (SELECT seq FROM messages m WHERE m.channel = c.id ORDER BY seq LIMIT 1)"
                " FROM channels c WHERE id > ? ORDER BY id LIMIT ?",
                (self._swept, SWEEP_CHANNELS),
            ).fetchall()
            for channel, name, oldest in rows:
                if oldest is None:
                    continue
                keep = policy(name)
                if keep.seconds not in old:
                    old[keep.seconds] = self._first_since(now - keep.seconds, head)
                last = max(old[keep.seconds] - 1, self._last_over(channel, keep.messages) if counts else 0)
                if oldest <= last:
                    due[name] = last
        self._swept = rows[-1][0] if len(rows) == SWEEP_CHANNELS else 0
        return due

    @property
    def swept(self) -> bool:
        """Whether the last sweep was the end of a round."""
        return self._swept == 0

    def over(self, name: str, messages: int) -> int:
        """Return the number up to which a channel has more than so many messages, or 0."""
        row = self._db.execute("SELECT id FROM channels WHERE name = ?", (name,)).fetchone()
        return 0 if row is None else self._last_over(row[0], messages)

    def _last_over(self, channel: int, messages: int) -> int:
        row = self._db.execute(f"{_NEWEST} OFFSET ?", (channel, 1, messages)).fetchone()
        return 0 if row is None else int(row[0])

    def trim(self, name: str, last: int) -> bool:
        """Trim a slice of a channel's messages up to `last`, and return whether there are more."""
        with self._writing():
            row = self._db.execute("SELECT id FROM channels WHERE name = ?", (name,)).fetchone()
            if row is None:
                return False
            gone = self._db.execute(
                "SELECT seq, time FROM messages WHERE channel = ? AND seq <= ? ORDER BY seq LIMIT ?",
                (row[0], last, TRIM_ROWS),
            ).fetchall()
            if not gone:
                return False
            seq, time = gone[-1]
            self._db.execute("DELETE FROM messages WHERE channel = ? AND seq <= ?", (row[0], seq))
            self._db.execute("UPDATE channels SET mark_seq = ?, mark_time = ? WHERE id = ?", (seq, time, row[0]))
            self._db.execute("UPDATE log SET head = max(head, ?), time = max(time, ?)", (seq, time))
        return len(gone) == TRIM_ROWS

    def find_forgettable(self, now: float, key_seconds: float) -> tuple[list[Any], list[Any]]:
        """Return a slice of the keys that are too old, and of the channels that have nothing left, for `forget`."""
        old = self._db.execute(
            "SELECT channel, key, time FROM keys WHERE time < ? ORDER BY time LIMIT ?", (now - key_seconds, TRIM_ROWS)
        ).fetchall()
        before = now - max(FORGET_SECONDS, key_seconds)
        return old, self._db.execute(_EMPTY, (before, TRIM_ROWS)).fetchall()

    def forget(self, old: list[Any], channels: list[Any], now: float, key_seconds: float) -> None:
        """Forget these keys, and these channels unless something has come since."""
        before = now - max(FORGET_SECONDS, key_seconds)
        with self._writing():
            self._db.executemany("DELETE FROM keys WHERE channel = ? AND key = ? AND time = ?", old)
            for channel, seq, time in channels:
                gone = self._db.execute(_FORGET, (before, channel)).rowcount
                if gone:  # whoever is behind its mark is behind the floor from now on
                    self._db.execute(
                        "UPDATE log SET floor_seq = max(floor_seq, ?), floor_time = max(floor_time, ?)", (seq, time)
                    )

    # -- helpers

    def _head(self) -> tuple[int, float]:
        """Return the last number given, and the latest time."""
        seq, time = self._db.execute("SELECT head, time FROM log").fetchone()
        last = self._db.execute(_LAST).fetchone()
        return (seq, time) if last is None else (max(seq, last[0]), max(time, last[1]))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # a full disk has rolled it back already
                self._db.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        self._db.execute("BEGIN")  # all that is read is of one moment
        try:
            yield
        finally:
            self._db.execute("COMMIT")


def life_of(path: Path) -> str | None:
    """Return what names the life that the file itself is of, whatever stands in the write-ahead log beside it."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
            epoch, life = db.execute("SELECT epoch, life FROM log").fetchone()
    except (sqlite3.Error, TypeError):  # there is none, or nothing in it yet
        return None
    return f"{epoch}-{life}"


def open_file(path: Path, durability: str, *, write: bool) -> sqlite3.Connection:
    """Open the file, and make it if it is not there. Raises `ConfigurationError` where that is not possible."""
    try:
        db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        text = f"broker: {path}: can't be opened: {error}; is the folder there, and writable?"
        raise ConfigurationError(text) from None
    try:
        made_by, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        empty = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
        if not empty and made_by != APPLICATION:
            raise ConfigurationError(f"broker: {path}: is another program's database: give a file of its own")
        if not empty and version != VERSION:
            raise ConfigurationError(
                f"broker: {path}: its tables are of version {version}, and this release knows {VERSION}: "
                "use the release that made it"
            )
        db.execute(f"PRAGMA cache_size = {PAGES_KEPT}")
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute(f"PRAGMA query_only = {int(not write)}")
        if write:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA synchronous = {'FULL' if durability == 'fsync' else 'NORMAL'}")
            db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            db.execute(f"PRAGMA journal_size_limit = {64 << 20}")
        if empty and write:
            db.execute("BEGIN IMMEDIATE")
            for statement in _TABLES.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION}")
            db.execute(f"PRAGMA user_version = {VERSION}")
            db.execute("COMMIT")
    except sqlite3.Error as error:
        db.close()
        raise ConfigurationError(f"broker: {path}: {error}") from None
    except ConfigurationError:
        db.close()
        raise
    return db


def _message(row: Row) -> Message:
    seq, channel, data, kind, event, time = row
    return Message(seq, channel, data, Kind(kind), event, time)

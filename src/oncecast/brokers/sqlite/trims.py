"""What trims the log in an SQLite file: which channels hold more than is kept, and what is forgotten with them.

Each call looks at a slice, or deletes one, in a transaction of a few milliseconds.
"""

from __future__ import annotations

from typing import Any

from ...message import RetentionPolicy
from .file import File

FORGET_SECONDS = 7 * 86400.0  # a channel with nothing left is forgotten, and its mark merged into the floor
SWEEP_CHANNELS = 500  # looked at in one step of the sweep
TRIM_ROWS = 500  # trimmed in one transaction: a few milliseconds

_IS_EMPTY = "mark_time > 0 AND mark_time < ? AND NOT EXISTS (SELECT 1 FROM messages m WHERE m.channel = c.id)"
_EMPTY = f"SELECT id, mark_seq, mark_time FROM channels c WHERE {_IS_EMPTY} LIMIT ?"  # noqa: S608 - no input in it
_FORGET = f"DELETE FROM channels AS c WHERE {_IS_EMPTY} AND id = ?"  # noqa: S608
_OVER = "SELECT seq FROM messages WHERE channel = ? ORDER BY seq DESC LIMIT 1 OFFSET ?"


class Trims:
    """What is trimmed through one connection."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._db = file.db
        self._swept = 0

    def sweep(self, policy: RetentionPolicy, now: float, *, counts: bool) -> dict[str, int]:
        """Look at the next channels; return those with messages to trim, and up to which number.

        By their age, and with `counts` by their number too, which takes longer.
        """
        due: dict[str, int] = {}
        old: dict[float, int] = {}  # by the seconds that are kept, the first number that is young enough
        with self._file.reading():
            head, _ = self._file.head()
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
                    old[keep.seconds] = self._file.first_since(now - keep.seconds, head)
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
        """Return the number up to which a channel holds more than `messages`, or 0."""
        row = self._db.execute("SELECT id FROM channels WHERE name = ?", (name,)).fetchone()
        return 0 if row is None else self._last_over(row[0], messages)

    def _last_over(self, channel: int, messages: int) -> int:
        row = self._db.execute(_OVER, (channel, messages)).fetchone()
        return 0 if row is None else int(row[0])

    def trim(self, name: str, last: int) -> bool:
        """Trim a slice of a channel's messages up to `last`, and return whether there are more."""
        with self._file.writing():
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
        with self._file.writing():
            self._db.executemany("DELETE FROM keys WHERE channel = ? AND key = ? AND time = ?", old)
            for channel, seq, time in channels:
                gone = self._db.execute(_FORGET, (before, channel)).rowcount
                if gone:  # a cursor behind its mark is behind the floor from now on
                    self._db.execute(
                        "UPDATE log SET floor_seq = max(floor_seq, ?), floor_time = max(floor_time, ?)", (seq, time)
                    )

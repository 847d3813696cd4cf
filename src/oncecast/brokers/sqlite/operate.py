"""What `oncecast broker` asks of an SQLite file, through a connection of its own, in a thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ...errors import Refusal
from ...message import Retention
from ..operable import ChannelState, LogState
from ..worker import run_in_thread
from .file import File
from .trims import Trims

SECONDS = 60.0  # a count of every channel reads the whole index

T = TypeVar("T")

_CHANNELS = (
    "SELECT c.name, count(*), min(m.seq), max(m.seq) FROM messages m JOIN channels c ON c.id = m.channel"
    " GROUP BY m.channel ORDER BY c.name"
)
_CHANNEL = (
    "SELECT count(*), min(m.seq), max(m.seq) FROM messages m JOIN channels c ON c.id = m.channel WHERE c.name = ?"
)


async def in_thread(path: Path, call: Callable[[File], T]) -> T:
    """Call with a connection to the file. Raises `Refusal` where the file can't be used in time."""

    def run() -> T:
        file = File(path, durability="process")
        try:
            return call(file)
        finally:
            file.close()

    try:
        return await run_in_thread("operate", run, SECONDS, lambda result: None)
    except TimeoutError:
        raise Refusal("unavailable", f"{path} did not answer within {SECONDS:g} s: try again.") from None
    except sqlite3.Error as error:
        raise Refusal("unavailable", f"{path} can't be used: {error}") from None


def state(file: File) -> LogState:
    """Return the state of the log."""
    holes = file.db.execute("SELECT count(*) FROM holes").fetchone()[0]
    pages = file.db.execute("PRAGMA page_count").fetchone()[0]
    size = file.db.execute("PRAGMA page_size").fetchone()[0]
    return LogState(f"SQLite {sqlite3.sqlite_version}", holes, pages * size, "disk of the file")


def channels(file: File) -> list[ChannelState]:
    """Return every channel that holds a message, by name."""
    return [ChannelState(*row) for row in file.db.execute(_CHANNELS)]


def trim(channel: str, retention: Retention, now: float, file: File) -> ChannelState:
    """Trim a channel, in transactions of a few milliseconds, and return what is left."""
    trims = Trims(file)
    head, _ = file.head()
    young = file.first_since(now - retention.seconds, head)
    last = max(trims.over(channel, retention.messages), young - 1)
    while trims.trim(channel, last):
        pass
    count, oldest, newest = file.db.execute(_CHANNEL, (channel,)).fetchone()
    return ChannelState(channel, count, oldest or 0, newest or 0)

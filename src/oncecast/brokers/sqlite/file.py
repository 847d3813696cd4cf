"""The SQLite file: its tables, how it is opened, and the connection to it, used by one thread at a time.

To change the tables, raise `VERSION` and say in `open_file` what becomes of older files.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from ...errors import ConfigurationError
from ...message import Message
from ..meters import Meters
from ..stored import stored_message

VERSION = 1  # of the tables, in the file's user_version
APPLICATION = 0x4F636173  # "Ocas", in the file's application_id
BUSY_SECONDS = 5.0  # for what other programs do to the file: a backup, a look inside
LOOK_AGAIN = (0.02, 0.05, 0.1, 0.2, 0.4)  # seconds: to move a write-ahead log into the file takes less
PAGES_KEPT = 4000  # 4 KiB each: the cache of a connection
CHECKPOINT_PAGES = 2000  # of the write-ahead log, before they are moved into the file

TABLES = """
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
MESSAGE = "SELECT m.seq, c.name, m.data, m.kind, m.event, m.time FROM messages m JOIN channels c ON c.id = m.channel"
_LAST = "SELECT seq, time FROM messages ORDER BY seq DESC LIMIT 1"
_NEXT = "SELECT seq, time FROM messages WHERE seq >= ? ORDER BY seq LIMIT 1"

T = TypeVar("T")

Row = tuple[int, str, bytes, int, str | None, float]


class File:
    """One connection to the file. Raises `sqlite3.Error` where the disk or the file fails."""

    def __init__(self, path: Path, *, durability: str, write: bool = True) -> None:
        self.durability = durability
        self.epoch = ""
        self.db = open_file(path, durability, write=write)
        self._path = path
        self.meters = Meters()  # until it has those of its broker

    def close(self) -> None:
        """Close the connection."""
        self.db.close()

    def head(self) -> tuple[int, float]:
        """Return the last number given, and the latest time."""
        seq, time = self.db.execute("SELECT head, time FROM log").fetchone()
        last = self.db.execute(_LAST).fetchone()
        return (seq, time) if last is None else (max(seq, last[0]), max(time, last[1]))

    def first_since(self, time: float, head: int) -> int:
        """Return the first number whose message is not older than `time`, or the one after the head: by bisection."""
        low, high = 0, head + 1  # the answer is above low, and at most high
        while high - low > 1:
            middle = (low + high) // 2
            row = self.db.execute(_NEXT, (middle,)).fetchone()
            if row is None or row[1] >= time:
                high = middle
            else:
                low = row[0]
        row = self.db.execute(_NEXT, (high,)).fetchone()
        return head + 1 if row is None else int(row[0])

    def message(self, row: Row) -> Message | None:
        """Return the message in a row of `MESSAGE`. None where it is damaged."""
        seq, channel, data, kind, event, time = row
        with contextlib.suppress(ValueError):
            if type(data) is bytes:
                return stored_message(seq, channel, data, kind, event, time)
        self.meters.skip(f"{self._path}: message {seq} of {channel}")
        return None

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold a write transaction."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # a full disk has rolled it back already
                self.db.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Hold a read transaction: all that is read is of one moment."""
        self.db.execute("BEGIN")
        try:
            yield
        finally:
            self.db.execute("COMMIT")


def identity(path: Path) -> tuple[int, int] | None:
    """Return what the system knows a file by, or None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def life_of(path: Path) -> str | None:
    """Return what names the life that the file itself is of, whatever stands in the write-ahead log beside it."""

    def look(db: sqlite3.Connection) -> str:
        epoch, life = db.execute("SELECT epoch, life FROM log").fetchone()
        return f"{epoch}-{life}"

    try:
        return _look_aside(path, look)
    except (sqlite3.Error, TypeError):  # there is none, or nothing in it yet
        return None


def check_file(path: Path) -> None:
    """Raise `ConfigurationError` if the file is another program's, before anything is made beside it.

    The write-ahead log is not looked at: it may belong to another file.
    """
    if not path.is_file() or not path.stat().st_size:
        return
    try:
        _look_aside(path, lambda db: _check(db, path))
    except sqlite3.DatabaseError as error:
        text = f"broker: {path}: {error}: give the log a file of its own"
        raise ConfigurationError(text) from None


def open_file(path: Path, durability: str, *, write: bool) -> sqlite3.Connection:
    """Open the file, and make it if it is not there. Raises `ConfigurationError` where that is not possible."""
    try:
        db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        text = f"broker: {path}: can't be opened: {error}; is the folder there, and writable?"
        raise ConfigurationError(text) from None
    try:
        empty = _check(db, path)
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
            for statement in TABLES.split(";"):
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


def _look_aside(path: Path, look: Callable[[sqlite3.Connection], T]) -> T:
    """Look at the file alone: nothing is locked, written or made, and the write-ahead log is not read.

    Without a lock, a file into which another connection just moves its write-ahead log is seen half old and half new,
    and looks damaged or foreign. What looks so is looked at again, after each of `LOOK_AGAIN`.
    """
    for pause in LOOK_AGAIN:
        try:
            return _look_once(path, look)
        except (sqlite3.DatabaseError, ConfigurationError) as error:
            if "no such table" in str(error):  # a new file has its tables in the write-ahead log
                raise
        time.sleep(pause)
    return _look_once(path, look)


def _look_once(path: Path, look: Callable[[sqlite3.Connection], T]) -> T:
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        return look(db)


def _check(db: sqlite3.Connection, path: Path) -> bool:
    """Return whether the file is empty. Raises `ConfigurationError` where it holds what is not ours."""
    made_by, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    if db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
        return True
    if made_by != APPLICATION:
        raise ConfigurationError(f"broker: {path}: is another program's database: give a file of its own")
    if version != VERSION:
        raise ConfigurationError(
            f"broker: {path}: its tables are of version {version}, and this release knows {VERSION}: "
            "use the release that made it"
        )
    return False

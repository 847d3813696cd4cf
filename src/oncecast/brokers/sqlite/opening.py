"""How the file is opened, by one process or by several, and what is open then.

Invariant: whatever goes wrong, what was opened before is closed, and nothing is made beside a file that is not ours.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigurationError
from ..base import Opening
from .file import check_file, identity, life_of
from .peers import Peers
from .store import Store

logger = logging.getLogger("oncecast.brokers.sqlite.opening")


@dataclass(frozen=True, slots=True)
class Opened:
    """What is open: a connection to write with, one to read with, and this process among the others."""

    peers: Peers
    store: Store
    reader: Store
    opening: Opening

    def close(self) -> None:
        """Close all of it."""
        self.reader.close()
        self.store.close()
        self.peers.close()


def open_log(path: Path, *, epoch: str, durability: str, wall: Callable[[], float]) -> Opened:
    """Open the log in a file, and make it if it is not there. Raises `ConfigurationError`. May block for a lock."""
    try:
        check_file(path)
        with contextlib.ExitStack() as undo:
            peers = Peers(path)
            undo.callback(peers.close)
            with peers.lock():
                path.touch()
                alone = peers.join(repr(identity(path)))
                if alone and peers.note and peers.note != life_of(path):
                    _set_aside(path, wall())
                store = Store(path, durability=durability)
                undo.callback(store.close)
                opening = store.begin(epoch, round(wall(), 3), alone=alone)
                if alone:
                    peers.note = life_of(path) or ""
                reader = Store(path, durability=durability, write=False)
            undo.pop_all()
        return Opened(peers, store, reader, opening)
    except OSError as error:
        text = f"broker: {path}: {error.strerror}: it needs a folder that this process may write to"
        raise ConfigurationError(text) from None
    except sqlite3.Error as error:
        raise ConfigurationError(f"broker: {path}: {error}") from None


def _set_aside(path: Path, now: float) -> None:
    """Keep a write-ahead log that another file has left: SQLite would mix the two."""
    beside = Path(f"{path}-wal")
    if beside.exists() and beside.stat().st_size:
        aside = Path(f"{path}-wal-{int(now)}")
        beside.rename(aside)
        Path(f"{path}-shm").unlink(missing_ok=True)
        logger.warning("%s was replaced by a copy: what the other file has left is set aside, %s", path, aside)

"""What a followed log needs of its server: one ordered log of records, which numbers them by offsets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from .ledger import Chunk


class Removed(Exception):
    """The offset that was asked for is not in the log."""


class LogServer(Protocol):
    """One connection to a server. Its methods raise `Lost`, and end within a few seconds."""

    name: str  # the server's, and its version where it is known
    most_bytes: int  # of one record
    limit: str  # what the server calls the setting that bounds it

    async def open(self, begins: Callable[[], object]) -> None:
        """Connect, and make the log if it is not there. Raises `ConfigurationError` for what another setting mends.

        `begins` is called before a log is made: it raises where none may begin.
        """
        ...

    async def bounds(self) -> tuple[int, int]:
        """Return the first offset that is kept, and the one after the last. Called once something was written."""
        ...

    async def write(self, records: Sequence[bytes]) -> None:
        """Append records, which together may have any size. Calls are sent in the order in which they were made."""
        ...

    async def follow(self, offset: int) -> None:
        """Let `next` begin at an offset, which is in the log or the next one."""
        ...

    async def next(self) -> Sequence[Chunk]:
        """Return the next records, or none after a moment without. Raises `Removed`."""
        ...

    async def read(self, offset: int, max_bytes: int) -> Sequence[Chunk]:
        """Return the record at an offset that is in the log, and some after it. Raises `Removed`."""
        ...

    async def ping(self) -> None:
        """Return once the server has answered."""
        ...

    async def close(self) -> None:
        """Close every socket. Raises nothing."""
        ...

"""Standard input and files as data to publish: lines as they come, several at once where several are ready, or whole.

Invariant: lines that have come are handed over before more input is waited for, and at most `BURST_BYTES` and one line
are held.
"""

from __future__ import annotations

import asyncio
import io
import os
import select
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

from .base import FAILED, MISUSED, Failure

__all__ = ["DATA_BYTES", "Line", "read_lines", "read_whole"]

READ_BYTES = 65536
BURST_BYTES = 512 * 1024  # handed over at once: about a batch
DATA_BYTES = 64 * 1024 * 1024  # the largest message that a server may be set to take

Line = tuple[int, bytes]  # its number, from 1 on, and the line without its end


async def read_lines() -> AsyncIterator[list[Line]]:
    """Yield the lines of standard input that are ready, in order, without their ends (LF or CRLF) and empty ones.

    Raises `Failure` for a line that no server would take.
    """
    pieces = _Pieces()
    try:
        fd = sys.stdin.fileno()
    except (io.UnsupportedOperation, ValueError):  # not a file at all, or closed
        yield _numbered(enumerate(sys.stdin.buffer.read().split(b"\n"), 1))
        return
    ready = select.poll()  # `select` takes no descriptor above 1023
    ready.register(fd, select.POLLIN)
    size = 0
    lines: list[Line] = []
    while True:
        if not lines:
            await _readable(fd)
        piece = os.read(fd, READ_BYTES)
        lines += _numbered(pieces.add(piece))
        size += len(piece)
        if lines and (not piece or size >= BURST_BYTES or not ready.poll(0)):
            yield lines
            lines, size = [], 0
        if not piece:
            return


def read_whole(path: Path) -> bytes:
    """Return all of a file, or of standard input for `-`, as it is. Raises `Failure`."""
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(DATA_BYTES + 1)
        else:
            with path.open("rb") as file:
                data = file.read(DATA_BYTES + 1)
    except OSError as error:
        raise Failure(f"{path} can't be read: {error.strerror or error}", MISUSED) from None
    if len(data) > DATA_BYTES:
        raise Failure(f"{path} is larger than {DATA_BYTES} bytes, more than a server takes", FAILED)
    return data


class _Pieces:
    """Splits what is read into lines; keeps the last one until it ends."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # joined once
        self._size = 0
        self._count = 0

    def add(self, piece: bytes) -> Iterator[Line]:
        """Yield the lines that end in this piece; an empty piece ends the last line."""
        head, end, tail = piece.rpartition(b"\n")
        if piece and not end:
            self._keep(piece)
            return
        lines = b"".join([*self._rest, head]).split(b"\n")
        self._rest, self._size = [], 0
        self._keep(tail)
        for line in lines:
            self._count += 1
            yield self._count, line

    def _keep(self, piece: bytes) -> None:
        self._rest.append(piece)
        self._size += len(piece)
        if self._size > DATA_BYTES:
            raise Failure(
                f"line {self._count + 1} of standard input is longer than {DATA_BYTES} bytes, more than a server takes",
                FAILED,
            )


def _numbered(lines: Iterable[Line]) -> list[Line]:
    found = ((number, line.removesuffix(b"\r")) for number, line in lines)
    return [(number, line) for number, line in found if line]


async def _readable(fd: int) -> None:
    """Wait until a read won't block. Non-blocking mode would change the terminal for the programs that share it."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(fd, ready.set)
    except PermissionError:  # a regular file: epoll does not take it, and it never blocks
        return
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)

"""The numbers of a log whose server numbers by itself: a life of the log adds a base to the server's offsets.

A server that comes back with an older disk, or a replica that lacks the newest records, gives the same offsets again to
other messages. So a life begins, with a record in the log itself, whenever records may have been lost. Its base is such
that no number of an earlier life is given again: numbers of a life begin at the log's age in seconds times 2^17. The
numbers between the end of the life before and the first of this one are a hole.

Invariants
* Lives are in the order of their records; a number belongs to one life.
* `seq_of` and `offset_of` are each other's inverse for what is in the log.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import msgspec

from .base import NUMBERS_A_SECOND

WIDEST = (1 << 53) - 1  # JSON's numbers are exact up to here


class Life(msgspec.Struct, frozen=True):
    """A record of a life. `offset` is the record's own, so the life's messages are above it.

    `epoch` and `born` (Unix seconds) are those of the log, the same in each record. `server` names what the life is
    of: a server's process, or a replicated log.
    """

    offset: int
    epoch: str
    born: float
    server: str
    base: int

    def record(self) -> bytes:
        """Return what is written; the offset is the server's to say."""
        return msgspec.json.encode({"epoch": self.epoch, "born": self.born, "server": self.server, "base": self.base})


class _Record(msgspec.Struct):
    epoch: str
    born: float
    server: str
    base: int


def read_life(offset: int, record: bytes) -> Life:
    """Read a record. Raises `ValueError` where it is none."""
    try:
        read = msgspec.json.decode(record, type=_Record)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    return Life(offset, read.epoch, read.born, read.server, read.base)


class Lives:
    """All lives of one log, in order. There is at least one."""

    def __init__(self, lives: Sequence[Life]) -> None:
        self._lives = list(lives)
        self._offsets = [life.offset for life in self._lives]
        self._firsts = [life.offset + life.base for life in self._lives]

    @property
    def newest(self) -> Life:
        """The life that is numbered in now."""
        return self._lives[-1]

    @property
    def epoch(self) -> str:
        """The name of the log."""
        return self._lives[0].epoch

    def seq_of(self, offset: int) -> int:
        """Return the number of the record at an offset."""
        at = bisect.bisect_right(self._offsets, offset) - 1
        return offset + self._lives[max(at, 0)].base

    def offset_of(self, seq: int) -> int:
        """Return the greatest offset whose number is at most `seq`."""
        at = max(bisect.bisect_right(self._firsts, seq) - 1, 0)
        offset = seq - self._lives[at].base
        if at + 1 < len(self._lives):
            offset = min(offset, self._offsets[at + 1] - 1)
        return max(offset, 0)

    def holes(self) -> list[tuple[int, int]]:
        """Return the numbers that were never given, as `Opening.holes` has them."""
        return [
            (later.offset - 1 + earlier.base, later.offset + later.base)
            for earlier, later in zip(self._lives, self._lives[1:], strict=False)
        ]

    def next(self, head: int, server: str, now: float, above: int = 0) -> Life:
        """Return the life that begins after the offset `head`. Its own offset is known once it is written.

        `above` is a number that was given, though the log may have lost it.
        """
        born = self._lives[0].born
        first = max(self.seq_of(head) + 1, above + 1, int(max(0.0, now - born) * NUMBERS_A_SECOND))
        return Life(0, self.epoch, born, server, min(first, WIDEST) - head)


def first_life(epoch: str, server: str, now: float) -> Life:
    """Return the first life of a log that is empty."""
    return Life(0, epoch, now, server, 0)

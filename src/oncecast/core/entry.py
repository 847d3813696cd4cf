"""A message as the log holds it, with the bytes that it has been encoded to.

Invariant: the bytes of an entry count against the log's bound only while `held` is True.
"""

from __future__ import annotations

import math
from typing import Protocol

import msgspec

from ..message import Kind, Message

ENTRY_BYTES = 400  # the objects of one entry, measured with tracemalloc; counted against the log's `max_bytes`
TRACE_MEMORY = 64  # of the context of a trace


class Encoding(Protocol):
    """One wire format of a message. It is also the key under which an entry keeps the bytes."""

    def message(self, message: Message, epoch: str) -> bytes:
        """Return the message's bytes in this format."""
        ...


class Entry(msgspec.Struct, gc=False, eq=False):
    """A message, its `seq`, the monotonic time it was appended at, and its encodings.

    The first encoding stands in the entry itself: most messages are encoded once, and a dictionary takes more memory
    than they do. `held` is False once the log has dropped the entry.
    """

    message: Message
    seq: int
    appended: float
    held: bool = True
    encoding: Encoding | None = None
    encoded: bytes = b""
    others: dict[Encoding, bytes] | None = None


def loose_entry(message: Message) -> Entry:
    """Return an entry for a message of the history: no log holds it, so its encodings are not counted."""
    return Entry(message, message.seq, -math.inf, held=False)


# Replaces a dropped entry in the list of its window, so that the memory of the entry is released at once.
DROPPED = Entry(Message(0, "", b"", Kind.BINARY, None, 0.0), 0, -math.inf, held=False)

"""What a supervisor and its workers say to each other, over one socket for each worker: a line of JSON per message.

Settings go this way and not as arguments or variables, which other processes can read. The socket's end is news as
well: a worker whose supervisor is gone stops, so that no process serves that nobody watches.

Invariant: a rolling restart pairs an older supervisor with newer workers, so messages may be added here, and fields
with a default, but none may change. What one side does not know, it skips.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any, Generic, TypeVar

import msgspec

from ..metrics import Crew, Measures
from ..settings import Settings

__all__ = [
    "Asked",
    "Begin",
    "Change",
    "Channel",
    "Collect",
    "CutOff",
    "Failed",
    "FromWorker",
    "Leaving",
    "Measured",
    "Pace",
    "Ready",
    "Stop",
    "ToWorker",
    "Total",
]

logger = logging.getLogger("oncecast.server")

LINE_BYTES = 16 << 20  # settings with rules for a hundred thousand channels
UNSENT_BYTES = 64 << 20  # for a peer that reads nothing any more: past that, it is told nothing more


class _Message(msgspec.Struct, frozen=True, tag=True):
    pass


# -- to a worker


class Begin(_Message, frozen=True):
    """Serve: as the worker of this slot, one of so many."""

    slot: int
    workers: int
    settings: Settings


class Change(_Message, frozen=True):
    """Take on these settings. They have been checked, and differ only in what can change while serving."""

    settings: Settings


class Stop(_Message, frozen=True):
    """Let the connections go, each at its moment, and end."""


class Pace(_Message, frozen=True):
    """So many workers let go of their connections now: keep to your part of what they may do together."""

    workers: int


class CutOff(_Message, frozen=True):
    """End now."""


class Collect(_Message, frozen=True):
    """Say what you have measured."""


class Total(_Message, frozen=True):
    """What all workers have measured: the answer to `Asked`."""

    measures: Measures
    crew: Crew


# -- from a worker


class Ready(_Message, frozen=True):
    """It serves."""


class Failed(_Message, frozen=True):
    """It can't serve, and why, in one line."""

    reason: str


class Leaving(_Message, frozen=True):
    """It was told by somebody else to drain, and takes no more connections."""


class Asked(_Message, frozen=True):
    """Somebody wants to know what all workers have measured."""


class Measured(_Message, frozen=True):
    """What this worker has measured: the answer to `Collect`, and its last word."""

    measures: Measures


ToWorker = Begin | Change | Stop | Pace | CutOff | Collect | Total
FromWorker = Ready | Failed | Leaving | Asked | Measured

T = TypeVar("T")


class Channel(Generic[T]):
    """One end of the socket. `kind` is the union of the messages that come in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: Any) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(kind)

    @classmethod
    async def open(cls, sock: socket.socket, kind: Any) -> Channel[T]:
        """Return the channel on a connected socket, which is its own from now on."""
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=LINE_BYTES)
        return cls(reader, writer, kind)

    def send(self, message: _Message) -> None:
        """Send a message. To a peer that has gone, or reads nothing any more, it is lost."""
        if not self._writer.is_closing() and self._writer.transport.get_write_buffer_size() < UNSENT_BYTES:
            self._writer.write(msgspec.json.encode(message) + b"\n")

    async def receive(self) -> T | None:
        """Return the next message; None once the peer has gone."""
        while True:
            try:
                line = await self._reader.readline()
            except (ConnectionError, ValueError):  # a reset; a line past LINE_BYTES
                return None
            if not line.endswith(b"\n"):
                return None
            try:
                return self._decoder.decode(line)
            except msgspec.MsgspecError as error:
                logger.warning("a message between supervisor and worker is not understood: %s", error)

    async def close(self) -> None:
        """Send what is written, and close."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:  # the peer was faster
            return

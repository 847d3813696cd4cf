"""The messages between a supervisor and its workers, and the pipe that carries them: a line of JSON per message.

Settings go this way and not as arguments or variables, which other processes can read. The end of the pipe has a
meaning too: a worker whose supervisor is gone stops, so that no process serves unwatched.

Invariant: a rolling restart pairs an older supervisor with newer workers, so messages may be added here, and fields
with a default, but none may change. A message that one side does not know is logged and skipped. Each wait has an end:
`receive` ends with the peer, and `close` after `CLOSE_SECONDS`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from ..measures import Crew, Measures
from ..overview import View
from ..settings import Settings

__all__ = [
    "Asked",
    "Begin",
    "Change",
    "Collect",
    "CutOff",
    "DrainAsked",
    "Failed",
    "FromWorker",
    "Leaving",
    "Measured",
    "Pace",
    "Pipe",
    "Ready",
    "Stop",
    "ToWorker",
    "Total",
]

logger = logging.getLogger("oncecast.server")

LINE_BYTES = 16 << 20  # settings with rules for a hundred thousand channels
UNSENT_BYTES = 64 << 20  # to a peer that reads nothing any more: further messages to it are dropped
CLOSE_SECONDS = 5.0  # for the peer to read what was sent last


WorkerCount = Annotated[int, msgspec.Meta(ge=1, le=100_000)]


class _Message(msgspec.Struct, frozen=True, tag=True):
    pass


# -- to a worker


class Begin(_Message, frozen=True):
    """Serve on this slot, as one of `workers` processes. `quotas` is a descriptor, and the region to count in."""

    slot: int
    workers: WorkerCount
    settings: Settings
    quotas: tuple[int, int] | None = None


class Change(_Message, frozen=True):
    """Take on these settings. They have been checked, and differ only in what can change while serving."""

    settings: Settings


class Stop(_Message, frozen=True):
    """Drain, and end."""


class Pace(_Message, frozen=True):
    """Drain at a rate of `limits.drain_per_second` divided by `workers`, which is how many share it now."""

    workers: WorkerCount


class CutOff(_Message, frozen=True):
    """Cut every connection, and end."""


class Collect(_Message, frozen=True):
    """Answer with `Measured`; with a `view` if one is asked for, and in it the listeners of a `channel`."""

    view: bool = False
    channel: str | None = None


class Total(_Message, frozen=True):
    """What all workers have measured: the answer to `Asked`."""

    measures: Measures
    crew: Crew
    views: tuple[View, ...] = ()
    channel: str | None = None


# -- from a worker


class Ready(_Message, frozen=True):
    """The worker serves."""


class Failed(_Message, frozen=True):
    """The worker can't serve, for a reason of one line."""

    reason: str


class Leaving(_Message, frozen=True):
    """The worker drains, and accepts no more connections; the cause may be a SIGTERM of another process."""


class Asked(_Message, frozen=True):
    """The worker was asked for `/metrics`, or for the overview, and needs what all workers have measured."""

    views: bool = False
    channel: str | None = None


class DrainAsked(_Message, frozen=True):
    """An operator has asked this worker to drain the whole server."""

    reason: str


class Measured(_Message, frozen=True):
    """What this worker has measured: the answer to `Collect`, and the last message before it ends."""

    measures: Measures
    view: View | None = None


ToWorker = Begin | Change | Stop | Pace | CutOff | Collect | Total
FromWorker = Ready | Failed | Leaving | Asked | DrainAsked | Measured

T = TypeVar("T")


class Pipe(Generic[T]):
    """One end of the socket. `kind` is the union of the messages that come in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: Any) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(kind)

    @classmethod
    async def open(cls, sock: socket.socket, kind: Any) -> Pipe[T]:
        """Return the pipe on a connected socket, which is its own from now on."""
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=LINE_BYTES)
        return cls(reader, writer, kind)

    def send(self, message: _Message) -> None:
        """Send a message. It is dropped where the peer is gone, or has `UNSENT_BYTES` to read."""
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
        """Send what is written, and close; a peer that does not read it within `CLOSE_SECONDS` is not waited for."""
        self._writer.close()
        try:
            await asyncio.wait_for(self._writer.wait_closed(), CLOSE_SECONDS)
        except TimeoutError:
            self._writer.transport.abort()
        except ConnectionError:  # the peer has closed first
            return

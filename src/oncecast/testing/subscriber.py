"""The contract of a test subscriber: the smallest client of a transport that keeps its cursor, on a bare socket.

Subscribers judge the server, so they share nothing with `oncecast.client` but the codecs of `wire/`. `connect` begins
at the start or at the kept cursors, `receive` returns what the server sent, `cut` closes the socket without a goodbye.
Invariant: `cursors` has, for each channel, the place after the last item that `receive` returned: where a listener
would resume.

To check a transport, subclass `Subscriber` and pass the class to `check_transport`. `subscribers.py` has those of our
own transports.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import msgspec

from ..errors import OncecastError
from ..message import Draft, Kind
from ..wire import http1_client

__all__ = [
    "MAX_MESSAGE_BYTES",
    "CursorSeen",
    "Cut",
    "GapSeen",
    "MessageSeen",
    "RequestRefused",
    "Seen",
    "Subscriber",
    "message_of",
    "refused",
    "shown_in_json",
]

READ_BYTES = 64 << 10
MAX_MESSAGE_BYTES = 64 << 20  # larger than any message of the checks


@dataclass(frozen=True, slots=True)
class MessageSeen:
    """A message. `data` is as `Subscriber.shows` returns it. `id` or `channel` is None where the transport hides it."""

    id: str | None
    channel: str | None
    data: object
    event: str | None


@dataclass(frozen=True, slots=True)
class GapSeen:
    """A gap, its cursors as text."""

    channel: str
    reason: str
    missed_from: str
    missed_to: str | None
    cursor: str


@dataclass(frozen=True, slots=True)
class CursorSeen:
    """A cursor without a message: the beginning, a heartbeat, or an empty poll."""

    cursor: str


Seen: TypeAlias = MessageSeen | GapSeen | CursorSeen


class Cut(OncecastError):
    """The connection has ended. `code` and `reason` are those of a WebSocket's Close, if there was one."""

    def __init__(self, code: int | None = None, reason: str = "") -> None:
        super().__init__(f"closed with {code}: {reason}" if code else "the connection ended")
        self.code = code
        self.reason = reason


class RequestRefused(OncecastError):
    """The server answered with a coded error; `status` is 0 where it came in a frame."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code


class Subscriber(ABC):
    """One subscriber of `channels`. `start` is the query of the first connect, `extra` is added to every query.

    `receive_buffer` sets SO_RCVBUF in bytes, so that the server's writes soon block.
    """

    name: ClassVar[str]
    streams: ClassVar[bool] = True  # the server sends messages on its own
    polls: ClassVar[bool] = False  # `limit` bounds what one `receive` returns
    waits: ClassVar[bool] = False  # `wait` bounds the seconds of one answer
    writes: ClassVar[bool] = False  # `write` sends text on the same connection
    resumes: ClassVar[bool] = True  # it has cursors
    one_cursor: ClassVar[bool] = True  # several channels have one order and one cursor

    def __init__(
        self,
        port: int,
        channels: tuple[str, ...],
        *,
        start: str = "after=latest",
        extra: str = "",
        receive_buffer: int | None = None,
    ) -> None:
        self.port = port
        self.channels = channels
        self.start = start
        self.extra = extra
        self.receive_buffer = receive_buffer
        self.cursors: dict[str, str] = {}
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    @abstractmethod
    def shows(self, draft: Draft) -> object:
        """Return a draft's data as this transport shows it."""

    @abstractmethod
    async def connect(self) -> None:
        """Connect at `cursors` if there are any, else at `start`. Raises `Cut`, `RequestRefused`."""

    @abstractmethod
    async def receive(self) -> list[Seen]:
        """Return the next items, at least one. Raises `Cut`, `RequestRefused`."""

    @property
    def cursor(self) -> str | None:
        """The one cursor of all channels, if `one_cursor`."""
        return next(iter(self.cursors.values()), None)

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._writer is not None

    def write(self, data: bytes) -> None:
        """Send text on the same connection, where `writes`."""
        raise NotImplementedError

    def cut(self) -> None:
        """Close the socket without a goodbye. Items that were not returned yet are dropped."""
        writer, self._writer, self._reader = self._writer, None, None
        if writer is not None:
            writer.transport.abort()

    def seek(self, cursor: str) -> None:
        """Set the cursor of every channel, as a listener does that has kept one."""
        self.cursors = dict.fromkeys(self.channels, cursor)

    # -- for the kinds

    async def open(self) -> None:
        """Open the socket."""
        self.cut()
        sock = socket.socket()
        sock.setblocking(False)
        if self.receive_buffer is not None:  # before connect: the window is negotiated then
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
            self._reader, self._writer = await asyncio.open_connection(sock=sock, limit=READ_BYTES)
        except OSError:
            raise Cut from None
        finally:  # also where the wait is cancelled
            if self._writer is None:
                sock.close()

    def send(self, data: bytes) -> None:
        """Send bytes."""
        if self._writer is not None:
            self._writer.write(data)

    async def read(self) -> bytes:
        """Return the next bytes. Raises `Cut` at the end."""
        data = b""
        if self._reader is not None:
            with contextlib.suppress(OSError):
                data = await self._reader.read(READ_BYTES)
        if not data:
            self.cut()
            raise Cut
        return data

    def path(self, query: str) -> str:
        """Return the request target."""
        fields = "&".join(filter(None, (query, self.extra)))
        return f"/v1/channels/{','.join(self.channels)}?{fields}"

    def get(self, query: str, *headers: tuple[str, str]) -> bytes:
        """Return a GET request."""
        return http1_client.request("GET", self.path(query), f"127.0.0.1:{self.port}", headers, None)

    def query(self) -> str:
        """Return the query of where to begin: after the cursor, or at the start."""
        return self.start if self.cursor is None else f"after={self.cursor}"


# -- helpers


def shown_in_json(draft: Draft) -> object:
    """Return a draft's data as the message's JSON has it: a JSON value, a text, or bytes."""
    if draft.kind is Kind.BINARY:
        return draft.data
    return draft.data.decode() if draft.kind is Kind.TEXT else msgspec.json.decode(draft.data)


def message_of(fields: dict[str, Any]) -> MessageSeen:
    """Return the message in a message's JSON."""
    data = base64.b64decode(fields["data64"]["base64"]) if "data64" in fields else fields["data"]
    return MessageSeen(fields["id"], fields["channel"], data, fields["event"])


def refused(status: int, body: bytes) -> RequestRefused:
    """Return the coded error in an answer's body."""
    error = msgspec.json.decode(body)["error"] if body else {"code": "", "message": ""}
    return RequestRefused(status, error["code"], error["message"])

"""One HTTP/1.1 connection to a server, kept alive: one request at a time, its answer whole or as a stream.

Owns the socket and the time limits on it; `wire.http1_client` owns the bytes. Whatever the network does is raised as
`Broken` or `Unreachable`. Invariant: a connection whose last answer was not read to its end is never used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from ..errors import UsageError
from ..wire.http1_client import Body, End, ResponseFailed, ResponseHead, ResponseParser, request
from .base import Authorize, Broken, Refused, Timing, Unreachable, anonymous, refusal

__all__ = ["Connection", "Response", "Server", "retry_after"]

READ_BYTES = 65536
ANSWER_BYTES = 256 * 1024 * 1024  # a page of POLL_LIMIT messages of 1 MiB, in base64, fits
CLOSE_SECONDS = 1.0  # for the last bytes and TLS's goodbye; then the socket is dropped
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server is: `http[s]://host[:port][/prefix]`."""

    scheme: str
    host: str
    port: int
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Server:
        """Read a URL. Raises `UsageError` that says what a good one looks like."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        wrong = parts.scheme not in PORTS or not parts.hostname or parts.query or parts.fragment or parts.username
        if wrong or not url.isascii() or not url.isprintable() or " " in url:
            raise UsageError(f"{url!r} is not a server's URL: write http://host:port or https://host:port")
        assert parts.hostname is not None
        return cls(
            parts.scheme,
            parts.hostname,
            PORTS[parts.scheme] if port is None else port,
            parts.path.rstrip("/"),
        )

    @property
    def authority(self) -> str:
        """The Host header (RFC 9110 §7.2): the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.prefix}"


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer. `headers` has lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """A connection to `server`, opened when it is first needed and again when the server had closed it in between.

    Nothing is read ahead of what is asked for, so a slow caller slows the server down. `authorize` is asked for the
    headers that every request has.
    """

    def __init__(self, server: Server, *, timing: Timing, authorize: Authorize = anonymous) -> None:
        self.server = server
        self._timing = timing
        self._authorize = authorize
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._parser: ResponseParser | None = None  # while an answer is being read
        self._events: deque[ResponseHead | Body | End] = deque()

    async def request(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        *,
        wait: float = 0.0,
    ) -> Response:
        """Send a request and read the whole answer, whose head may take `wait` seconds longer than usual.

        Raises `Broken`, `Unreachable` or `Refused` (a certificate that is not trusted).
        """
        head = await self.stream(method, path, headers, body, wait=wait)
        chunks: list[bytes] = []
        size = 0
        async with contextlib.aclosing(self.body()) as pieces:
            async for piece in pieces:
                size += len(piece)
                if size > ANSWER_BYTES:
                    await self.close()
                    raise Broken(f"the server's answer is larger than {ANSWER_BYTES} bytes")
                chunks.append(piece)
        return Response(head.status, head.headers, b"".join(chunks))

    async def stream(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        *,
        wait: float = 0.0,
    ) -> ResponseHead:
        """Send a request and read the answer's head; `body()` then yields the rest as it comes. Raises as `request`."""
        headers = [*headers, *await self._authorize()]
        data = request(method, self.server.prefix + path, self.server.authority, headers, body)
        if self._parser is not None:
            await self.close()
        if self._streams is not None and self._streams[0].at_eof():
            await self.close()
        fresh = self._streams is None
        try:
            return await self._exchange(method, data, wait)
        except Unreachable:
            raise
        except Broken:
            # RFC 9112 §9.3.1: a server may close an idle connection just as the next request is sent. All of ours may
            # be repeated: a GET changes nothing and a POST carries an Idempotency-Key.
            if fresh:
                raise
            return await self._exchange(method, data, wait)

    async def body(self) -> AsyncGenerator[bytes, None]:
        """Yield the answer's body as it arrives, each piece within the idle time. Raises `Broken` where it is cut."""
        while True:
            event = await self._next(self._timing.idle)
            if isinstance(event, Body):
                yield event.data
            elif isinstance(event, End):
                self._parser = None
                if not event.keep_alive or event.rest:  # nobody asked for what is in rest
                    await self.close()
                return

    async def upgrade(self, make: Callable[[Sequence[tuple[str, str]]], bytes]) -> tuple[ResponseHead, bytes]:
        """Send a request to switch protocols; return the head of the 101 and the bytes after it, then `read`, `write`.

        `make` returns the request with the headers that it is given. Raises as `request`; another answer than 101 as
        what `refusal` makes of it.
        """
        data = make(await self._authorize())
        head = await self._exchange("GET", data, 0.0)
        if head.status != 101:
            body = b"".join([piece async for piece in self.body()])
            raise refusal(head.status, body, retry_after(head.headers, time.time), opening=True)
        end = await self._next(self._timing.answer)  # came with the head
        return head, end.rest if isinstance(end, End) else b""

    async def read(self, seconds: float) -> bytes | None:
        """Return the next bytes, `b""` at the end, None if none come within `seconds`. Raises `Broken`."""
        if self._streams is None:
            raise Broken("the connection is closed")
        try:
            async with asyncio.timeout(seconds):
                return await self._streams[0].read(READ_BYTES)
        except TimeoutError:
            return None
        except OSError as error:
            await self.close()
            raise Broken(f"the connection broke: {_reason(error)}") from None

    async def write(self, data: bytes) -> None:
        """Write bytes, and wait until the socket takes more. Raises `Broken`."""
        if self._streams is None:
            raise Broken("the connection is closed")
        try:
            self._streams[1].write(data)
            async with asyncio.timeout(self._timing.answer):
                await self._streams[1].drain()
        except OSError as error:  # TimeoutError is one
            await self.close()
            raise Broken(f"the connection broke: {_reason(error)}") from None

    async def close(self) -> None:
        """Close the streams. Nothing is raised; the next request opens new ones."""
        streams, self._streams, self._parser = self._streams, None, None
        self._events.clear()
        if streams is None:
            return
        writer = streams[1]
        try:
            writer.close()
            async with asyncio.timeout(CLOSE_SECONDS):
                await writer.wait_closed()
        except OSError:  # TimeoutError is one
            writer.transport.abort()

    async def _exchange(self, method: str, data: bytes, wait: float) -> ResponseHead:
        """Send the request; read the answer's head."""
        if self._streams is None:
            await self._open()
        self._parser = ResponseParser(method)
        await self.write(data)
        head = await self._next(self._timing.answer + wait)
        assert isinstance(head, ResponseHead)  # a parser's first event
        return head

    async def _open(self) -> None:
        server = self.server
        context = ssl.create_default_context() if server.scheme == "https" else None
        try:
            async with asyncio.timeout(self._timing.connect):
                self._streams = await asyncio.open_connection(server.host, server.port, ssl=context)
        except ssl.SSLCertVerificationError as error:
            raise Refused(f"the certificate of {server} is not trusted: {error.verify_message}") from None
        except OSError as error:
            raise Unreachable(f"no server answers at {server}: {_reason(error)}") from None

    async def _next(self, seconds: float) -> ResponseHead | Body | End:
        """Return the next piece of the answer, within `seconds` if it has to be waited for."""
        try:
            while not self._events:
                data = await self.read(seconds)
                assert self._parser is not None  # an answer is being read
                if data is None:
                    raise Broken(f"the server sent nothing for {seconds:g} s")
                self._events.extend(self._parser.receive(data) if data else self._parser.receive_eof())
        except ResponseFailed as error:
            await self.close()
            raise Broken("the server closed the connection" if error.truncated else str(error)) from None
        except Broken:
            await self.close()
            raise
        return self._events.popleft()


def retry_after(headers: Mapping[str, str], wall_clock: Callable[[], float]) -> float | None:
    """Return the seconds of a Retry-After, which is a number or a date (RFC 9110 §10.2.3); None if there is none."""
    value = headers.get("retry-after", "").strip()
    try:
        if value.isdecimal():
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - wall_clock())
    except (ValueError, OverflowError):
        return None


def _reason(error: OSError) -> str:
    """Say what went wrong, without the address that asyncio repeats."""
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError):
        return "connection reset"
    return error.strerror or str(error) or type(error).__name__


class OverHttp:
    """What each transport is made with: where the server is, who asks, and how long to be patient."""

    def __init__(
        self,
        server: Server,
        *,
        timing: Timing,
        sleep: Callable[[float], Awaitable[object]],
        authorize: Authorize = anonymous,
    ) -> None:
        self._server = server
        self._timing = timing
        self._authorize = authorize
        self._sleep = sleep

    def _connection(self) -> Connection:
        return Connection(self._server, timing=self._timing, authorize=self._authorize)

"""One HTTP/1.1 connection to a server, kept alive: one request at a time, its answer whole or as a stream.

Owns the socket and the time limits on it; `wire.http1_client` owns the bytes. What the network does is raised as
`Broken` or `Unreachable`. Invariant: a connection whose last answer was not read to its end is never used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from ..wire.http1_client import Body, End, ResponseFailed, ResponseHead, ResponseParser, request
from .base import Authorize, anonymous
from .dialing import Endpoint, Streams, open_streams, reason_of
from .failures import Broken, Unreachable, failure_of_answer, retry_after
from .timing import Timing

__all__ = ["HttpConnection", "OverHttp", "Response"]

READ_BYTES = 65536
WRITE_BYTES = 65536  # of a body at once: each piece has a deadline of its own, so a slow line that moves is no failure
SLOWEST = 16384  # bytes a second, at which the system may still be sending a large body while the answer is awaited
ANSWER_BYTES = 256 * 1024 * 1024  # a page of POLL_LIMIT messages of 1 MiB, in base64, fits
CLOSE_SECONDS = 1.0  # for the last bytes and TLS's close_notify; then the socket is dropped
LATE_SECONDS = 0.1  # past a deadline: then the application held the event loop, and the network was not looked at


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer. `headers` has lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def retry_after(self) -> float | None:
        """The seconds of its Retry-After, None if it has none."""
        return retry_after(self.headers, time.time())


class HttpConnection:
    """A connection to an endpoint, opened when it is first needed and again when the server had closed it in between.

    Nothing is read ahead of what is asked for, so a slow caller slows the server down. `authorize` is asked for the
    headers that every request has, beside those of the endpoint.
    """

    def __init__(self, endpoint: Endpoint, *, timing: Timing, authorize: Authorize = anonymous) -> None:
        self.endpoint = endpoint
        self._timing = timing
        self._authorize = authorize
        self._streams: Streams | None = None
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
        return Response(head.status, head.headers, await self.whole_body())

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
        url = self.endpoint.url
        headers = [*headers, *await self._identity()]
        data = request(method, url.prefix + path, url.authority, headers, body)
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

    async def body(self, idle: float | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the answer's body as it arrives, each piece within `idle` seconds. Raises `Broken` where it is cut."""
        seconds = self._timing.idle_for(None) if idle is None else idle
        while True:
            event = await self._next(seconds)
            if isinstance(event, Body):
                yield event.data
            elif isinstance(event, End):
                self._parser = None
                if not event.keep_alive or event.rest:  # no request of ours is answered by what is in rest
                    await self.close()
                return

    async def whole_body(self) -> bytes:
        """Return the answer's body. Raises `Broken` where it is cut, too large, or takes longer than `Timing.body`."""
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._timing.body), contextlib.aclosing(self.body()) as pieces:
                async for piece in pieces:
                    size += len(piece)
                    if size > ANSWER_BYTES:
                        await self.close()
                        raise Broken(f"the server's answer is larger than {ANSWER_BYTES} bytes")
                    chunks.append(piece)
        except TimeoutError:
            await self.close()
            raise Broken(f"the server's answer has not ended within {self._timing.body:g} s") from None
        return b"".join(chunks)

    async def upgrade(self, make: Callable[[Sequence[tuple[str, str]]], bytes]) -> tuple[ResponseHead, bytes]:
        """Send a request to switch protocols; return the head of the 101 and the bytes after it, then `read`, `write`.

        `make` returns the request with the headers that it is given. Raises as `request`; another answer than 101 as
        what `failure_of_answer` makes of it.
        """
        data = make(await self._identity())
        head = await self._exchange("GET", data, 0.0)
        if head.status != 101:
            body = await self.whole_body()
            raise failure_of_answer(head.status, body, retry_after(head.headers, time.time()), opening=True)
        end = await self._next(self._timing.answer)  # came with the head
        return head, end.rest if isinstance(end, End) else b""

    async def read(self, seconds: float) -> bytes | None:
        """Return the next bytes, `b""` at the end, None if none come within `seconds`. Raises `Broken`.

        Time in which the application holds the event loop does not count: the network is then given as much again.
        """
        if self._streams is None:
            raise Broken("the connection is closed")
        reader, loop = self._streams[0], asyncio.get_running_loop()
        try:
            while True:
                due = loop.time() + seconds
                try:
                    async with asyncio.timeout(seconds):
                        return await reader.read(READ_BYTES)
                except TimeoutError:
                    seconds = min(seconds, loop.time() - due)
                    if seconds < LATE_SECONDS:
                        return None
        except OSError as error:
            await self.close()
            raise Broken(f"the connection broke: {reason_of(error)}") from None

    async def write(self, data: bytes) -> None:
        """Write bytes, and wait until the socket takes more. Raises `Broken`."""
        if self._streams is None:
            raise Broken("the connection is closed")
        writer = self._streams[1]
        try:
            for start in range(0, len(data), WRITE_BYTES):
                writer.write(data[start : start + WRITE_BYTES])
                async with asyncio.timeout(self._timing.answer):
                    await writer.drain()
        except OSError as error:  # TimeoutError is one
            await self.close()
            raise Broken(f"the connection broke: {reason_of(error)}") from None

    async def close(self) -> None:
        """Close the streams. Nothing is raised; the next request opens new ones."""
        streams, self._streams, self._parser = self._streams, None, None
        self._events.clear()
        if streams is None:
            return
        writer = streams[1]
        if not writer.is_closing():  # else the peer has begun, and after a second close of TLS an abort does nothing
            writer.close()
        try:
            with contextlib.suppress(OSError):  # TimeoutError is one
                async with asyncio.timeout(CLOSE_SECONDS):
                    await writer.wait_closed()
        finally:  # also if this is cancelled: TLS would wait half a minute for the peer's goodbye
            writer.transport.abort()

    async def _identity(self) -> Sequence[tuple[str, str]]:
        return [*self.endpoint.headers, *await self._authorize()]

    async def _exchange(self, method: str, data: bytes, wait: float) -> ResponseHead:
        """Send the request; read the answer's head."""
        if self._streams is None:
            self._streams = await open_streams(self.endpoint, self._timing)
        self._parser = ResponseParser(method)
        await self.write(data)
        head = await self._next(self._timing.answer + wait + max(0, len(data) - WRITE_BYTES) / SLOWEST, whole=True)
        assert isinstance(head, ResponseHead)  # a parser's first event
        return head

    async def _next(self, seconds: float, *, whole: bool = False) -> ResponseHead | Body | End:
        """Return the next piece of the answer. Each read has `seconds`; with `whole` all reads for it together have."""
        loop = asyncio.get_running_loop()
        left, come = seconds, False
        try:
            while not self._events:
                began = loop.time()
                data = await self.read(left)
                if whole:
                    left = max(0.0, left - (loop.time() - began))
                assert self._parser is not None  # an answer is being read
                if data is None:
                    raise Broken(
                        f"the server sent {'no whole head' if come and whole else 'nothing'} for {seconds:g} s"
                    )
                come = True
                self._events.extend(self._parser.receive(data) if data else self._parser.receive_eof())
        except ResponseFailed as error:
            await self.close()
            raise Broken("the server closed the connection" if error.truncated else str(error)) from None
        except Broken:
            await self.close()
            raise
        return self._events.popleft()


class OverHttp:
    """What each transport is made with: where the server is, the identity, the time limits.

    `connection` makes its connections; what counts them gives a kind of `HttpConnection` of its own.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timing: Timing,
        sleep: Callable[[float], Awaitable[object]],
        authorize: Authorize = anonymous,
        connection: Callable[..., HttpConnection] = HttpConnection,
    ) -> None:
        self._endpoint = endpoint
        self._timing = timing
        self._authorize = authorize
        self._sleep = sleep
        self._kind = connection

    def _connection(self) -> HttpConnection:
        return self._kind(self._endpoint, timing=self._timing, authorize=self._authorize)

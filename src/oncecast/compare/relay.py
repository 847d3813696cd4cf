"""A pipe between a transport's listeners and the server: it counts every byte, and delays them by a distance.

It is a proxy of HTTP's CONNECT on loopback, so that the client's own code goes through it and TLS stays end to end.
What it reads from either side, once the tunnel is open, is what a socket carries: heads, TLS records, chunks, frames.

Invariant: it connects to its one server only; a byte is counted once, when it is read; the bytes of a direction keep
their order, and what waits is bounded.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ..client.dialing import Endpoint, Streams, open_streams
from ..client.failures import Broken, Refused
from ..client.timing import Timing
from ..client.url import ProxyUrl, ServerUrl

__all__ = ["Relay", "Traffic"]

WAITING_BYTES = 4 * 1024 * 1024  # under way in one direction of a connection; past that it is not read from
HEAD_SECONDS = 10.0
LEAVE_SECONDS = 2.0  # from one side's end to the other's; then both are cut


@dataclass(slots=True)
class Traffic:
    """What a relay has carried: bytes from the listeners (`up`) and to them (`down`), and its connections.

    `held_seconds` is the sum over all connections of how long each was open, up to the moment `now`.
    """

    up: int = 0
    down: int = 0
    opened: int = 0
    open: int = 0
    held_seconds: float = 0.0
    now: float = 0.0

    def at(self, now: float) -> Traffic:
        """Return a copy that counts up to `now`."""
        held = self.held_seconds + self.open * (now - self.now)
        return Traffic(self.up, self.down, self.opened, self.open, held, now)

    def change(self, now: float, step: int) -> None:
        """Count a connection that opens (1) or closes (-1)."""
        self.held_seconds += self.open * (now - self.now)
        self.now = now
        self.open += step
        self.opened += step > 0


class Relay:
    """The pipe to `server`, by way of the proxy `through` if one is given. `rtt` is in seconds.

    `failure` is why the last connection could not be opened, which the client behind the pipe can't know.
    """

    def __init__(
        self,
        server: ServerUrl,
        *,
        through: ProxyUrl | None = None,
        rtt: float = 0.0,
        timing: Timing | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        # Whatever the scheme: TLS passes through, so the relay itself opens plain connections.
        self._endpoint = Endpoint(ServerUrl("http", server.host, server.port, ""), proxy=through)
        self._rtt = rtt
        self._timing = timing or Timing()
        self._clock = clock
        self._listening: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.traffic = Traffic(now=clock())
        self.failure = ""

    @property
    def proxy(self) -> ProxyUrl:
        """Where listeners reach it."""
        assert self._listening is not None, "the relay is started first"
        return ProxyUrl("127.0.0.1", self._listening.sockets[0].getsockname()[1], "")

    async def start(self) -> None:
        """Listen on a free port of loopback."""
        self._listening = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def close(self) -> None:
        """Cut all connections."""
        if self._listening is not None:
            self._listening.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve((reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, near: Streams) -> None:
        """Open the tunnel that is asked for, and carry bytes until one side leaves."""
        far: Streams | None = None
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                await near[0].readuntil(b"\r\n\r\n")
            far = await self._dial(near[1])
            if far is None:
                return
            self.traffic.change(self._clock(), 1)
            try:
                await self._carry(near[1].transport, far[1].transport)
            finally:
                self.traffic.change(self._clock(), -1)
        except (OSError, EOFError, asyncio.LimitOverrunError):  # EOFError: the head was cut
            pass
        finally:
            for side in (near, far):
                if side is not None:
                    side[1].transport.abort()

    async def _dial(self, near: asyncio.StreamWriter) -> Streams | None:
        """Connect to the server; None where that fails, and then the listener is answered 502."""
        try:
            far = await open_streams(self._endpoint, self._timing)
        except (Broken, Refused) as error:
            self.failure = str(error)
            near.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            await near.drain()
            return None
        self.failure = ""
        await asyncio.sleep(self._rtt)  # TCP's handshake takes a round trip
        return far

    async def _carry(self, near: asyncio.WriteTransport, far: asyncio.WriteTransport) -> None:
        """Carry bytes both ways, until one side has ended and the other has had time to.

        Neither side has said anything yet: the listener waits for the tunnel, and servers of HTTP and TLS for a word.
        """
        up = _Direction(near, far, self._rtt / 2, self._count_up)
        down = _Direction(far, near, self._rtt / 2, self._count_down)
        up.blocks, down.blocks = down, up
        near.set_protocol(up)
        far.set_protocol(down)
        near.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            await asyncio.wait({up.ended, down.ended}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({up.ended, down.ended}, timeout=LEAVE_SECONDS + self._rtt)
        finally:
            up.stop()
            down.stop()

    def _count_up(self, size: int) -> None:
        self.traffic.up += size

    def _count_down(self, size: int) -> None:
        self.traffic.down += size


class _Direction(asyncio.Protocol):
    """One direction: what is read from `source` is written to `sink`, `seconds` later.

    It is the protocol of its source; `blocks` is the other direction, which is that of its sink and hears when that is
    full. `ended` is done once the source has ended and all of it was handed on.
    """

    blocks: _Direction

    def __init__(
        self,
        source: asyncio.WriteTransport,
        sink: asyncio.WriteTransport,
        seconds: float,
        count: Callable[[int], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._source = source
        self._sink = sink
        self._seconds = seconds
        self._count = count
        self._waiting: deque[tuple[float, bytes]] = deque()  # b"" is the end
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._paused = self._sink_full = False

    def stop(self) -> None:
        """Hand on nothing more."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()

    # What the source says

    def data_received(self, data: bytes) -> None:
        """Count bytes and hand them on, now or when they have been under way for long enough."""
        self._count(len(data))
        self._hand_on(data)

    def eof_received(self) -> bool:
        """Hand on the end. The other direction may go on for a while."""
        self._hand_on(b"")
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """Note the end, where it came without a word."""
        if not self.ended.done():
            self.ended.set_result(None)

    def pause_writing(self) -> None:
        """Read no more from the other side: the source of this direction, its sink, is full."""
        self.blocks.sink_is(full=True)

    def resume_writing(self) -> None:
        """Read on."""
        self.blocks.sink_is(full=False)

    # Handing on

    def sink_is(self, *, full: bool) -> None:
        """Note whether the sink takes more."""
        self._sink_full = full
        self._pause()

    def _hand_on(self, data: bytes) -> None:
        if not self._seconds:
            self._write(data)
            return
        self._waiting.append((self._loop.time() + self._seconds, data))
        self._bytes += len(data)
        self._pause()
        if self._timer is None:
            self._timer = self._loop.call_at(self._waiting[0][0], self._due)

    def _due(self) -> None:
        """Write what has been under way for long enough, in its order."""
        self._timer = None
        now = self._loop.time()
        while self._waiting and self._waiting[0][0] <= now:
            _, data = self._waiting.popleft()
            self._bytes -= len(data)
            self._write(data)
        self._pause()
        if self._waiting:
            self._timer = self._loop.call_at(self._waiting[0][0], self._due)

    def _write(self, data: bytes) -> None:
        if data:
            self._sink.write(data)
            return
        if self._sink.can_write_eof() and not self._sink.is_closing():
            self._sink.write_eof()
        if not self.ended.done():
            self.ended.set_result(None)

    def _pause(self) -> None:
        """Read from the source only while there is room."""
        pause = self._sink_full or self._bytes > WAITING_BYTES
        if pause != self._paused and not self._source.is_closing():
            assert isinstance(self._source, asyncio.Transport)
            self._paused = pause
            (self._source.pause_reading if pause else self._source.resume_reading)()

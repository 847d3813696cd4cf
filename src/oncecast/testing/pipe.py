"""A faulty pipe: a TCP proxy on loopback that cuts, stalls, slows or swallows a stream, at a given or random byte.

It owns two tasks per connection, one for each direction, and ends all of them in `close`. Invariant: it forwards the
bytes in order and unaltered, unless `rewrite` says otherwise, up to the byte of a fault, and nothing after a cut.

All random values come from `FaultyPipe.random`, which `seed` determines. Print the seed with a failure; the same seed
gives the same values. To add a fault, add a field to `Faults` and apply it in `_Way.run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

__all__ = ["NO_FAULTS", "Faults", "FaultyPipe", "Plan"]

READ_BYTES = 64 << 10  # per read; a fault still happens at its exact byte
CONNECT_SECONDS = 5.0
BUFFER_BYTES = 16 << 10  # per direction, besides the kernel's buffers; small, so that backpressure reaches the sender


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """The faults of one direction of a connection. Counts are bytes of this direction; None means never.

    After `cut_after` forwarded bytes both ends are closed; with `reset` by RST, which may lose the last bytes too.
    After `half_close_after` bytes a FIN is forwarded and no more bytes; the other direction continues. After
    `stall_after` bytes nothing is read until `FaultyPipe.resume`, as with a peer that hangs. After `swallow_after`
    bytes the next `swallow_bytes` are read and dropped, or all if it is None. `piece_bytes` is the largest write, and
    `delay` the seconds before each.
    """

    cut_after: int | None = None
    reset: bool = False
    half_close_after: int | None = None
    stall_after: int | None = None
    swallow_after: int | None = None
    swallow_bytes: int | None = None
    piece_bytes: int = READ_BYTES
    delay: float = 0.0


NO_FAULTS = Faults()


@dataclass(frozen=True, slots=True)
class Plan:
    """The faults of one connection: `up` to the server, `down` to the client."""

    up: Faults = NO_FAULTS
    down: Faults = NO_FAULTS


NO_PLAN = Plan()


class FaultyPipe:
    """Listens on `port` of 127.0.0.1 and connects each client to `target` (host and port), which may be changed.

    `plan` returns the faults of a connection; its arguments are the number of the connection, from 0, and `random`.
    `connections` counts connections, `cuts` those that the pipe has cut, `up_bytes` and `down_bytes` forwarded bytes.
    `rewrite` is given what comes from the server, as it is read, and returns as many bytes, which are forwarded in its
    place: some servers tell their clients an address to connect to, and it has to be the pipe's.
    """

    def __init__(
        self,
        target: tuple[str, int],
        plan: Callable[[int, random.Random], Plan] = lambda number, rng: NO_PLAN,
        *,
        seed: int | None = None,
        rewrite: Callable[[bytes], bytes] = lambda data: data,
    ) -> None:
        self.seed = int.from_bytes(os.urandom(4), "big") if seed is None else seed
        self.random = random.Random(self.seed)  # noqa: S311 - faults have to be repeatable, not secret
        self.plan = plan
        self.rewrite = rewrite
        self.port = 0
        self.connections = 0
        self.cuts = 0
        self.up_bytes = 0
        self.down_bytes = 0
        self.target = target
        self._server: asyncio.Server | None = None
        self._joints: set[_Joint] = set()
        self._up, self._down = asyncio.Event(), asyncio.Event()  # set: that direction passes on
        self.release()

    async def start(self) -> None:
        """Begin to listen, and set `port`."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=BUFFER_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Cut every connection, end every task, and stop listening. A second call does nothing."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        joints = list(self._joints)
        for joint in joints:
            joint.abort()
        for joint in joints:
            await joint.ended()
        if server is not None:
            await server.wait_closed()

    def cut(self, *, reset: bool = False) -> int:
        """Cut every connection now, and return their number."""
        living = [joint for joint in self._joints if joint.cut(reset=reset)]
        self.cuts += len(living)
        return len(living)

    def refuse(self) -> None:
        """Take no more connections; those that are open go on."""
        if self._server is not None:
            self._server.close()

    def hold(self, *, up: bool = True, down: bool = True) -> None:
        """Pass nothing on in these directions until `release`: a partition, which may be one-way."""
        for event, held in ((self._up, up), (self._down, down)):
            if held:
                event.clear()

    def release(self) -> None:
        """Pass on again, what was held first, as a network that is whole again."""
        self._up.set()
        self._down.set()

    def resume(self) -> None:
        """End every stall; a direction stalls only once."""
        for joint in self._joints:
            joint.going.set()

    async def __aenter__(self) -> FaultyPipe:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"FaultyPipe(port={self.port}, seed={self.seed}, connections={self.connections}, cuts={self.cuts})"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # accepted while the pipe was closing
            writer.transport.abort()
            return
        plan = self.plan(self.connections, self.random)
        self.connections += 1
        joint = _Joint(self, plan, reader, writer)
        self._joints.add(joint)
        try:
            await joint.run(self.target)
        finally:
            self._joints.discard(joint)


class _Outcome(enum.Enum):
    """How a direction ended."""

    EOF = "its sender has no more"
    CUT = "a fault says so"
    BROKEN = "one of the peers is gone"


class _Joint:
    """One connection: the client's socket, the server's, and the two directions between them."""

    __slots__ = ("_over", "_pipe", "_plan", "_reader", "_task", "_ways", "_writers", "going")

    def __init__(
        self, pipe: FaultyPipe, plan: Plan, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.going = asyncio.Event()  # set: a stall is over
        self._pipe = pipe
        self._plan = plan
        self._reader = reader
        self._writers = [writer]
        self._ways: set[asyncio.Task[_Outcome]] = set()
        self._over = False
        task = asyncio.current_task()
        assert task is not None
        self._task = task

    async def run(self, target: tuple[str, int]) -> None:
        """Forward in both directions until both have ended or one is cut."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, server = await asyncio.open_connection(*target, limit=BUFFER_BYTES)
        except OSError:
            self._end(reset=True)  # the client sees what the target's refusal would look like
        else:
            client = self._writers[0]
            self._writers.append(server)
            if self._over:
                server.close()
            else:
                pipe = self._pipe
                up = _Way(self._plan.up, self.going, pipe._up, self._count_up)
                down = _Way(self._plan.down, self.going, pipe._down, self._count_down, pipe.rewrite)
                ways = (up.run(self._reader, server), down.run(reader, client))
                self._ways = {asyncio.create_task(way) for way in ways}
                await self._last()
        for writer in self._writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def cut(self, *, reset: bool) -> bool:
        """Close both ends. Returns False if they were closed already."""
        fresh = self._end(reset)
        for way in self._ways:
            way.cancel()
        return fresh

    def abort(self) -> None:
        """Close both ends, and drop unsent bytes."""
        self.cut(reset=False)
        for writer in self._writers:
            writer.transport.abort()

    async def ended(self) -> None:
        """Wait until both directions have ended."""
        await asyncio.wait([self._task])

    async def _last(self) -> None:
        """Wait for the end of both directions. A cut, or a closed peer, ends both."""
        pending = self._ways
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            outcomes = [way.result() for way in done if not way.cancelled()]
            if _Outcome.CUT in outcomes and self.cut(reset=self._plan.up.reset or self._plan.down.reset):
                self._pipe.cuts += 1
            elif _Outcome.BROKEN in outcomes:
                self.cut(reset=True)
        self._end(reset=False)

    def _end(self, reset: bool) -> bool:
        if self._over:
            return False
        self._over = True
        for writer in self._writers:
            if reset:
                _linger_not(writer)
                writer.transport.abort()
            else:
                writer.close()  # bytes already forwarded are still sent
        return True

    def _count_up(self, count: int) -> None:
        self._pipe.up_bytes += count

    def _count_down(self, count: int) -> None:
        self._pipe.down_bytes += count


class _Way:
    """One direction of one connection."""

    __slots__ = ("_count", "_faults", "_gate", "_going", "_passed", "_rewrite")

    def __init__(
        self,
        faults: Faults,
        going: asyncio.Event,
        gate: asyncio.Event,
        count: Callable[[int], None],
        rewrite: Callable[[bytes], bytes] = lambda data: data,
    ) -> None:
        self._faults = faults
        self._going = going
        self._gate = gate
        self._count = count
        self._rewrite = rewrite
        self._passed = 0  # swallowed bytes included

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Outcome:
        """Forward bytes until a fault or the end of the stream; forward the end too."""
        faults = self._faults
        try:
            while True:
                if self._passed == faults.cut_after:
                    return _Outcome.CUT
                if self._passed == faults.half_close_after:
                    break
                if self._passed == faults.stall_after:
                    await self._going.wait()
                data = await reader.read(self._room())
                await self._gate.wait()
                if not data:
                    break
                if faults.delay:
                    await asyncio.sleep(faults.delay)
                await self._take(data, writer)
            writer.write_eof()
        except OSError:
            return _Outcome.BROKEN
        return _Outcome.EOF

    async def _take(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if not self._swallows():
            writer.write(self._rewrite(data))
            await writer.drain()
            self._count(len(data))
        self._passed += len(data)
        if self._faults.piece_bytes < READ_BYTES:
            await asyncio.sleep(0)  # lets the receiver run, so that pieces are not joined in its buffer

    def _room(self) -> int:
        """The number of bytes to read, so that no read goes beyond the byte of a fault."""
        faults = self._faults
        places = [faults.cut_after, faults.half_close_after, faults.stall_after, faults.swallow_after]
        if faults.swallow_after is not None and faults.swallow_bytes is not None:
            places.append(faults.swallow_after + faults.swallow_bytes)
        ahead = [place - self._passed for place in places if place is not None and place > self._passed]
        return min(faults.piece_bytes, *ahead, READ_BYTES)

    def _swallows(self) -> bool:
        first, count = self._faults.swallow_after, self._faults.swallow_bytes
        return first is not None and self._passed >= first and (count is None or self._passed < first + count)


def _linger_not(writer: asyncio.StreamWriter) -> None:
    """Make the close send RST at once."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):  # it is closed already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

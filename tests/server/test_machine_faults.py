"""Faults of the machine below a server, as a process: a slow disk, no memory, a clock that is set.

`test_durable.py` has a full disk and a file that is gone, `test_accepting.py` no more file descriptors.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import time
from collections.abc import AsyncIterator, Iterator
from http.client import HTTPException
from pathlib import Path

from oncecast import AsyncClient

from ..proof.deployment import Deployment
from ..token_rig import SECRET, claims, token

SECONDS = 60.0
STRACE = ("strace", "-D", "-f", "--seccomp-bpf", "-qq", "-e", "trace=fsync,fdatasync")
QUICK = 8  # fsyncs of each thread that are not held up: those of the start
SLOW = ("-e", f"inject=fsync,fdatasync:delay_enter=800ms:when={QUICK + 1}+")
BIG = 500_000
ROOM = 16 << 20  # for a worker, beyond what it has at its start
CGROUPS = Path("/sys/fs/cgroup/memory")  # of version 1


async def publish(server: Deployment, channel: str, text: str) -> None:
    """Publish a text."""
    status, answer = await asyncio.to_thread(server.ask, "POST", channel, text)
    assert 201 == status, answer


@contextlib.asynccontextmanager
async def stream(server: Deployment, channel: str, headers: str = "") -> AsyncIterator[asyncio.StreamReader]:
    """Open an event stream, and read on up to its first event."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = f"GET /v1/channels/{channel} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{headers}\r\n"
    writer.write(head.encode())
    try:
        await until(reader, b"\nid:")
        yield reader
    finally:
        writer.close()


async def until(reader: asyncio.StreamReader, text: bytes) -> None:
    """Read up to a text."""
    await asyncio.wait_for(reader.readuntil(text), SECONDS)


# -- a slow disk


async def test_a_slow_fsync_holds_up_nobody_else(tmp_path: Path) -> None:
    """While the disk takes its time, polls and heartbeats go on, and the publishes that wait share the next fsync."""
    settings = {"durability": "fsync", "limits__heartbeat_seconds": 0.1}
    traced = tmp_path / "fsyncs"
    under = (*STRACE, *SLOW, "-o", str(traced))
    count = 20
    async with Deployment(tmp_path, workers=1) as server:  # makes the file, with many an fsync
        await server.stop()
    async with Deployment(tmp_path, workers=1, settings=settings, under=under) as server, stream(server, "a") as reader:
        for number in range(QUICK):
            await publish(server, "b", str(number))
        before = traced.read_text().count("sync(")
        waiting = [asyncio.create_task(publish(server, "a", str(number))) for number in range(count)]
        poller, asking = await asyncio.open_connection("127.0.0.1", server.port)
        polls = 0
        while not any(each.done() for each in waiting):
            asking.write(b"GET /v1/channels/c HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await until(poller, b'"gap":null}')
            await until(reader, b": keep-alive")
            polls += 1
        asking.close()
        await asyncio.gather(*waiting)
        assert polls >= 3, "the loop has waited for the disk"
        assert traced.read_text().count("sync(") - before < count
        _, answer = await asyncio.to_thread(server.ask, "GET", "a?after=earliest")
        assert {*map(str, range(count))} == {str(message["data"]) for message in answer["messages"]}


# -- no memory


@contextlib.contextmanager
def little_memory(pid: int) -> Iterator[bool]:
    """Give a process little memory beyond what it has; yield False where no cgroup can be made for that."""
    group = CGROUPS / f"oncecast-test-{pid}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(ROOM))
        (group / "cgroup.procs").write_text(str(pid))
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        yield False
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):  # it is of no process any more, but the kernel may not have noticed
            group.rmdir()


def size_of(pid: int) -> int:
    """Return the bytes of a process's address space."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[0]) * resource.getpagesize()


async def test_a_worker_that_the_kernel_kills_for_its_memory_is_replaced(tmp_path: Path) -> None:
    """What was acknowledged is delivered once, in order, and the other worker goes on.

    Where no cgroup can be made, the test does what the kernel would: it kills the worker amid publishes.
    """
    settings = {"retention__bytes": 256 << 20, "limits__bytes_per_second": 1 << 30}
    acknowledged: list[str] = []
    async with (
        Deployment(tmp_path, workers=2, settings=settings) as server,
        AsyncClient(server.url, transports=["sse"]) as client,
        client.subscribe("a") as messages,
    ):
        await publish(server, "a", "first")
        assert "first" == (await asyncio.wait_for(anext(messages), SECONDS)).data
        victim, other = server.workers
        end = time.monotonic() + SECONDS
        with little_memory(victim) as limited:
            number = 0
            while victim in server.workers:
                assert time.monotonic() < end, "the worker has lived on"
                number += 1
                with contextlib.suppress(OSError, HTTPException):
                    await publish(server, "a", text := f"m{number}{'x' * BIG}")
                    acknowledged.append(text[:9])
                if not limited and number == 10:
                    os.kill(victim, signal.SIGKILL)
            while len(server.workers) < 2:
                assert time.monotonic() < end, f"it is not replaced:\n{server.log}"
                await asyncio.sleep(0.02)
        assert other in server.workers
        await publish(server, "a", "last")
        heard: list[str] = []
        while "last" not in heard:
            heard.append((await asyncio.wait_for(anext(messages), SECONDS)).data[:9])
    assert [*acknowledged, "last"] == [text for text in heard if text in {*acknowledged, "last"}]
    assert len(set(heard)) == len(heard)


async def test_a_worker_that_can_get_no_memory_says_so_and_goes_on(tmp_path: Path) -> None:
    """A large publish ends its own connection, with the cause in the log; small requests are answered, also later."""
    async with Deployment(tmp_path, workers=2) as server:
        await publish(server, "a", "before")
        free: dict[int, tuple[int, int]] = {}
        for pid in server.workers:
            free[pid] = resource.prlimit(pid, resource.RLIMIT_AS)
            resource.prlimit(pid, resource.RLIMIT_AS, (size_of(pid) + (1 << 20), free[pid][1]))
        acknowledged = 0
        with contextlib.suppress(OSError, HTTPException):
            for number in range(200):
                await publish(server, "a", f"{number}{'x' * BIG}")
                acknowledged += 1
        assert acknowledged < 200
        status, _ = await asyncio.to_thread(server.ask, "GET", "b")
        assert 200 == status
        for pid, limits in free.items():
            resource.prlimit(pid, resource.RLIMIT_AS, limits)
        await publish(server, "a", "after")
        assert set(free) == set(server.workers)
        assert acknowledged + 2 <= len(server.stored())  # what was stored could not always be acknowledged
        await server.says("MemoryError")


# -- a clock that is set


class SetClock:
    """A wall clock for a process, by Debian's libfaketime. The monotonic one is the machine's."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set(0)
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        self.environ = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: int) -> None:
        """Set the clock to so many seconds ahead of the machine's."""
        made = self._file.with_suffix(".new")
        made.write_text(f"{seconds:+d}\n")
        made.replace(self._file)


async def test_a_clock_that_jumps_ends_tokens_and_nothing_else(tmp_path: Path) -> None:
    """An hour forth: a token of half an hour ends. An hour back: one that is not valid yet is refused.

    Heartbeats, a poll that waits, delivery and order go on as if nothing had happened.
    """
    now = int(time.time())
    clock = SetClock(tmp_path)
    settings = {"auth__secret": SECRET, "limits__heartbeat_seconds": 0.2, "retention__seconds": 86400}
    (tmp_path / "oncecast.toml").write_text('[channels."*"]\nsubscribe = "public"\npublish = "public"\n')

    def bearer(**more: int) -> str:
        return f"Bearer {token(claims(iat=now - 7200, exp=now + 1800, **more))}"

    def status(authorization: str) -> int:
        return server.ask("GET", "a", Authorization=authorization)[0]

    async with (
        Deployment(tmp_path, workers=1, settings=settings, environ=clock.environ) as server,
        stream(server, "a") as anybody,
        stream(server, "a", f"Authorization: {bearer()}\r\n") as ann,
    ):
        assert 200 == status(bearer())
        waiting = asyncio.create_task(asyncio.to_thread(server.ask, "GET", "b?after=latest&wait=25"))
        await publish(server, "a", "0")
        clock.set(3600)
        await until(ann, b"event: error")
        await until(ann, b"unauthorized")
        assert 401 == status(bearer())
        await until(anybody, b"data: 0")
        for number, jump in enumerate((3600, -3600, 0), 1):
            clock.set(jump)
            for _ in range(3):
                await until(anybody, b": keep-alive")
            await publish(server, "a", str(number))
            await until(anybody, f"data: {number}".encode())
            assert (401 if jump > 0 else 200) == status(bearer())
            assert (200 if jump == 0 else 401) == status(bearer(nbf=now))
        assert not waiting.done()
        await publish(server, "b", "came")
        answered, answer = await waiting
        assert (200, ["came"]) == (answered, [message["data"] for message in answer["messages"]])
        assert [0, 1, 2, 3] == [int(message.data) for message in server.stored() if message.channel == "a"]

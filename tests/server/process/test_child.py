"""A worker as its supervisor sees it: what becomes of it, and what is sent to it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import pytest
import pytest_asyncio

from oncecast.server.listening import bind_slots
from oncecast.server.measures import Crew, Measures
from oncecast.server.process import child as module
from oncecast.server.process.child import MOVES, Child, WorkerEvent, WorkerState, environment
from oncecast.server.process.control import Change, Total
from oncecast.server.settings import Settings

SECONDS = 60.0


class Owner:
    """Notes what a child tells."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.news = asyncio.Event()

    def on_asked(self, child: Child, /, *, views: bool, channel: str | None) -> None:
        self.calls.append("asked")
        child.tell(Total(Measures(), Crew(9)))

    def on_drain_asked(self, reason: str, /) -> None:
        self.calls.append(reason)

    def on_leaving(self, child: Child, /) -> None:
        self.calls.append("left")
        self.news.set()


class Rig:
    """A slot, its owner and the child that was started last."""

    def __init__(self) -> None:
        self.owner = Owner()
        self.sockets = bind_slots("127.0.0.1", 0, 1)[0]
        self.port = self.sockets[0].getsockname()[1]
        self.children: list[tuple[Child, asyncio.Task[int]]] = []

    async def start(self, settings: Settings | None = None) -> tuple[Child, asyncio.Task[int]]:
        """Start a worker, and listen to it."""
        child = await Child.start(1, 2, settings or Settings(port=0), self.sockets, self.owner)
        self.children.append((child, asyncio.create_task(child.run())))
        return self.children[-1]

    async def get(self, path: str) -> bytes:
        """Ask the worker, and return the whole answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), SECONDS)
        writer.close()
        return answer


@pytest_asyncio.fixture
async def rig() -> AsyncIterator[Rig]:
    """A slot without a worker; its workers are gone at the end."""
    rig = Rig()
    yield rig
    for child, task in rig.children:
        child.kill()
        await asyncio.wait_for(task, SECONDS)
    for sock in rig.sockets:
        sock.close()


async def decided(child: Child) -> WorkerState:
    """Wait until a child serves or never will."""
    await asyncio.wait_for(child.decided.wait(), SECONDS)
    return child.state


async def test_a_life(rig: Rig) -> None:
    """A worker serves, reports its measures, asks for the sum, takes settings, drains, and ends with its last word."""
    child, task = await rig.start()
    states = [child.state, await decided(child)]
    assert (await rig.get("/healthz")).startswith(b"HTTP/1.1 200 ")
    measured = await child.measure()
    assert measured is not None
    assert 1 == measured.values["connections_opened"]
    assert b"oncecast_workers 9.0" in await rig.get("/metrics")
    assert ["asked"] == rig.owner.calls
    child.tell(Change(Settings(port=0, origins=("https://new.example",))))
    assert measured is not await child.measure()  # so it has read what was sent before
    child.stop()
    child.stop()
    states.append(child.state)
    assert 0 == await asyncio.wait_for(task, SECONDS)
    assert list(WorkerState) == [*states, child.state]
    assert 2 == child.measures.values["connections_opened"]
    child.stop()
    child.kill()
    assert ["asked"] == rig.owner.calls


async def test_it_says_so_when_it_leaves_by_itself(rig: Rig) -> None:
    """Where another process makes it drain, its owner hears of it before it has ended."""
    child, task = await rig.start()
    await decided(child)
    os.kill(child.pid, signal.SIGTERM)
    await asyncio.wait_for(rig.owner.news.wait(), SECONDS)
    assert ["left"] == rig.owner.calls
    assert child.left.is_set()
    assert 0 == await asyncio.wait_for(task, SECONDS)


async def test_why_one_can_not_serve(rig: Rig, tmp_path: Path) -> None:
    """Settings that it can't serve with are its last words, in one line."""
    missing = str(tmp_path / "none.pem")
    child, task = await rig.start(Settings(port=0, tls_cert=(missing,), tls_key=(missing,)))
    assert WorkerState.ENDED is await decided(child)
    assert 1 == await task
    assert child.failure is not None
    assert child.failure.startswith(f"tls_cert: {missing}: No such file")


async def test_one_that_does_not_begin_is_killed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is stuck at its start is not waited for: it has its time, and no more."""
    monkeypatch.setattr(module, "READY_SECONDS", 0.0)
    child, task = await rig.start()
    assert -signal.SIGKILL == await asyncio.wait_for(task, SECONDS)
    assert child.failure == "it did not serve within 0 seconds"
    assert child.decided.is_set()


async def test_one_that_is_stopped_at_its_start_ends(rig: Rig) -> None:
    """Before it serves it has nobody to say goodbye to."""
    child, task = await rig.start()
    child.stop()
    assert await asyncio.wait_for(task, SECONDS) in (0, -signal.SIGTERM)
    assert WorkerState.ENDED is child.state


async def test_one_that_is_stuck_is_not_waited_for(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is stuck is given a moment to report its measures, and no more."""
    monkeypatch.setattr(module, "COLLECT_SECONDS", 0.05)
    child, _ = await rig.start()
    await decided(child)
    os.kill(child.pid, signal.SIGSTOP)
    assert await asyncio.wait_for(child.measure(), SECONDS) is None


async def test_no_room_for_a_process(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system can't start one, that is the caller's to know, and nothing is left open."""

    async def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", fail)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="temporarily"):
        await rig.start()
    await asyncio.sleep(0)
    assert before == len(os.listdir("/proc/self/fd"))


async def test_no_process_for_sockets_that_were_closed(rig: Rig) -> None:
    """The server was stopped as a worker was about to be started: that is no defect, and nothing is left open."""
    for sock in rig.sockets:
        sock.close()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="were closed"):
        await rig.start()
    await asyncio.sleep(0)
    assert before == len(os.listdir("/proc/self/fd"))


async def test_a_defect_at_a_message_replaces_the_worker(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that can't be heard any more is killed, and its end is seen."""
    child, task = await rig.start()
    await decided(child)

    def fail(child: Child, *, views: bool, channel: str | None) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(rig.owner, "on_asked", fail)
    with contextlib.suppress(ConnectionError):
        await rig.get("/metrics")
    assert -signal.SIGKILL == await asyncio.wait_for(task, SECONDS)
    assert (WorkerState.ENDED, True) == (child.state, child.ended.is_set())
    assert "a defect" in caplog.text


def test_the_package_is_found_where_it_was() -> None:
    """Beside the package itself, the worker is given its path; an installed package is found without."""
    root = str(Path(module.__file__).resolve().parents[3])
    assert {"A": "1", "PYTHONPATH": root} == environment({"A": "1"}, [root, "/lib"])
    assert {"PYTHONPATH": f"{root}:/x"} == environment({"PYTHONPATH": "/x"}, [root, "/lib"])
    for path in (["", root], ["/usr/bin", root], []):
        assert {"PYTHONPATH": "/x"} == environment({"PYTHONPATH": "/x"}, path)
    assert sys.executable


def test_only_the_moves_of_the_table_are_made() -> None:
    """The end is the end, and every state is in the table."""
    assert set(WorkerState) == set(MOVES)
    assert {} == MOVES[WorkerState.ENDED]
    assert set(get_args(WorkerEvent)) == {event for row in MOVES.values() for event in row}

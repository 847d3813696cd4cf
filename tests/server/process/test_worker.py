"""The worker's side of the control socket; its life as a process stands in test_child.py and test_supervisor.py."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from msgspec import structs

from oncecast.errors import ConfigurationError
from oncecast.http.overview import OverviewRequest
from oncecast.message import LATEST
from oncecast.server.measures import Crew, Measures
from oncecast.server.overview import look
from oncecast.server.process import worker as module
from oncecast.server.process.control import Asked, Begin, Change, FromWorker, Pipe, Total, ToWorker
from oncecast.server.process.worker import _Worker
from oncecast.server.settings import Settings
from tests.core.conftest import FakeSink, Words

if TYPE_CHECKING:
    from tests.server.conftest import Open

SECONDS = 60.0


class Rig:
    """A worker in this process, and its supervisor's end of the socket."""

    def __init__(self, worker: _Worker, pipe: Pipe[FromWorker], stopping: asyncio.Event) -> None:
        self.worker = worker
        self.pipe = pipe
        self.stopping = stopping


@pytest_asyncio.fixture
async def rig(open_site: Open) -> AsyncIterator[Rig]:
    """A worker that listens to a supervisor."""
    site = await open_site(Settings(port=0))
    one, other = socket.socketpair()
    ours: Pipe[ToWorker] = await Pipe.open(one, ToWorker)
    supervisor: Pipe[FromWorker] = await Pipe.open(other, FromWorker)
    stopping = asyncio.Event()
    worker = _Worker(site.server, ours, stopping, 3)
    listening = asyncio.create_task(worker.listen())
    yield Rig(worker, supervisor, stopping)
    await supervisor.close()
    await asyncio.wait_for(stopping.wait(), SECONDS)  # the supervisor is gone
    await listening
    await ours.close()


async def test_a_request_meanwhile_gets_the_same_answer(rig: Rig) -> None:
    """The supervisor is asked once at a time, however many scrape."""
    answers: list[bytes] = []
    second: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    rig.worker.collect(answers.append)
    rig.worker.collect(second.set_result)
    assert Asked() == await rig.pipe.receive()
    rig.pipe.send(Total(Measures({"publishes": 5}), Crew(3, 1, 0)))
    assert await asyncio.wait_for(second, SECONDS) is answers[0]
    assert b"oncecast_publishes_total 5.0" in answers[0]
    rig.worker.collect(answers.append)
    assert Asked() == await rig.pipe.receive()
    rig.pipe.send(Total(Measures(), Crew()))
    rig.pipe.send(Total(Measures(), Crew()))  # one that nobody asked for


async def test_a_supervisor_that_does_not_answer(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose supervisor does not answer shows its own numbers, and the others as missing."""
    monkeypatch.setattr(module, "TOTAL_SECONDS", 0.01)
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    rig.worker.collect(answer.set_result)
    text = await asyncio.wait_for(answer, SECONDS)
    assert b"oncecast_workers_silent 2.0" in text


async def test_an_older_supervisor_knows_of_no_channel(rig: Rig) -> None:
    """Its answer is that of each who asks for a channel's listeners, which this worker then has of its own."""
    loop = asyncio.get_running_loop()
    plain, heard, silent = [loop.create_future() for _ in range(3)]
    app = rig.worker._server.app
    app.node.subscribe(("a",), LATEST, FakeSink(), Words(), lambda place: None)
    rig.worker.overview(OverviewRequest(channel="a"), heard.set_result)
    rig.worker.overview(OverviewRequest(channel="b"), silent.set_result)
    rig.worker.overview(OverviewRequest(), plain.set_result)
    assert ["a", "b", None] == [(await rig.pipe.receive()).channel for _ in range(3)]  # type: ignore[union-attr]
    viewed = loop.create_future()
    look(app, None, viewed.set_result)
    own = await asyncio.wait_for(viewed, SECONDS)
    other = structs.replace(own, pid=own.pid + 1)
    rig.pipe.send(Total(Measures(), Crew(2), (own, other)))
    assert (await asyncio.wait_for(plain, SECONDS)).listeners is None
    rig.pipe.send(Total(Measures(), Crew(2), (own, other)))
    found = [(await asyncio.wait_for(each, SECONDS)).listeners for each in (heard, silent)]
    assert [("a", 1), ("b", 0)] == [(listeners.channel, listeners.total) for listeners in found]
    assert {} == rig.worker._viewing


async def test_files_that_have_changed_since_the_supervisor_looked(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New settings that can't be taken on after all are logged, and the worker goes on as it was."""

    def fail(settings: Settings) -> None:
        raise ConfigurationError("tls_cert: gone")

    monkeypatch.setattr(rig.worker._server, "reload", fail)
    with caplog.at_level(logging.ERROR, "oncecast.server"):
        rig.pipe.send(Change(Settings()))
        rig.pipe.send(Begin(1, 3, Settings()))  # means nothing any more
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        rig.worker.collect(answer.set_result)
        rig.pipe.send(Total(Measures(), Crew()))
        await asyncio.wait_for(answer, SECONDS)  # so it has read what was sent before
    assert "tls_cert: gone" in caplog.text
    assert not rig.stopping.is_set()


def test_a_worker_without_a_supervisor_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker without a supervisor ends at once and without a complaint, and ignores a terminal's signals."""
    ours, theirs = socket.socketpair()
    theirs.close()
    before = {number: signal.getsignal(number) for number in module.SUPERVISORS}
    try:
        assert 0 == module.main([str(ours.detach())])
        assert {signal.SIG_IGN} == {signal.getsignal(number) for number in module.SUPERVISORS}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

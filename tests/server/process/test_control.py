"""The socket between a supervisor and a worker: whole messages, whatever happens to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from oncecast.server.measures import Buckets, Crew, Measures
from oncecast.server.process import control
from oncecast.server.process.control import (
    Asked,
    Begin,
    Collect,
    Failed,
    FromWorker,
    Measured,
    Pace,
    Pipe,
    Total,
    ToWorker,
)
from oncecast.server.settings import ChannelRule, Limits, RetentionSettings, Settings

Pair = tuple[Pipe[ToWorker], Pipe[FromWorker]]


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[Pair]:
    """A worker's end and a supervisor's."""
    one, other = socket.socketpair()
    worker: Pipe[ToWorker] = await Pipe.open(one, ToWorker)
    supervisor: Pipe[FromWorker] = await Pipe.open(other, FromWorker)
    yield worker, supervisor
    await worker.close()
    await supervisor.close()


async def test_settings_arrive_whole(pair: Pair) -> None:
    """Every kind of value that settings have is the same at the other end."""
    worker, supervisor = pair
    settings = Settings(
        workers="auto",
        origins=("https://a.example", "*"),
        tls_cert=("c.pem",),
        tls_key=("k\n.pem",),
        limits=Limits(head_seconds=0.25, drain_per_second=3),
        retention=RetentionSettings(messages=5),
        channels={"ticker.*": ChannelRule(messages=1, lag="latest"), "b": ChannelRule(seconds=2.5)},
    )
    supervisor.send(Begin(2, 7, settings))
    assert Begin(2, 7, settings) == await worker.receive()


async def test_messages_keep_their_order_both_ways(pair: Pair) -> None:
    """Each end receives the messages of the other in their order, and None after the last one."""
    worker, supervisor = pair
    total = Total(Measures({"connections": 2.0}, {"requests": {"200": 3.0}}, {"age": Buckets()}), Crew(4, 1, 0))
    supervisor.send(Collect())
    supervisor.send(total)
    for message in (Asked(), Measured(Measures({}, {})), Failed("no\nroom")):
        worker.send(message)
    assert [Collect(), total] == [await worker.receive() for _ in range(2)]
    await worker.close()
    received = [await supervisor.receive() for _ in range(4)]
    assert [Asked(), Measured(Measures({}, {})), Failed("no\nroom"), None] == received


async def test_what_is_not_understood_is_skipped(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """A message of a newer version, or one that is none, is logged; those after it count."""
    worker, supervisor = pair
    supervisor._writer.write(b'{"type":"News","x":1}\nnonsense\n' + b'{"type":"Collect","new":1}\n')
    with caplog.at_level(logging.WARNING, "oncecast.server"):
        assert Collect() == await worker.receive()
    assert 2 == caplog.text.count("is not understood")


async def test_half_a_message_is_none(pair: Pair) -> None:
    """A peer that dies in the middle of one has not said it."""
    worker, supervisor = pair
    supervisor._writer.write(b'{"type":"Collect"}')
    await supervisor.close()
    assert await worker.receive() is None


async def test_one_that_never_ends_is_none(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line past the bound ends the conversation: it is not kept."""
    worker, supervisor = pair
    supervisor._writer.write(b"x" * (2 * control.LINE_BYTES + 1))
    assert await asyncio.wait_for(worker.receive(), 30) is None


async def test_a_peer_that_reads_nothing_costs_a_bounded_amount(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound nothing more is sent to it, and nothing to a peer that has gone."""
    worker, supervisor = pair
    monkeypatch.setattr(control, "UNSENT_BYTES", 1000)
    worker._reader._transport.pause_reading()  # type: ignore[attr-defined]
    for _ in range(20_000):
        supervisor.send(Failed("x" * 100))
    assert supervisor._writer.transport.get_write_buffer_size() < 1200
    await worker.close()
    worker.send(Asked())


async def test_numbers_have_bounds(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """A message with a number that can't be meant is skipped like one that is not understood."""
    worker, supervisor = pair
    supervisor._writer.write(
        b'{"type":"Pace","workers":0}\n{"type":"Pace","workers":1e308}\n{"type":"Pace","workers":2}\n'
    )
    assert Pace(2) == await worker.receive()
    assert 2 == caplog.text.count("is not understood")


async def test_closing_does_not_wait_for_a_peer_that_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that the peer has not read by the deadline of a close are dropped."""
    monkeypatch.setattr(control, "CLOSE_SECONDS", 0.01)
    ours, theirs = socket.socketpair()
    with theirs:
        pipe: Pipe[FromWorker] = await Pipe.open(ours, FromWorker)
        for _ in range(20_000):
            pipe.send(Failed("x" * 100))
        await asyncio.wait_for(pipe.close(), 30)
        await asyncio.sleep(0)
        theirs.settimeout(30)
        with contextlib.suppress(ConnectionError):
            while theirs.recv(1 << 20):
                pass

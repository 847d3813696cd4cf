"""The publisher of a comparison: each message goes to every server at its moment, and a dead server ends the run."""

from __future__ import annotations

import time
from random import Random

import pytest

from oncecast.client.async_client import AsyncClient
from oncecast.client.failures import Unreachable
from oncecast.client.url import ServerUrl
from oncecast.compare import publishing
from oncecast.compare.publishing import SchedulePublisher
from oncecast.compare.schedule import steady
from oncecast.compare.stopping import EarlyEnd
from oncecast.compare.tally import PublishTimes, sequence_of
from oncecast.server.server import Server
from tests.compare.conftest import url_of


def _publisher(end: EarlyEnd, **servers: ServerUrl) -> SchedulePublisher:
    times = {name: PublishTimes("abcdef", 20) for name in servers}
    return SchedulePublisher(servers, times, "c", 40, end=end)


async def test_each_message_at_its_moment(server: Server) -> None:
    """No message is published before its moment, and each once; what `check` publishes has no number of the run."""
    url = url_of(server)
    publisher = _publisher(EarlyEnd(), one=url, two=url)
    shown: list[float] = []
    await publisher.check()
    await publisher.warm_up(2)
    moments = steady(20.0)(0.5, Random(1))
    began = time.perf_counter()
    await publisher.follow(moments, 2, 0.5, lambda done, _what: shown.append(done))
    assert 0.5 <= time.perf_counter() - began
    sent = publisher._times["one"].sent[2:12]
    assert all(at - began >= moment for at, moment in zip(sent, moments, strict=True))
    assert (10, 0) == (publisher.published, publisher.unpublished)
    assert shown == sorted(shown)
    async with AsyncClient(str(url)) as client:
        history = await client.history("c", limit=100)
    numbers = [sequence_of("abcdef", message.data) for message in history.messages]
    assert sorted([*range(12), 20] * 2) == sorted(number for number in numbers if number is not None)
    await publisher.close()


async def test_a_server_that_is_away() -> None:
    """The first publish raises why, before anything else is tried."""
    publisher = _publisher(EarlyEnd(), one=ServerUrl("http", "127.0.0.1", 1, ""))
    with pytest.raises(Unreachable, match="connection refused"):
        await publisher.check()
    await publisher.close()


async def test_a_server_that_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that are not published are counted, and the run ends once that has lasted."""
    monkeypatch.setattr(publishing, "LOST_SECONDS", 0.05)
    end = EarlyEnd()
    publisher = _publisher(end, one=ServerUrl("http", "127.0.0.1", 1, ""))
    await publisher.follow([0.0, 0.1, 0.2, 0.3], 0, 60.0, lambda _done, _what: None)
    assert (0, True) == (publisher.published, publisher.unpublished >= 1)
    assert end.reason.startswith("the server has taken no message for 0.05 s: no server answers at ")
    await publisher.close()

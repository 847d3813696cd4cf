"""What brokers on other machines share, with sessions that are made up: no network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from oncecast.brokers import remote
from oncecast.brokers.base import Capabilities, Opening
from oncecast.brokers.session import GuardedSink
from oncecast.testing.broker_bench import BrokerBench, Lab


class StandIn:
    """A session that notes what it is asked for. `opening` is called while it is opened."""

    def __init__(self, sink: GuardedSink, opening: Callable[[], None]) -> None:
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self._sink = sink
        self._opening = opening

    async def open(self, wanted: Sequence[str]) -> None:
        """Begin with a log."""
        self._opening()
        self._sink.begin(Opening("e"))

    async def follow(self) -> None:
        """Hand nothing over."""
        await asyncio.Event().wait()

    tend = follow

    def want(self, channels: Sequence[str]) -> None:
        """Take note."""
        self.asked.append(("want", tuple(channels)))

    def unwant(self, channels: Sequence[str]) -> None:
        """Take note."""
        self.asked.append(("unwant", tuple(channels)))

    async def close(self) -> None:
        """Close nothing."""


def make(sessions: list[StandIn], opening: Callable[[], None] = lambda: None) -> remote.Remote:
    """A broker whose sessions are kept in `sessions`."""

    def session(sink: GuardedSink) -> Any:
        sessions.append(StandIn(sink, opening))
        return sessions[-1]

    capabilities = Capabilities("broker", history=True, only_wanted=True)
    return remote.Remote(session, name="stand-in", capabilities=capabilities, batch_drafts=10)


async def test_what_is_wanted_while_a_session_is_opened_is_asked_of_it() -> None:
    """So are channels that are unwanted meanwhile, also if they are wanted again."""
    sessions: list[StandIn] = []

    def change() -> None:
        broker.unwant(["a", "b"])
        broker.want(["b", "c"])

    broker = make(sessions, change)
    broker.want(["a", "b"])
    await broker.start(BrokerBench(broker, Lab(lambda: broker)))
    (verb, ended), fresh = sessions[0].asked
    assert ("unwant", {"a", "b"}, ("want", ("b", "c"))) == (verb, set(ended), fresh)
    await broker.stop()

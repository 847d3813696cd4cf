"""A hundred thousand numbered messages to one subscriber of each transport, over a connection that is cut 200 times.

All arrive, once, in order. The cuts are at random bytes, in either direction, made by a seeded pipe: with a failure
stands the seed, and `ONCECAST_SEED` runs it again. While the subscriber reads, the messages are published in batches,
so that it catches up, is live and falls behind by turns.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

import pytest

from oncecast.message import Draft, Kind
from oncecast.server.server import Server
from oncecast.server.settings import RetentionSettings, Settings
from oncecast.testing.pipe import Faults, FaultyPipe, Plan
from oncecast.testing.subscriber import Cut, GapSeen, MessageSeen, Subscriber
from oncecast.testing.subscribers import LongPollSubscriber, ShortPollSubscriber, SseSubscriber, V1Subscriber

if sys.platform == "win32":  # there it is not installed, and the server does without it too
    new_event_loop = asyncio.new_event_loop
else:
    from uvloop import new_event_loop

MESSAGES = 100_000
CUTS = 200
AHEAD = 4000  # messages that the publisher may be ahead of the subscriber
SECONDS = 100.0

# Random cuts lie up to so many bytes after the last: less than all that comes down divided by the cuts, times two, so
# that all cuts are made; more than one poll's answer, so that each connection brings it forward.
KINDS: list[tuple[type[Subscriber], str, int]] = [
    (ShortPollSubscriber, "limit=100", 60_000),
    (LongPollSubscriber, "limit=100", 60_000),
    (SseSubscriber, "", 25_000),
    (V1Subscriber, "", 60_000),
]


class Publisher:
    """Publishes the numbers from 0 in batches of random size, and stays at most `AHEAD` in front."""

    def __init__(self, server: Server, rng: random.Random) -> None:
        self.next = 0
        self._server = server
        self._rng = rng
        self._room = asyncio.Event()

    async def run(self) -> None:
        """Publish them all."""
        while self.next < MESSAGES:
            count = min(self._rng.choice((1, 10, 100, 1000)), MESSAGES - self.next)
            drafts = [Draft("numbers", str(n).encode(), Kind.JSON) for n in range(self.next, self.next + count)]
            self.next += count
            self._server.node.publish(drafts, lambda outcomes: None)
            self._room.clear()
            await self._room.wait()

    def has_read(self, count: int) -> None:
        """Say how far the subscriber has come."""
        if self.next - count < AHEAD:
            self._room.set()


async def receive_all(subscriber: Subscriber, publisher: Publisher, pipe: FaultyPipe) -> None:
    """Receive to the end, and hold each message against the one that must be next."""
    count = 0
    while count < MESSAGES:
        try:
            if not subscriber.connected:
                await subscriber.connect()
            for seen in await subscriber.receive():
                if isinstance(seen, MessageSeen):
                    assert count == int(str(seen.data)), pipe
                    count += 1
                assert not isinstance(seen, GapSeen), (pipe, seen)
        except Cut:
            pass
        publisher.has_read(count)


async def hundred_thousand(kind: type[Subscriber], extra: str, reach: int, seed: int) -> FaultyPipe:
    """Run it; return the pipe, for its counts."""

    def plan(number: int, rng: random.Random) -> Plan:
        if number >= CUTS:
            return Plan()
        faults = Faults(cut_after=rng.randrange(reach), reset=rng.random() < 0.5)
        if rng.random() < 0.1:  # the other way: inside the first request, or a later one
            up = Faults(cut_after=rng.randrange(200), reset=faults.reset)
            return Plan(up=up, down=faults)
        return Plan(down=faults)

    server = Server(Settings(port=0, retention=RetentionSettings(messages=MESSAGES)))
    await server.start()
    pipe = FaultyPipe(("127.0.0.1", server.port), plan, seed=seed)
    await pipe.start()
    subscriber = kind(pipe.port, ("numbers",), start="after=earliest", extra=extra)
    publisher = Publisher(server, random.Random(seed))
    publishing = asyncio.create_task(publisher.run())
    try:
        async with asyncio.timeout(SECONDS):
            await receive_all(subscriber, publisher, pipe)
            await publishing
    finally:
        publishing.cancel()
        subscriber.cut()
        await pipe.close()
        await server.stop(1)
    return pipe


@pytest.mark.parametrize("kind, extra, reach", KINDS, ids=[kind.name for kind, _, _ in KINDS])
def test_hundred_thousand_messages_over_two_hundred_cuts(kind: type[Subscriber], extra: str, reach: int) -> None:
    """All, once, in order, although the connection is cut 200 times at random bytes."""
    seed = int(os.environ.get("ONCECAST_SEED") or int.from_bytes(os.urandom(4), "big"))
    print(f"ONCECAST_SEED={seed}")  # noqa: T201 - pytest shows it with a failure
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        pipe = runner.run(hundred_thousand(kind, extra, reach, seed))
    assert CUTS == pipe.cuts, pipe
    assert CUTS + 1 == pipe.connections, pipe

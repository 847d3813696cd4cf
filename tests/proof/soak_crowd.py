"""The subscribers of the soak, in a process of their own: light ones, that keep their cursor and judge what they get.

`python -m tests.proof.soak_crowd JSON`, the JSON being a `Crowd`. Each subscriber has one channel, drops its connection
after a random time, and comes back after its cursor. A line of JSON says when all have begun, then one each second what
came. A line on the input, the last number of each channel, ends the dropping: the last line, a `Verdict`, comes once
each subscriber has all of them, or `ARRIVAL_SECONDS` later.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from uvloop import new_event_loop

from oncecast.testing.subscriber import Cut, GapSeen, MessageSeen, RequestRefused, Seen, Subscriber
from oncecast.testing.subscribers import LongPollSubscriber, ShortPollSubscriber, SseSubscriber, V1Subscriber

from .client_oracle import Wrong
from .soak_judge import Follower, Skip, step_of

__all__ = ["ARRIVAL_SECONDS", "KINDS", "Crowd", "Second", "Verdict", "channel_name", "place_of"]

ARRIVAL_SECONDS = 90.0
AT_ONCE = 100  # subscribers that connect for the first time at the same time
LONGEST = 3.0  # times the mean life of a connection
WRONGS = 5  # that are told; all are counted
KINDS: Sequence[type[Subscriber]] = (ShortPollSubscriber, LongPollSubscriber, SseSubscriber, V1Subscriber)


class Crowd(msgspec.Struct, frozen=True):
    """What a process runs: subscribers `first`, `first + step` … below `end`. Times are in seconds.

    `life` is the mean of a connection's, `rest` the longest time before the next, `poll` the time between short polls.
    """

    port: int
    first: int
    end: int
    step: int
    channels: int
    life: float
    rest: float
    poll: float
    seed: int


class Second(msgspec.Struct):
    """What came in a second. `delays` counts, by step, from the publish to a subscriber that was live by then.

    Short polls have no delay: it would be the time between two of them.
    """

    deliveries: int = 0
    delays: dict[int, int] = {}  # msgspec copies it


class Verdict(msgspec.Struct):
    """What a process has seen in all. `ends` counts, by cause, the connections that it has not dropped itself."""

    subscribers: dict[str, int] = {}
    deliveries: dict[str, int] = {}
    dropped: int = 0
    ends: dict[str, int] = {}
    gaps: int = 0
    first_gap: float = 0.0  # on the clock `time.monotonic`, which all processes share
    last_gap: float = 0.0
    again: int = 0
    skips: list[Skip] = []
    wrong: int = 0
    wrongs: list[str] = []


def channel_name(channel: int) -> str:
    """Return the name of a channel."""
    return f"soak.{channel}"


def place_of(number: int, channels: int) -> tuple[type[Subscriber], int]:
    """Return the kind and the channel of a subscriber: each channel gets every kind."""
    return KINDS[number % len(KINDS)], number // len(KINDS) % channels


@dataclass
class _Listener:
    """One subscriber, for the whole run."""

    kind: type[Subscriber]
    follower: Follower
    subscriber: Subscriber
    rng: random.Random
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    live_at: int | None = None


class _Process:
    """All subscribers of this process, and what they have seen."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._second = Second()
        self._verdict = Verdict()
        self._ends: Counter[str] = Counter()
        self._deliveries: Counter[str] = Counter()
        self._stays = asyncio.Event()
        self._arrived = asyncio.Event()
        self._lasts: list[int] | None = None
        self._listeners: list[_Listener] = []
        for number in range(crowd.first, crowd.end, crowd.step):
            kind, channel = place_of(number, crowd.channels)
            subscriber = kind(crowd.port, (channel_name(channel),), start="after=earliest")
            rng = random.Random(f"{crowd.seed} {number}")
            self._listeners.append(_Listener(kind, Follower(channel), subscriber, rng))

    async def run(self) -> None:
        """Run until the input says how it ends."""
        gate = asyncio.Semaphore(AT_ONCE)
        tasks = [asyncio.create_task(self._listen(each, gate)) for each in self._listeners]
        try:
            for each in self._listeners:
                await asyncio.wait_for(each.begun.wait(), ARRIVAL_SECONDS)
            say({"ready": len(self._listeners)})
            telling = asyncio.create_task(self._tell())
            self._lasts = msgspec.json.decode(await asyncio.to_thread(sys.stdin.readline), type=list[int])
            self._stays.set()
            self._look()
            await asyncio.wait((asyncio.create_task(self._arrived.wait()),), timeout=ARRIVAL_SECONDS)
            telling.cancel()
            say(self._judged())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(1)
            second, self._second = self._second, Second()
            say(second)

    async def _listen(self, listener: _Listener, gate: asyncio.Semaphore) -> None:
        crowd, rng = self._crowd, listener.rng
        async with gate:
            await self._connection(listener, first=True)
        while True:
            life = min(rng.expovariate(1 / crowd.life), LONGEST * crowd.life)
            try:
                async with asyncio.timeout(None if self._stays.is_set() else life):
                    await self._connection(listener)
            except TimeoutError:
                self._verdict.dropped += 1
            listener.subscriber.cut()
            await asyncio.sleep(rng.uniform(0, crowd.rest))

    async def _connection(self, listener: _Listener, *, first: bool = False) -> None:
        """Read one connection to its end, of which it counts the cause; the `first` only to its first cursor."""
        subscriber = listener.subscriber
        try:
            if not subscriber.connected:
                listener.live_at = None
                await subscriber.connect()
            while True:
                for seen in await subscriber.receive():
                    try:
                        self._take(listener, seen)
                    except Wrong as wrong:
                        self._wrong(f"{listener.kind.name}, {wrong}")
                listener.live_at = listener.live_at or time.monotonic_ns()
                listener.begun.set()
                if first:
                    return
                if listener.kind is ShortPollSubscriber:
                    await asyncio.sleep(self._crowd.poll)
        except Cut as cut:
            self._ends[f"close {cut.code}" if cut.code else "the connection ended"] += 1
        except RequestRefused as refused:
            self._ends[f"{refused.status} {refused.code}"] += 1
        except msgspec.DecodeError:  # the proxy's own page
            self._ends["the proxy's error"] += 1
        except AssertionError as broken:  # of the protocol
            self._wrong(f"{listener.kind.name}: {broken}")

    def _take(self, listener: _Listener, seen: Seen) -> None:
        match seen:
            case MessageSeen():
                data = msgspec.json.decode(seen.data) if isinstance(seen.data, str) else seen.data
                channel, number, sent = msgspec.convert(data, tuple[int, int, int])
                listener.follower.message(seen.id or "", channel, number)
                self._second.deliveries += 1
                self._deliveries[listener.kind.name] += 1
                live = listener.live_at is not None and sent > listener.live_at
                if live and listener.kind is not ShortPollSubscriber:
                    step = step_of((time.monotonic_ns() - sent) / 1e9)
                    self._second.delays[step] = self._second.delays.get(step, 0) + 1
                if self._lasts is not None:
                    self._look()
            case GapSeen():
                listener.follower.gap(seen.reason, seen.missed_from, seen.missed_to, seen.cursor)
                self._verdict.last_gap = time.monotonic()
                self._verdict.first_gap = self._verdict.first_gap or self._verdict.last_gap
            case _:
                pass

    def _look(self) -> None:
        lasts = self._lasts
        assert lasts is not None
        if all(each.follower.expected > lasts[each.follower.channel] for each in self._listeners):
            self._arrived.set()

    def _wrong(self, text: str) -> None:
        self._verdict.wrong += 1
        if len(self._verdict.wrongs) < WRONGS:
            self._verdict.wrongs.append(text)

    def _judged(self) -> Verdict:
        verdict, lasts = self._verdict, self._lasts
        assert lasts is not None
        for listener in self._listeners:
            follower = listener.follower
            if follower.expected <= lasts[follower.channel]:
                name = f"{listener.kind.name}, channel {follower.channel}"
                self._wrong(f"{name}: {follower.expected} to {lasts[follower.channel]} never came")
            verdict.gaps += follower.gaps
            verdict.again += follower.again
            verdict.skips += follower.skips
        verdict.subscribers = dict(Counter(each.kind.name for each in self._listeners))
        verdict.deliveries, verdict.ends = dict(self._deliveries), dict(self._ends)
        return verdict


def say(what: object) -> None:
    """Print a line of JSON."""
    sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_Process(msgspec.json.decode(sys.argv[1], type=Crowd)).run())

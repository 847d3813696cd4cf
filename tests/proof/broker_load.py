"""The load of a schedule of faults: publishers that retry until they are acknowledged, and listeners on the move.

Each connection of a client goes to a node that is drawn, so nothing sticks to one. What was acknowledged, and what each
application saw, is kept for `broker_oracle`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import time
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import cycle
from operator import attrgetter

from oncecast import AsyncClient, ClientMessage, Gap, LinkState, StateChanged
from oncecast.client.transports import TRANSPORTS
from oncecast.message import Cursor
from oncecast.testing.pipe import NO_PLAN, FaultyPipe, Plan
from scripts.broker_servers.system import HOST

from .broker_cluster import BrokerNode
from .broker_oracle import Acknowledged, judge, judge_log
from .client_oracle import Wrong
from .http_ask import ask_http

__all__ = ["Listener", "Load"]

CHANNELS = ("a", "b", "c")
LISTENERS = 6
PUBLISHERS = 2
PUBLISH_SECONDS = 0.03
AFTER_SECONDS = 30.0  # until everything has arrived
STREAMS = ("sse", "websocket")
WINDOW_SECONDS = 0.5  # after which what a listener's channel gets is in its node's memory
BEHIND_SECONDS = 0.2  # a listener that lacks what was acknowledged so long ago may have to read the history
LAST = "the last"


class Listener:
    """A subscription from the beginning, and what its application saw. Each connection goes to another node."""

    def __init__(self, pipe: FaultyPipe, transport: str, channels: Sequence[str]) -> None:
        self.transport = transport
        self.channels = channels
        self.pipe = pipe
        self.lost = 0
        self.fresh = 0  # messages since the last connection, and since the last fault
        self.seen: list[ClientMessage | Gap] = []
        self.ids: set[str] = set()
        self.since = math.inf  # when it began to listen on this connection, or the last fault was over
        self._client = AsyncClient(f"http://{HOST}:{pipe.port}", transports=[transport])
        self._client.on("state", self._changed)
        self._changes: deque[str] = deque(maxlen=4)  # the last, with the time of each
        self._more = asyncio.Event()

    async def listen(self, after: str) -> None:
        """Listen from after a cursor on, until this is cancelled."""
        async for item in self._client.subscribe(*self.channels, after=after).events():
            self.seen.append(item)
            if isinstance(item, ClientMessage):
                self.ids.add(item.id)
                self.fresh += 1
            self._more.set()

    async def until(self, data: str) -> None:
        """Wait until this message of each channel was seen."""
        while sum(isinstance(item, ClientMessage) and item.data == data for item in self.seen) < len(self.channels):
            self._more.clear()
            await self._more.wait()

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()

    def _changed(self, change: StateChanged) -> None:
        self.lost += change.before is LinkState.LISTENING
        self.fresh = 0
        self.since = time.monotonic() if change.after is LinkState.LISTENING else math.inf
        self._changes.append(f"{time.monotonic():.3f} {change.after.value} {change.reason}")

    def __repr__(self) -> str:
        went = f"{self.pipe.connections} connections, {list(self._changes)}"
        return f"{self.transport} {self.channels}, {went}, {len(self.seen)} seen, the last are {self.seen[-3:]}"


class Load:
    """All clients of a schedule. `tasks` run until they are cancelled; one that ends with an error is a failure."""

    def __init__(self, nodes: Sequence[BrokerNode], start: Cursor, rng: random.Random) -> None:
        self.listeners: list[Listener] = []
        self.acknowledged: list[Acknowledged] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._nodes = nodes
        self._start = start
        self._rng = rng
        self._logs: dict[str, list[tuple[Cursor, str]]] = {}  # of each channel, what is in the log in the end
        self._news = 0
        self._publishing: list[asyncio.Task[None]] = []
        self._times: list[float] = []  # of the acknowledgements
        self._tried: dict[str, str] = {}  # by data, its channel
        self._stopping = asyncio.Event()

    async def begin(self, stack: contextlib.AsyncExitStack) -> None:
        """Connect everybody. The stack closes them."""
        for transport, _ in zip(cycle(TRANSPORTS), range(LISTENERS), strict=False):
            pipe = await self._moving_pipe(stack)
            listener = Listener(pipe, transport, self._rng.sample(CHANNELS, self._rng.randint(1, len(CHANNELS))))
            stack.push_async_callback(listener.close)
            self.listeners.append(listener)
            self.tasks.append(asyncio.create_task(listener.listen(str(self._start))))
        for number in range(PUBLISHERS):
            pipe = await self._moving_pipe(stack)
            client = AsyncClient(f"http://{HOST}:{pipe.port}", patience=None, sleep=_sleep_less)
            stack.push_async_callback(client.close)
            self._publishing.append(asyncio.create_task(self._publish(client, number)))
        self.tasks += self._publishing

    def shake(self) -> None:
        """Cut some listeners, which then come back to other nodes."""
        for listener in self.listeners:
            listener.fresh = 0
            listener.since = max(listener.since, time.monotonic())
            if self._rng.random() < 0.5:
                listener.pipe.cut(reset=self._rng.random() < 0.5)

    def live(self) -> dict[Listener, int]:
        """Return the streams that have all that was acknowledged, some of it since they were cut or moved.

        With each, how often it was lost so far. One that is behind is not among them: where the history can't be read
        for it, it is sent to another node.
        """
        newest: dict[str, str] = {}
        for each, at in zip(self.acknowledged, self._times, strict=True):
            if at < time.monotonic() - BEHIND_SECONDS:
                newest[each.channel] = str(each.cursor)
        return {
            each: each.lost
            for each in self.listeners
            if each.transport in STREAMS
            and each.fresh
            and each.ids.issuperset(newest.get(name, "none") for name in each.channels)
        }

    async def reach(self, listeners: Iterable[Listener]) -> None:
        """Publish to each channel, and wait until these listeners have it."""
        self._news += 1
        data = f"news {self._news}"
        node = self._rng.choice(self._nodes)
        async with AsyncClient(f"http://{HOST}:{node.server.port}", patience=None, sleep=_sleep_less) as client:
            for channel in CHANNELS:
                await self._acknowledge(client, channel, data)
        await asyncio.gather(*(listener.until(data) for listener in listeners))

    async def check_memory(self, listeners: Iterable[Listener], nodes: Sequence[BrokerNode]) -> int:
        """Poll these nodes for what their live listeners have had, and return how much that was. Raises `Wrong`.

        Asked for is what was acknowledged while the listener was connected, and after the last hole in the log, so its
        node has it in memory.
        """
        served = 0
        ports = [node.server.port for node in nodes]
        for listener in listeners:
            port = listener.pipe.target[1]
            for channel in listener.channels if port in ports else ():
                had = [
                    each.cursor
                    for each, at in zip(self.acknowledged, self._times, strict=True)
                    if each.channel == channel
                    and at > listener.since + WINDOW_SECONDS
                    and str(each.cursor) in listener.ids
                ]
                if had:
                    had.sort(key=attrgetter("seq"))
                    answer = await ask_http(port, "GET", f"/v1/channels/{channel}?after={had[0]}")
                    found = [each["id"] for each in json.loads(answer.body).get("messages", [])]
                    if answer.status != 200 or not set(found).issuperset(map(str, had[1:])):
                        raise Wrong(f"{channel} after {had[0]}, up to {had[-1]}, is not served from memory: {answer}")
                    served += len(had) - 1
        return served

    async def finish(self) -> None:
        """Publish the last message of each channel, after all others, and wait until it was seen. Raises `Wrong`.

        Then the log is read.
        """
        self._stopping.set()
        await asyncio.wait_for(asyncio.gather(*self._publishing), AFTER_SECONDS)
        async with AsyncClient(f"http://{HOST}:{self._nodes[0].server.port}") as client:
            for channel in CHANNELS:
                await self._acknowledge(client, channel, LAST)
        for listener in self.listeners:
            try:
                await asyncio.wait_for(listener.until(LAST), AFTER_SECONDS)
            except TimeoutError:
                raise Wrong(f"the last never came: {listener}") from None
        async with AsyncClient(f"http://{HOST}:{self._nodes[-1].server.port}") as client:
            for channel in CHANNELS:
                log, after = self._logs.setdefault(channel, []), None
                while (page := await client.history(channel, after=after)).messages:
                    log += ((Cursor.parse(each.id), str(each.data)) for each in page.messages)
                    after = page.cursor

    def judge(self, *, gaps: bool, loss: bool) -> None:
        """Hold the log and what each listener saw against what was acknowledged. Raises `Wrong`.

        `gaps` says whether there may be any, and `loss` whether what was acknowledged may be lost.
        """
        for channel, log in self._logs.items():
            judge_log(channel, log, self.acknowledged, self._tried, loss=loss)
        for listener in self.listeners:
            for channel in listener.channels:
                seen = [item for item in listener.seen if item.channel == channel]
                try:
                    kept = [cursor for cursor, _ in self._logs[channel]]
                    judge(channel, self._start, seen, self.acknowledged, self._tried, kept, gaps=gaps, loss=loss)
                except Wrong as error:
                    raise Wrong(f"{listener.transport}: {error}") from None

    def counts(self) -> tuple[int, int, int]:
        """Return how many messages were acknowledged, deliveries were seen, and gaps."""
        seen = [item for listener in self.listeners for item in listener.seen]
        gaps = sum(isinstance(item, Gap) for item in seen)
        return len(self.acknowledged), len(seen) - gaps, gaps

    # -- helpers

    async def _moving_pipe(self, stack: contextlib.AsyncExitStack) -> FaultyPipe:
        """Return a pipe that takes each connection to a node that is drawn."""
        pipe = FaultyPipe((HOST, 0), seed=self._rng.getrandbits(32))

        def draw(number: int, rng: random.Random) -> Plan:
            pipe.target = (HOST, rng.choice(self._nodes).server.port)
            return NO_PLAN

        pipe.plan = draw
        await stack.enter_async_context(pipe)
        return pipe

    async def _publish(self, client: AsyncClient, number: int) -> None:
        rng = random.Random(self._rng.random())
        count = 0
        while not self._stopping.is_set():
            count += 1
            channel = rng.choice(CHANNELS)
            await self._acknowledge(client, channel, f"{channel} {number} {count}")
            await asyncio.sleep(PUBLISH_SECONDS * rng.uniform(0.3, 1.7))

    async def _acknowledge(self, client: AsyncClient, channel: str, data: str) -> None:
        self._tried[data] = channel
        ack = await client.publish(channel, data)
        self.acknowledged.append(Acknowledged(channel, Cursor.parse(ack.id), data))
        self._times.append(time.monotonic())


async def _sleep_less(seconds: float) -> None:
    """Sleep shorter than a publisher that is refused is asked to, so that there is a load at every moment."""
    await asyncio.sleep(min(seconds, 0.2))

"""One session with Redis: three connections, opened together and lost together.

* `follow` has the subscriptions: the wanted channels, and this node's own channel, in which the scripts tell it its
  place. All come on one connection, in the order of the log.
* `write` has the publishes, the probes and the trimming.
* `pages` has the reads, so that a long page holds up no publish.

Opening subscribes first and looks up what has changed after that, so nothing falls between. A message names the number
before it in its channel: if that is not the one seen last, something is missing, and the session is opened again.

What is shared with other brokers: `Handover`, what the node was handed, and `Wanting`, the channels that it follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ...message import Draft, Page, Retention, RetentionPolicy, Start
from ..address import Address
from ..base import Outcome
from ..handover import Handover
from ..operable import ChannelState, LogState
from ..session import GuardedSink, run_together
from ..wanting import Wanting
from . import operate, scripts
from .line import RedisLine, connect
from .opening import check_on, check_server, load_scripts, open_log
from .pages import read_missed, read_page, read_pushed
from .primary import connect_primary
from .subscriber import RedisSubscriber
from .trims import RedisTrims
from .writes import RedisWrites


class RedisSession:
    """See the module. `node` names this node, `policy` gives a channel's retention by its name."""

    def __init__(
        self,
        address: Address,
        sink: GuardedSink,
        place: Handover,
        *,
        node: str,
        new_epoch: Callable[[], str],
        policy: RetentionPolicy,
        key_seconds: float,
    ) -> None:
        self._address = address
        self._sink = sink
        self._place = place
        self._prefix = f"{address.options.get('prefix', '')}{scripts.PREFIX}"
        self._own = f"{self._prefix}:n:{node}"
        self._new_epoch = new_epoch
        self._policy = policy
        self._key_seconds = key_seconds
        self._life = b""
        self._subscriber: RedisSubscriber | None = None
        self._lines: list[RedisLine] = []
        self._running: list[asyncio.Task[None]] = []
        self._wanting = Wanting(self, sink, place)

    # -- opening

    async def open(self, wanted: Sequence[str]) -> None:
        """Connect, subscribe, and hand over what was missed."""
        connection, server = await connect_primary(self._address)
        self._subscriber = RedisSubscriber(connection, self._prefix, self._own)
        for _ in range(2):  # to that same server, also while another one is promoted
            self._lines.append(RedisLine(await connect(server, *server.hosts[0], server.context()), self._prefix))
        self._write, self._pages = write, pages = self._lines
        self._running = [asyncio.create_task(line.run(), name="oncecast-redis") for line in self._lines]
        await check_server(write, self._address)
        await load_scripts(write)
        self._writes = RedisWrites(write, self._wanting, self._own, policy=self._policy, key_seconds=self._key_seconds)
        self._trims = RedisTrims(write, self._own, self._policy)
        await self._subscriber.open(wanted)
        self._wanting.channels.update(wanted)
        place = self._place
        log = await open_log(write, self._new_epoch, place.epoch, place.seen)
        self._life = log.life
        if place.epoch != log.epoch:
            place.begin(self._sink, log.epoch, log.head, log.holes, wanted)
        else:
            missed = await read_missed(pages, place.seen, log.head, wanted, self._sink.foreign)
            place.catch_up(self._sink, missed, log.head, log.holes, wanted)

    # -- following

    async def follow(self) -> None:
        """Hand over what is pushed, in order."""
        assert self._subscriber is not None
        heard = self._subscriber.hear(self._reached, self._receive, self._wanting.stands)
        await run_together(heard, self._wanting.change(), watched=self._running)

    def _receive(self, channel: str, payload: bytes) -> None:
        try:
            before, message = read_pushed(channel, payload)
        except ValueError as error:
            self._sink.foreign(f"what was pushed for the channel {channel}: {error}")
            return
        place, seq = self._place, message.seq
        if seq > place.seen and place.follows(self._sink, channel, before, seq):  # else handed over by catching up
            place.seen = seq
            self._sink.receive((message,))

    def _reached(self, payload: bytes) -> None:
        """Take what a script has published for this node: a place in the log, and the token of the request."""
        number, _, token = payload.partition(b" ")
        self._wanting.reached(token, int(number))

    # -- wanting, and what `Wanting` asks for

    def want(self, channels: Sequence[str]) -> None:
        """Subscribe to channels."""
        self._wanting.want(channels)

    def unwant(self, channels: Sequence[str]) -> None:
        """Unsubscribe from channels."""
        self._wanting.unwant(channels)

    async def subscribe(self, channels: Sequence[str]) -> None:
        """Do as `ChannelFeed.subscribe`."""
        assert self._subscriber is not None
        await self._subscriber.subscribe(channels)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """Do as `ChannelFeed.unsubscribe`."""
        assert self._subscriber is not None
        await self._subscriber.unsubscribe(channels)

    async def send_probe(self, token: bytes) -> None:
        """Do as `ChannelFeed.send_probe`."""
        await self._write.script(scripts.PROBE, self._life, self._own, token)

    # -- publishing and reading

    def append(self, drafts: Sequence[Draft]) -> asyncio.Future[Sequence[Outcome]]:
        """Publish a batch."""
        return self._writes.append(drafts, self._life, self._place.epoch)

    async def page(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int) -> Page:
        """Read a page."""
        return await read_page(self._pages, self._life, channels, start, limit, max_bytes, self._sink.foreign)

    # -- tending

    async def tend(self) -> None:
        """Probe each second, trim by age, and check the settings; a slow sweep delays no probe."""
        checks = check_on(self._pages, self._address)
        await run_together(self._wanting.probe_on(), self._trims.sweep_on(), checks)

    # -- `operable.Operable`

    async def inspect(self) -> LogState:
        """Return the state of the log."""
        return await operate.state(self._pages)

    async def channels(self) -> list[ChannelState]:
        """Return every channel that holds a message."""
        return await operate.channels(self._pages)

    async def trim(self, channel: str, retention: Retention) -> ChannelState:
        """Trim a channel now."""
        await RedisTrims(self._pages, self._own, self._policy).trim(channel, retention)
        return await operate.channel(self._pages, channel)

    # -- the end

    async def close(self) -> None:
        """Close the three connections."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        for line in self._lines:
            await line.close()
        if self._subscriber is not None:
            await self._subscriber.close()

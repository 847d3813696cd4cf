"""One session with NATS: one connection, on which all messages come in order.

The node follows the republished messages of the wanted channels and the probes (`follower.py`). Opening subscribes
first, and then reads what has changed, so no message is missed between the two.

`Handover`, what the node was handed, and `Wanting`, the channels that it follows, are shared with other brokers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from ...errors import ConfigurationError
from ...message import Cursor, Draft, Page, Retention, RetentionPolicy, Start
from ..address import Address
from ..base import Outcome
from ..handover import Handover, Missed
from ..operable import ChannelState, LogState
from ..probes import PROBE_SECONDS
from ..session import GuardedSink, Lost, run_together
from ..wanting import Wanting
from . import operate
from .client import Answer, NatsHeaders, OrderedClient, connect
from .follower import NatsFollower
from .missed import read_missed
from .pages import StreamPages
from .stream import PROBE, Stream, refusal_of
from .trims import Trimmer
from .writes import NatsWrites

SWEEP_SECONDS = 10.0
OLDEST = (2, 9)


class NatsSession:
    """See the module. `wall` gives Unix seconds, `policy` a channel's retention by its name."""

    def __init__(
        self,
        address: Address,
        sink: GuardedSink,
        place: Handover,
        *,
        node: str,
        new_epoch: Callable[[], str],
        policy: RetentionPolicy,
        wall: Callable[[], float],
        key_seconds: float,
        replicas: int | None,
    ) -> None:
        self._address = address
        self._sink = sink
        self._place = place
        self._node = node
        self._new_epoch = new_epoch
        self._policy = policy
        self._wall = wall
        self._key_seconds = key_seconds
        self._replicas = replicas
        self._client: OrderedClient | None = None
        self._wanting = Wanting(self, sink, place, f"{node} ".encode())

    # -- opening

    async def open(self, wanted: Sequence[str]) -> None:
        """Connect, subscribe, and hand over what was missed."""
        client = self._client = await connect(self._address, self._came)
        follower = self._follower = NatsFollower(client, self._sink, self._place, self._wanting)
        info = client._server_info
        stamped = self._stamped = self._check_server(info)
        clustered = bool(info.get("cluster"))
        stream = self._stream = Stream(
            client, self._address, key_seconds=self._key_seconds, replicas=self._replicas, clustered=clustered
        )
        state = await stream.prepare(self._new_epoch)
        server = f"cluster {state['created']}" if clustered else info["server_id"]
        await client.listen([stream.republished(PROBE), *(stream.republished(name) for name in wanted)])
        self._wanting.channels.update(wanted)
        if clustered:
            await stream.sound(self._wanting.new_token())
        place = self._place
        seen = Cursor(place.epoch, place.seen) if place.epoch else None
        lives = self._lives = await stream.open_life(server, self._new_epoch, self._wall(), seen)
        reader = self._reader = StreamPages(stream, lives, stamped=stamped, foreign=self._sink.foreign)
        self._trimmer = Trimmer(stream, reader, lives, self._node, self._policy, self._wall)
        most = stream.most_bytes(state, int(info["max_payload"]))
        self._writes = NatsWrites(client, stream, lives, self._wanting.channels, wall=self._wall, max_payload=most)
        # A stream that takes nothing is away, with the reason, and not back in between.
        self._check_taken(await client.ask(*self._probe(self._wanting.new_token())))
        last = await stream.last()
        await self._catch_up(wanted, last)
        follower.begin(lives, last, stamped=stamped, reached=self._writes.reached)

    def _check_server(self, info: dict[str, Any]) -> bool:
        """Return whether the server republishes no times: 2.9. Raises `ConfigurationError` for one of no use."""
        if not info.get("jetstream"):
            raise ConfigurationError(f"broker: {self._address}: JetStream is off: start nats-server with -js")
        version = tuple(int(part) for part in info["version"].split("-")[0].split(".")[:2])
        if version < OLDEST:
            raise ConfigurationError(f"broker: {self._address}: NATS {info['version']} is too old: 2.9 is needed")
        return version < (2, 10)

    async def _catch_up(self, wanted: Sequence[str], last: int) -> None:
        """Hand over what has come to the wanted channels since the last session, up to an offset."""
        place, lives = self._place, self._lives
        head = lives.seq_of(last)
        if place.epoch != lives.epoch:
            place.begin(self._sink, lives.epoch, head, lives.holes(), wanted)
            return
        missed = Missed()
        if place.seen < head and wanted:
            after = lives.offset_of(place.seen)
            missed = await read_missed(
                self._stream, lives, after, last, set(wanted), stamped=self._stamped, foreign=self._sink.foreign
            )
        place.catch_up(self._sink, missed, head, lives.holes(), wanted)

    # -- following

    async def follow(self) -> None:
        """Hand over what comes, until the connection is lost."""
        assert self._client is not None
        await run_together(self._wanting.change(), watched=(self._client.lost,))

    def _came(self, subject: str, data: bytes, headers: NatsHeaders) -> None:
        self._follower.came(subject, data, headers)

    # -- wanting, and what `Wanting` asks for

    def want(self, channels: Sequence[str]) -> None:
        """Subscribe to channels."""
        self._wanting.want(channels)

    def unwant(self, channels: Sequence[str]) -> None:
        """Unsubscribe from channels."""
        self._wanting.unwant(channels)

    async def subscribe(self, channels: Sequence[str]) -> None:
        """Do as `ChannelFeed.subscribe`: the server takes what follows on this connection after it."""
        assert self._client is not None
        await self._client.listen([self._stream.republished(channel) for channel in channels])
        for channel in channels:
            self._wanting.stands(channel)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """Do as `ChannelFeed.unsubscribe`."""
        assert self._client is not None
        await self._client.unlisten([self._stream.republished(channel) for channel in channels])

    async def send_probe(self, token: bytes) -> None:
        """Do as `ChannelFeed.send_probe`. The stream keeps the newest only. It says which life is known here."""
        client = self._client
        assert client is not None

        def answered(answer: Answer) -> None:
            client.forget(answer.subject)
            try:
                self._check_taken(answer)
            except Lost as lost:
                client.end(lost)

        await client.send(*self._probe(token), answered)

    def _probe(self, token: bytes) -> tuple[str, bytes, dict[str, str]]:
        """Return the subject, the data and the headers of a probe."""
        return self._stream.subject(PROBE), b"%s %d" % (token, self._lives.newest.base), {"Nats-Rollup": "sub"}

    def _check_taken(self, answer: Answer) -> None:
        refused = refusal_of(answer)
        if refused is not None:
            raise Lost(f"the stream {self._stream.name} takes nothing: {refused}")

    # -- publishing and reading

    def append(self, drafts: Sequence[Draft]) -> asyncio.Future[Sequence[Outcome]]:
        """Publish a batch."""
        return self._writes.append(drafts)

    async def page(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int) -> Page:
        """Read a page."""
        return await self._reader.page(channels, start, limit, max_bytes)

    # -- tending

    async def tend(self) -> None:
        """Probe each second, and trim; a slow sweep delays no probe."""
        await run_together(self._wanting.probe_on(), self._sweep_on())

    async def _sweep_on(self) -> None:
        await asyncio.sleep(PROBE_SECONDS)
        while True:
            await self._trimmer.sweep()
            await asyncio.sleep(SWEEP_SECONDS)

    # -- `operable.Operable`

    async def inspect(self) -> LogState:
        """Return the state of the log."""
        assert self._client is not None
        return await operate.state(self._stream, self._lives, str(self._client._server_info["version"]))

    async def channels(self) -> list[ChannelState]:
        """Return every channel that holds a message."""
        return await operate.channels(self._stream, self._lives)

    async def trim(self, channel: str, retention: Retention) -> ChannelState:
        """Trim a channel now."""
        await self._trimmer.trim_exactly(channel, retention)
        return await operate.channel(self._stream, self._lives, channel)

    # -- the end

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.shut()

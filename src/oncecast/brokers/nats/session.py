"""One session with NATS: one connection, on which everything comes in order.

The node follows the republished messages of the wanted channels and the probes. A message names the one before it in
its subject (`Nats-Last-Sequence`); if that is not the one seen last, something is missing, and the session is opened
again. Opening subscribes first and reads what has changed after that, so nothing falls between.

Invariants
* `NatsPlace.seen` is the number up to which the sink has everything that it wants; it never goes back.
* A wanted channel is confirmed by a probe that was published after its subscription stood.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...errors import ConfigurationError, Refusal
from ...message import Cursor, Draft, Mark, Message, Page, Receipt, Retention, RetentionPolicy, Start
from ..address import Address
from ..base import Opening, Outcome
from ..operable import ChannelState, LogState
from ..session import GuardedSink, Lost
from . import operate
from .client import Answer, NatsHeaders, OrderedClient
from .pages import StreamPages
from .stream import PROBE, Stream, channel_of, decode_message, encode_draft, key_of, time_of
from .trims import Trimmer

logger = logging.getLogger("oncecast.brokers.nats")

PROBE_SECONDS = 1.0
SILENT_SECONDS = 3.0
CAUGHT_UP = 5_000  # messages handed over after a pause; what is more is left to the history
CAUGHT_UP_BYTES = 32 << 20
HOLD_SECONDS = 0.02  # for a message before it that a server of 2.9 may republish later
SWEEP_SECONDS = 10.0


class NatsPlace:
    """What a node knows of the log, from one session to the next."""

    def __init__(self) -> None:
        self.epoch = ""
        self.seen = 0
        self.holes: set[tuple[int, int]] = set()
        self.last: dict[str, int] = {}  # by wanted channel: the offset seen last, or where it was confirmed

    def forget(self, channels: Sequence[str]) -> None:
        """Know nothing more of channels: they are confirmed again if they are wanted again."""
        for channel in channels:
            self.last.pop(channel, None)


_Held = tuple[int, int, float, str, bytes, NatsHeaders]  # offset, the one before it, until when, the message


class NatsSession:
    """See the module. `wall` gives Unix seconds, `policy` a channel's retention by its name."""

    def __init__(
        self,
        address: Address,
        sink: GuardedSink,
        place: NatsPlace,
        *,
        node: str,
        new_epoch: Callable[[], str],
        policy: RetentionPolicy,
        wall: Callable[[], float],
        key_seconds: float,
        replicas: int,
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
        self._early: list[tuple[str, bytes, NatsHeaders]] | None = []  # what comes while the session is opened
        self._subscribed: set[str] = set()
        self._changes: deque[tuple[bool, Sequence[str]]] = deque()
        self._changed = asyncio.Event()
        self._token = 0
        self._probes: dict[bytes, asyncio.Future[int]] = {}
        self._confirming: dict[bytes, list[str]] = {}  # by token: what is confirmed where the probe comes back
        self._standing: dict[str, int] = {}  # subscriptions asked for that are not made yet
        self._behind: list[tuple[int, int, asyncio.Future[None]]] = []  # publishes that wait for the follower
        self._offset = 0  # up to which everything that is wanted has come
        self._opened = 0  # up to which the sink had everything when the session was opened
        self._held: list[_Held] = []  # a heap
        self._max_payload = 0

    # -- opening

    async def open(self, wanted: Sequence[str]) -> None:
        """Connect, subscribe, and hand over what was missed."""
        client = self._client = OrderedClient(self._came)
        await client.open(self._address)
        info = client._server_info
        self._max_payload = int(info["max_payload"])
        if not info.get("jetstream"):
            raise ConfigurationError(f"broker: {self._address}: JetStream is off: start nats-server with -js")
        version = tuple(int(part) for part in info["version"].split("-")[0].split(".")[:2])
        if version < (2, 9):
            raise ConfigurationError(f"broker: {self._address}: NATS {info['version']} is too old: 2.9 is needed")
        self._stamped = version < (2, 10)
        stream = self._stream = Stream(client, self._address, key_seconds=self._key_seconds, replicas=self._replicas)
        state = await stream.prepare(self._new_epoch)
        cluster = state.get("cluster")
        server = f"cluster {state['created']}" if self._replicas > 1 and cluster else info["server_id"]
        await client.listen([stream.republished(PROBE), *(stream.republished(name) for name in wanted)])
        self._subscribed = set(wanted)
        seen = Cursor(self._place.epoch, self._place.seen) if self._place.epoch else None
        lives = self._lives = await stream.open_life(server, self._new_epoch, self._wall(), seen)
        self._reader = StreamPages(stream, lives, stamped=self._stamped)
        self._trimmer = Trimmer(stream, self._reader, lives, self._node, self._policy, self._wall)
        info = await client.ask_json(f"$JS.API.STREAM.INFO.{stream.name}")
        last = int(info["state"]["last_seq"])
        place, head = self._place, lives.seq_of(last)
        holes = set(lives.holes())
        if place.epoch != lives.epoch:
            place.epoch = lives.epoch
            place.seen = head
            place.last = dict.fromkeys(wanted, last)
            self._sink.begin(Opening(place.epoch, head, Mark(head, float("inf")), holes=tuple(sorted(holes))))
            if wanted:
                self._sink.wanted(wanted, head)
        else:
            await self._catch_up(wanted, last, sorted(holes - place.holes))
        place.holes = holes
        self._offset = self._opened = last
        early, self._early = self._early or [], None
        for each in early:
            self._came(*each)

    async def _catch_up(self, wanted: Sequence[str], last: int, holes: Sequence[tuple[int, int]]) -> None:
        """Hand over what has come to the wanted channels since the last session, in order."""
        place, head = self._place, self._lives.seq_of(last)
        messages: list[Message] = []
        too_much = False
        if place.seen < head and wanted:
            after = self._lives.offset_of(place.seen)
            missed = await self._reader.missed(after, frozenset(wanted), CAUGHT_UP, CAUGHT_UP_BYTES)
            too_much = missed is None
            messages = [message for message in missed or () if place.seen < message.seq <= head]
        for before, after_hole in holes:
            if after_hole <= place.seen:
                continue
            earlier = [message for message in messages if message.seq <= before]
            if earlier and not too_much:
                self._sink.receive(earlier)
            messages = [message for message in messages if message.seq > after_hole]
            self._sink.hole(before, after_hole)
            place.seen = after_hole
        if too_much:
            self._sink.skip(head)
        elif messages:
            self._sink.receive(messages)
        self._sink.advance(head)
        place.seen = max(place.seen, head)
        fresh = [channel for channel in wanted if channel not in place.last]
        place.last = dict.fromkeys(wanted, last)
        if fresh:
            self._sink.wanted(fresh, place.seen)

    # -- following

    async def follow(self) -> None:
        """Hand over what comes, until the connection is lost."""
        assert self._client is not None
        changes = asyncio.create_task(self._change(), name="oncecast-nats-subscribe")
        try:
            ended, _ = await asyncio.wait((changes, self._client.lost), return_when=asyncio.FIRST_COMPLETED)
            for each in ended:
                each.result()
        finally:
            changes.cancel()
            await asyncio.gather(changes, return_exceptions=True)

    def _came(self, subject: str, data: bytes, headers: NatsHeaders) -> None:
        """Take a republished message, in the order of the log."""
        if self._early is not None:
            self._early.append((subject, data, headers))
            return
        try:
            offset, before = int(headers[b"Nats-Sequence"]), int(headers.get(b"Nats-Last-Sequence", b"0"))
        except (KeyError, ValueError):
            logger.error("a message on %s is skipped: it was not published through the stream", subject)
            return
        if self._stamped and (self._held or offset > self._offset + 1):
            loop = asyncio.get_running_loop()
            heapq.heappush(self._held, (offset, before, loop.time() + HOLD_SECONDS, subject, data, headers))
            loop.call_later(HOLD_SECONDS, self._release)
            self._release()
        else:
            self._take(subject, data, headers, offset, before)

    def _release(self) -> None:
        """Take the messages that nothing can come before any more: the next ones, and those held for long enough.

        NATS 2.9 stores in one order and may republish in another, if several clients publish at the same moment.
        """
        assert self._client is not None
        now = asyncio.get_running_loop().time()
        try:
            while self._held and not self._client.lost.done():
                offset, before, until, subject, data, headers = self._held[0]
                if offset > self._offset + 1 and until > now:
                    break
                heapq.heappop(self._held)
                self._take(subject, data, headers, offset, before)
        except Exception as error:  # noqa: BLE001 - `follow` raises it
            self._client.end(error)

    def _take(self, subject: str, data: bytes, headers: NatsHeaders, offset: int, before: int) -> None:
        token = subject.rpartition(".")[2]
        if offset <= self._offset:
            last = self._place.last.get(channel_of(token))
            if last is not None and max(last, self._opened) < offset:
                self._sink.hole(self._lives.seq_of(last), self._place.seen)
                raise Lost(f"a message of {channel_of(token)} came after later ones")
            return  # handed over by catching up
        seq = self._lives.seq_of(offset)
        if token == PROBE:
            self._offset = offset
            self._sink.probed()
            if seq > self._place.seen:
                self._place.seen = seq
                self._sink.advance(seq)
            self._confirm(self._confirming.pop(data, ()), offset, seq)
            waiting = self._probes.pop(data, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(offset)
        else:
            self._receive(channel_of(token), data, headers, offset, before, seq)
        while self._behind and self._behind[0][0] <= self._offset:
            _, _, waiting_for = heapq.heappop(self._behind)
            if not waiting_for.done():
                waiting_for.set_result(None)

    def _receive(self, channel: str, data: bytes, headers: NatsHeaders, offset: int, before: int, seq: int) -> None:
        place = self._place
        last = place.last.get(channel)
        self._offset, here = offset, self._offset
        if last is None:
            return  # not confirmed yet, or no longer wanted
        if before > last:
            if last < here:  # what came since on other channels is delivered, and can't be taken back
                self._sink.hole(self._lives.seq_of(last), place.seen)
            raise Lost(f"a message of {channel} before {offset} did not arrive")
        place.last[channel] = offset
        try:
            message = decode_message(channel, data, seq, None if self._stamped else time_of(headers))
        except ValueError as error:
            logger.error("the record %d of the stream %s is skipped: %s", offset, self._stream.name, error)
            return
        place.seen = seq
        self._sink.receive((message,))

    # -- wanting

    def want(self, channels: Sequence[str]) -> None:
        """Subscribe to channels."""
        fresh = [channel for channel in channels if channel not in self._subscribed]
        self._subscribed.update(fresh)
        for channel in fresh:
            self._standing[channel] = self._standing.get(channel, 0) + 1
        self._changes.append((True, fresh))
        self._changed.set()

    def unwant(self, channels: Sequence[str]) -> None:
        """Unsubscribe from channels."""
        self._subscribed.difference_update(channels)
        self._place.forget(channels)
        self._changes.append((False, channels))
        self._changed.set()

    async def _change(self) -> None:
        assert self._client is not None
        while True:
            await self._changed.wait()
            self._changed.clear()
            fresh: list[str] = []
            while self._changes:
                wanted, channels = self._changes.popleft()
                subjects = [self._stream.republished(channel) for channel in channels]
                if wanted:
                    await self._client.listen(subjects)
                    fresh += channels
                    for channel in channels:
                        left = self._standing.pop(channel, 1) - 1
                        if left:
                            self._standing[channel] = left
                else:
                    await self._client.unlisten(subjects)
            if fresh:
                await self._probe(fresh)

    def _confirm(self, channels: Iterable[str], offset: int, seq: int) -> None:
        """Tell the sink from where on channels are delivered: a probe that was sent after them has come back."""
        confirmed = [
            channel
            for channel in dict.fromkeys(channels)
            if channel in self._subscribed and channel not in self._standing and channel not in self._place.last
        ]
        if confirmed:
            self._place.last.update(dict.fromkeys(confirmed, offset))
            self._sink.wanted(confirmed, seq)

    # -- publishing

    def append(self, drafts: Sequence[Draft]) -> asyncio.Future[Sequence[Outcome]]:
        """Publish a batch, message by message, and gather the acknowledgements."""
        return asyncio.ensure_future(self._append(drafts))

    async def _append(self, drafts: Sequence[Draft]) -> Sequence[Outcome]:
        assert self._client is not None
        outcomes: list[Outcome | None] = [None] * len(drafts)
        left = len(drafts)
        all_in: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        highest = 0
        replies: list[str] = []

        def acknowledged(at: int, answer: Answer) -> None:
            nonlocal left, highest
            if outcomes[at] is None:
                outcome = self._outcome(answer)
                outcomes[at] = outcome
                if isinstance(outcome, Receipt) and drafts[at].channel in self._subscribed:
                    highest = max(highest, self._lives.offset_of(outcome.seq))
                left -= 1
                if left == 0 and not all_in.done():
                    all_in.set_result(None)

        stamp = int(self._wall() * 1000)
        try:
            for at, draft in enumerate(drafts):
                data = encode_draft(draft, stamp)
                if len(data) + 256 > self._max_payload:
                    text = f"The broker takes messages of at most {self._max_payload} bytes: raise its max_payload."
                    outcomes[at] = Refusal("body_too_large", text)
                    left -= 1
                    continue
                headers = None if draft.key is None else {"Nats-Msg-Id": key_of(draft)}
                subject = self._stream.subject(draft.channel)

                def answered(answer: Answer, at: int = at) -> None:
                    acknowledged(at, answer)

                replies.append(await self._client.send(subject, data, headers, answered))
            if left:
                await all_in
            if highest > self._offset:
                waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                heapq.heappush(self._behind, (highest, id(waiting), waiting))
                await waiting
        finally:
            for reply in replies:
                self._client.forget(reply)
        return [outcome for outcome in outcomes if outcome is not None]

    def _outcome(self, answer: Answer) -> Outcome:
        if answer.status == "503":
            return Refusal(
                "unavailable", "The broker's stream does not answer: publish again in a moment.", retry_after=5
            )
        read: dict[str, Any] = json.loads(answer.data)
        if "error" in read:
            return Refusal(
                "unavailable", f"The broker refuses it: {read['error'].get('description', '')[:120]}", retry_after=5
            )
        return Receipt(self._place.epoch, self._lives.seq_of(int(read["seq"])), "broker")

    # -- reading

    async def page(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int) -> Page:
        """Read a page."""
        return await self._reader.page(channels, start, limit, max_bytes)

    # -- probing and trimming

    async def tend(self) -> None:
        """Probe each second, and trim; a slow sweep delays no probe."""
        tasks = (
            asyncio.create_task(self._probe_on(), name="oncecast-nats-probe"),
            asyncio.create_task(self._sweep_on(), name="oncecast-nats-sweep"),
        )
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _probe_on(self) -> None:
        while True:
            await self._probe()
            await asyncio.sleep(PROBE_SECONDS)

    async def _sweep_on(self) -> None:
        await asyncio.sleep(PROBE_SECONDS)
        while True:
            await self._trimmer.sweep()
            await asyncio.sleep(SWEEP_SECONDS)

    async def _probe(self, channels: Sequence[str] = ()) -> None:
        """Publish a probe, and confirm channels at the place in the log at which it comes back. Raises `Lost`."""
        assert self._client is not None
        self._token += 1
        token = f"{self._node} {self._token}".encode()
        heard: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._probes[token] = heard
        if channels:
            self._confirming[token] = list(channels)
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                reply = await self._client.send(
                    self._stream.subject(PROBE), token, {"Nats-Rollup": "sub"}, lambda answer: None
                )
                try:
                    await heard
                finally:
                    self._client.forget(reply)
        except TimeoutError:
            raise Lost(f"it has not answered for {SILENT_SECONDS:g} s") from None
        finally:
            self._probes.pop(token, None)
            self._confirming.pop(token, None)

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

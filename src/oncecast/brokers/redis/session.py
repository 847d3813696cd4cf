"""One session with Redis: three connections, opened together and lost together.

* `follow` has the subscriptions: the wanted channels, and this node's own channel, in which the scripts tell it its
  place. All come on one connection, in the order of the log.
* `write` has the publishes, the probes and the trimming.
* `pages` has the reads, so that a long page holds up no publish.

Opening subscribes first and looks up what has changed after that, so nothing falls between. A message names the number
before it in its channel: if that is not the one seen last, something is missing, and the session is opened again.

Invariants
* `Place.seen` is the number up to which the sink has everything that it wants; it never goes back.
* A wanted channel is confirmed by a probe that was sent after its subscription stood.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import msgspec
import redis.exceptions

from ...errors import ConfigurationError, Refusal
from ...message import Draft, Mark, Message, Page, Receipt, Retention, RetentionPolicy, Start
from ..address import Address
from ..base import Opening, Outcome
from ..operable import ChannelState, LogState
from ..session import GuardedSink, Lost, SinkFailed
from . import operate, scripts
from .line import RedisLine, close, connect, lost, one_line
from .pages import message_of, read_page, read_pushed, report_foreign
from .primary import connect_primary

PROBE_SECONDS = 1.0
SILENT_SECONDS = 3.0  # without an answer to a probe the connection is taken to be dead
SUBSCRIBE_AT_ONCE = 1_000  # channels in one command
CAUGHT_UP = 5_000  # messages handed over after a pause; what is more is left to the history
CAUGHT_UP_BYTES = 32 << 20
RANGE = 32  # entries read at once
SWEEP_SECONDS = 10.0
SWEEP_CHANNELS = 200
LEASE = "lease"
SCRIPT_DRAFTS = 200  # published by one script: it holds the server for some 2 ms

logger = logging.getLogger("oncecast.brokers.redis")


class RedisPlace:
    """What a node knows of the log, from one session to the next."""

    def __init__(self) -> None:
        self.epoch = ""
        self.seen = 0
        self.holes: set[tuple[int, int]] = set()
        self.last: dict[str, int] = {}  # by wanted channel: the number seen last, or where it was confirmed

    def forget(self, channels: Sequence[str]) -> None:
        """Know nothing more of channels: they are confirmed again if they are wanted again."""
        for channel in channels:
            self.last.pop(channel, None)


class _Part(msgspec.Struct, frozen=True):
    """One script of a batch: how many drafts, its answer, and the token whose return says that the sink has them."""

    drafts: int
    asked: asyncio.Future[Any]
    token: bytes
    reached: asyncio.Future[int] | None


class RedisSession:
    """See the module. `policy` gives a channel's retention by its name."""

    def __init__(
        self,
        address: Address,
        sink: GuardedSink,
        place: RedisPlace,
        *,
        node: str,
        new_epoch: Callable[[], str],
        policy: RetentionPolicy,
        key_seconds: float,
        durability: str,
    ) -> None:
        self._address = address
        self._sink = sink
        self._place = place
        self._prefix = f"{address.options.get('prefix', '')}{scripts.PREFIX}"
        self._own = f"{self._prefix}:n:{node}"
        self._new_epoch = new_epoch
        self._policy = policy
        self._key_seconds = max(1, int(key_seconds))
        self._durability = durability
        self._life = b""
        self._lines: list[RedisLine] = []
        self._running: list[asyncio.Task[None]] = []
        self._subscriber: Any = None
        self._tokens: dict[bytes, asyncio.Future[int]] = {}
        self._token = 0
        self._confirming: dict[bytes, list[str]] = {}  # by token: what is confirmed where the token comes back
        self._standing: dict[str, int] = {}  # subscriptions asked for that do not stand yet
        self._subscribed: set[str] = set()
        self._to_confirm: list[str] = []
        self._changes: deque[tuple[str, Sequence[str]]] = deque()
        self._changed = asyncio.Event()
        self._ready: deque[Any] = deque()  # what was pushed while the session was opened
        self._swept = b"0"

    # -- opening

    async def open(self, wanted: Sequence[str]) -> None:
        """Connect, subscribe, and hand over what was missed."""
        self._subscriber, server = await connect_primary(self._address)
        for _ in range(2):  # to that same server, also while another one is promoted
            self._lines.append(RedisLine(await connect(server, *server.hosts[0], server.context())))
        self._write, self._pages = self._lines
        self._running = [asyncio.create_task(line.run(), name="oncecast-redis") for line in self._lines]
        await self._check_server()
        for script in scripts.ALL:  # at once: a publish that had to send its script would be overtaken by the next
            await _answer(self._write.ask("SCRIPT", "LOAD", script.text))
        await self._subscribe((self._own, *(self._name(channel) for channel in wanted)))
        self._subscribed = set(wanted)
        place = self._place
        self._life, epoch, seq, *holes = await self._open_log(place)
        head = int(seq)
        known = {_hole(hole) for hole in holes}
        if place.epoch != epoch.decode():
            place.epoch = epoch.decode()
            place.seen = head
            place.last = dict.fromkeys(wanted, head)
            self._sink.begin(Opening(place.epoch, head, Mark(head, math.inf), holes=tuple(sorted(known))))
            if wanted:
                self._sink.wanted(wanted, head)
        else:
            await self._catch_up(wanted, head, sorted(known - place.holes))
        place.holes = known

    async def _open_log(self, place: RedisPlace) -> Any:
        """Return what the script says of the log; ask for a new epoch's name only where there is none."""
        try:
            return await self._run(self._write, scripts.OPEN, "", place.epoch, place.seen)
        except NoLog:
            return await self._run(self._write, scripts.OPEN, self._new_epoch(), place.epoch, place.seen)

    async def _check_server(self) -> None:
        """Refuse a server that would lose messages by its settings, or is too old."""
        info = await _answer(self._write.ask("INFO", "server"))
        version = _field(info, b"redis_version")
        if tuple(int(part) for part in version.split(b".")[:2]) < (6, 2):
            raise ConfigurationError(f"broker: {self._address}: Redis {version.decode()} is too old: 6.2 is needed")
        memory = await _answer(self._write.ask("INFO", "memory"))
        policy = _field(memory, b"maxmemory_policy").decode()
        if policy != "noeviction" and _field(memory, b"maxmemory") not in (b"", b"0"):
            text = f"it evicts keys ({policy}), which would lose messages: set maxmemory-policy noeviction"
            raise ConfigurationError(f"broker: {self._address}: {text}")

    async def _catch_up(self, wanted: Sequence[str], head: int, holes: Sequence[tuple[int, int]]) -> None:
        """Hand over what has come to the wanted channels since the last session, in order."""
        place = self._place
        messages: list[Message] = []
        size = 0
        too_much = False
        if place.seen < head:
            after = f"({place.seen}"
            changed = await _answer(self._pages.ask("ZRANGEBYSCORE", f"{self._prefix}:c", after, head))
            for channel in {name.decode(errors="replace") for name in changed} & set(wanted):
                found = await self._range(channel, place.seen, head)
                messages += found or ()
                size += sum(len(message.data) for message in found or ())
                if found is None or len(messages) > CAUGHT_UP or size > CAUGHT_UP_BYTES:
                    too_much = True
                    break
        messages.sort(key=attrgetter("seq"))
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
        place.last = {channel: max(place.last.get(channel, head), head) for channel in wanted}
        if fresh:
            self._sink.wanted(fresh, place.seen)

    async def _range(self, channel: str, after: int, head: int) -> list[Message] | None:
        """Read a channel's messages above a number. None where they are too many, or some of them are trimmed."""
        found: list[Message] = []
        size, at = 0, after
        while len(found) <= CAUGHT_UP and size <= CAUGHT_UP_BYTES:
            entries = await _answer(
                self._pages.ask("XRANGE", f"{self._prefix}:s:{channel}", at + 1, head, "COUNT", RANGE)
            )
            made = [message for message in (message_of(channel, entry) for entry in entries) if message is not None]
            found += made
            size += sum(len(message.data) for message in made)
            if len(entries) < RANGE:
                mark = await _answer(self._pages.ask("HGET", f"{self._prefix}:m", channel))  # after the entries
                return None if mark is not None and int(mark.partition(b" ")[0]) > after else found
            at = int(entries[-1][0].partition(b"-")[0])
        return None

    # -- following

    async def follow(self) -> None:
        """Hand over what is pushed, in order."""
        writer = asyncio.create_task(self._change(), name="oncecast-redis-subscribe")
        reader = asyncio.create_task(self._hear(), name="oncecast-redis-follow")
        await _until_one_ends((writer, reader, *self._running))

    async def _hear(self) -> None:
        while self._ready:
            self._take(self._ready.popleft())
        read = self._subscriber.read_response
        while True:
            try:
                pushed = await read(disable_decoding=True)
            except (redis.exceptions.RedisError, OSError) as error:
                raise lost(error) from None
            self._take(pushed)

    def _take(self, pushed: Any) -> None:
        if pushed[0] != b"message":
            if pushed[0] == b"subscribe":
                self._stands(pushed[1])
            return
        name = pushed[1].decode()
        if name == self._own:
            self._reached(pushed[2])
            return
        channel = name.removeprefix(f"{self._prefix}:p:")
        try:
            before, message = read_pushed(channel, pushed[2])
        except ValueError as error:
            report_foreign(channel, error)
            return
        place = self._place
        if message.seq <= place.seen:
            return  # handed over by catching up
        last = place.last.get(channel)
        if last is None:
            return  # no longer wanted
        if before > last:
            if last < place.seen:  # what came since on other channels is delivered, and can't be taken back
                self._sink.hole(last, place.seen)
            raise Lost(f"a message of {channel} before {message.seq} did not arrive")
        place.last[channel] = place.seen = message.seq
        self._sink.receive((message,))

    def _reached(self, payload: bytes) -> None:
        """Take what a script has published for this node: a place in the log, and the token of the request."""
        number, _, token = payload.partition(b" ")
        seq = int(number)
        self._sink.probed()
        if seq > self._place.seen:
            self._place.seen = seq
            self._sink.advance(seq)
        confirmed = [
            channel
            for channel in self._confirming.pop(token, ())
            if channel in self._subscribed and channel not in self._standing and channel not in self._place.last
        ]
        if confirmed:
            self._place.last.update(dict.fromkeys(confirmed, seq))
            self._sink.wanted(confirmed, seq)
        waiting = self._tokens.pop(token, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(seq)

    def _stands(self, name: bytes) -> None:
        channel = name.decode().removeprefix(f"{self._prefix}:p:")
        left = self._standing.pop(channel, 1) - 1
        if left:
            self._standing[channel] = left
        elif channel in self._subscribed and channel not in self._place.last:
            self._to_confirm.append(channel)
            self._changed.set()

    # -- wanting

    def want(self, channels: Sequence[str]) -> None:
        """Subscribe to channels."""
        fresh = [channel for channel in channels if channel not in self._subscribed]
        self._subscribed.update(fresh)
        for channel in fresh:
            self._standing[channel] = self._standing.get(channel, 0) + 1
        self._changes.append(("SUBSCRIBE", fresh))
        self._changed.set()

    def unwant(self, channels: Sequence[str]) -> None:
        """Unsubscribe from channels."""
        self._subscribed.difference_update(channels)
        self._place.forget(channels)
        self._changes.append(("UNSUBSCRIBE", channels))
        self._changed.set()

    async def _change(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._changes:
                verb, channels = self._changes.popleft()
                for at in range(0, len(channels), SUBSCRIBE_AT_ONCE):
                    await self._send(verb, *(self._name(name) for name in channels[at : at + SUBSCRIBE_AT_ONCE]))
            if self._to_confirm:
                standing, self._to_confirm = self._to_confirm, []
                await self._probe(standing)

    async def _subscribe(self, names: Sequence[str]) -> None:
        """Subscribe while the session is opened, and wait until all stand."""
        for at in range(0, len(names), SUBSCRIBE_AT_ONCE):
            await self._send("SUBSCRIBE", *names[at : at + SUBSCRIBE_AT_ONCE])
        left = len(names)
        while left:
            pushed = await self._subscriber.read_response(disable_decoding=True)
            if pushed[0] == b"subscribe":
                left -= 1
            else:
                self._ready.append(pushed)

    async def _send(self, *command: str) -> None:
        try:
            await self._subscriber.send_packed_command(self._subscriber.pack_command(*command), check_health=False)
        except (redis.exceptions.RedisError, OSError) as error:
            raise lost(error) from None

    # -- publishing

    def append(self, drafts: Sequence[Draft]) -> asyncio.Future[Sequence[Outcome]]:
        """Publish a batch, all of its scripts at once: they are sent before this returns, so in order."""
        parts = [self._send_part(drafts[at : at + SCRIPT_DRAFTS]) for at in range(0, len(drafts), SCRIPT_DRAFTS)]
        return asyncio.ensure_future(self._acknowledged(parts))

    def _send_part(self, drafts: Sequence[Draft]) -> _Part:
        delivered = any(draft.channel in self._subscribed for draft in drafts)
        token, reached = self._new_token() if delivered else (b"", None)
        arguments: list[bytes | str | int] = [self._own if delivered else "", token, self._key_seconds]
        for draft in drafts:
            keep = max(1, self._policy(draft.channel).messages)
            arguments += [draft.channel, draft.kind.value, draft.event or "", draft.key or "", keep, draft.data]
        return _Part(len(drafts), self._call(self._write, scripts.PUBLISH, self._life, *arguments), token, reached)

    async def _acknowledged(self, parts: Sequence[_Part]) -> Sequence[Outcome]:
        outcomes: list[Outcome] = []
        epoch = self._place.epoch
        try:
            for part in parts:
                try:
                    answer = await _answer(part.asked)
                except Refusal as refusal:
                    outcomes += [refusal] * part.drafts
                    continue
                if part.reached is not None:
                    await part.reached
                outcomes += [Receipt(epoch, int(number), self._durability) for number in answer]
        finally:
            for part in parts:
                self._tokens.pop(part.token, None)
        return outcomes

    # -- reading

    async def page(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int) -> Page:
        """Read a page."""

        async def run(script: scripts.Script, *arguments: bytes | str | int) -> Any:
            return await self._run(self._pages, script, *arguments)

        return await read_page(run, channels, start, limit, max_bytes)

    # -- probing and trimming

    async def tend(self) -> None:
        """Probe each second, and trim by age; a slow sweep delays no probe."""
        probes = asyncio.create_task(self._probe_on(), name="oncecast-redis-probe")
        sweeps = asyncio.create_task(self._sweep_on(), name="oncecast-redis-sweep")
        await _until_one_ends((probes, sweeps))

    async def _probe_on(self) -> None:
        while True:
            await self._probe()
            await asyncio.sleep(PROBE_SECONDS)

    async def _sweep_on(self) -> None:
        while True:
            await self._sweep()
            await asyncio.sleep(SWEEP_SECONDS)

    async def _probe(self, channels: Sequence[str] = ()) -> None:
        """Probe, and confirm channels at the place in the log at which the probe comes back. Raises `Lost`."""
        token, reached = self._new_token()
        if channels:
            self._confirming[token] = list(channels)
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                await self._run(self._write, scripts.PROBE, self._life, self._own, token)
                await reached
        except TimeoutError:
            raise Lost(f"it has not answered for {SILENT_SECONDS:g} s") from None
        finally:
            self._tokens.pop(token, None)
            self._confirming.pop(token, None)

    async def _sweep(self) -> None:
        """Trim the next channels, if no other node does."""
        mine = await _answer(
            self._write.ask("SET", f"{self._prefix}:{LEASE}", self._own, "NX", "PX", int(SWEEP_SECONDS * 900))
        )
        if mine is None:
            return
        cursor, found = await _answer(
            self._write.ask("ZSCAN", f"{self._prefix}:c", self._swept, "COUNT", SWEEP_CHANNELS)
        )
        self._swept = cursor
        seconds, micros = await _answer(self._write.ask("TIME"))
        now = int(seconds) + int(micros) / 1e6
        for name in found[0::2]:
            retention = self._policy(name.decode(errors="replace"))
            oldest = f"{max(0.0, now - retention.seconds) * 1000:.0f}"
            more = True
            while more:  # each round gives other commands a turn
                more = bool(await self._run(self._write, scripts.TRIM, name, max(1, retention.messages), oldest))

    # -- `operable.Operable`

    async def inspect(self) -> LogState:
        """Return the state of the log."""
        return await operate.state(self._ask, self._prefix)

    async def channels(self) -> list[ChannelState]:
        """Return every channel that holds a message."""
        return await operate.channels(self._ask, self._prefix)

    async def trim(self, channel: str, retention: Retention) -> ChannelState:
        """Trim a channel now."""
        seconds, micros = await self._ask("TIME")
        oldest = f"{max(0.0, int(seconds) + int(micros) / 1e6 - retention.seconds) * 1000:.0f}"
        while await self._run(self._pages, scripts.TRIM, channel, retention.messages, oldest):
            pass  # each round gives other commands a turn
        return await operate.channel(self._ask, self._prefix, channel)

    async def _ask(self, *command: bytes | str | int) -> Any:
        return await _answer(self._pages.ask(*command))

    # -- the end

    async def close(self) -> None:
        """Close the three connections."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        for line in self._lines:
            await line.close()
        if self._subscriber is not None:
            await close(self._subscriber)

    # -- helpers

    def _name(self, channel: str) -> str:
        return f"{self._prefix}:p:{channel}"

    def _new_token(self) -> tuple[bytes, asyncio.Future[int]]:
        self._token += 1
        token = b"%d" % self._token
        reached: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._tokens[token] = reached
        return token, reached

    async def _run(self, line: RedisLine, script: scripts.Script, *arguments: bytes | str | int) -> Any:
        """Run a script, and return its answer."""
        return await _answer(self._call(line, script, *arguments))

    def _call(self, line: RedisLine, script: scripts.Script, *arguments: bytes | str | int) -> asyncio.Future[Any]:
        return line.ask("EVALSHA", script.sha, 1, f"{self._prefix}:h", self._prefix, *arguments)


async def _answer(asked: asyncio.Future[Any]) -> Any:
    try:
        return await asked
    except redis.exceptions.ResponseError as error:
        raise _meaning(error) from None


def _meaning(error: redis.exceptions.ResponseError) -> Exception:
    """Return what a refused command means: a session that is of no use, or publishes that can't be taken now."""
    text = one_line(error)
    if text.startswith(("OOM", "MISCONF", "NOREPLICAS")):
        return Refusal("unavailable", f"The broker takes no messages now: {text[:120]}", retry_after=5)
    if text.startswith("NOLOG"):
        return NoLog(text)
    return Lost(text)


class NoLog(Exception):
    """The server has no log of this prefix."""


def _hole(text: bytes) -> tuple[int, int]:
    before, _, after = text.partition(b" ")
    return int(before), int(after)


def _field(info: bytes, name: bytes) -> bytes:
    for line in info.splitlines():
        if line.startswith(name + b":"):
            return line.partition(b":")[2].strip()
    return b""


async def _until_one_ends(tasks: Sequence[asyncio.Task[None]]) -> None:
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        errors = [task.exception() for task in ended if not task.cancelled()]
        for error in sorted(errors, key=lambda error: not isinstance(error, SinkFailed)):
            if error is not None:
                raise error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

"""Following: what the stream republishes, checked and handed over in the order of the log.

A message names the one before it in its subject (`Nats-Last-Sequence`); if that is not the one seen last, something is
missing, and the session is lost.

NATS 2.9 stores in one order and may republish in another, if several clients publish at the same moment: a message
that comes early is held for `HOLD_SECONDS`.

Invariants
* `offset` is the stream's offset up to which everything that is wanted has come; it never goes back.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

import msgspec

from ..handover import Handover
from ..lives import Lives
from ..session import GuardedSink, Lost
from ..wanting import Wanting
from .asking import time_of
from .client import NatsHeaders, OrderedClient
from .stream import PROBE, channel_of, decode_message

HOLD_SECONDS = 0.02  # for a message before it that a server of 2.9 may republish later


class Republished(msgspec.Struct, frozen=True, order=True):
    """A message of the stream, in the order of the log. `before` is the offset before it in its subject."""

    offset: int
    before: int
    until: float
    token: str
    data: bytes
    headers: NatsHeaders


class NatsFollower:
    """See the module. `came` is the handler of a client; what comes before `begin` is kept until then.

    `reached` is called with each offset up to which the sink has everything.
    """

    def __init__(self, client: OrderedClient, sink: GuardedSink, place: Handover, wanting: Wanting) -> None:
        self.offset = 0
        self._client = client
        self._sink = sink
        self._place = place
        self._wanting = wanting
        self._early: list[tuple[str, bytes, NatsHeaders]] | None = []
        self._held: list[Republished] = []  # a heap
        self._opened = 0

    def begin(self, lives: Lives, offset: int, *, stamped: bool, reached: Callable[[int], None]) -> None:
        """Go on behind an offset, up to which the sink has everything. `stamped` is for a server of 2.9."""
        self._lives = lives
        self._stamped = stamped
        self._reached = reached
        self.offset = offset
        self._opened = lives.seq_of(offset)
        reached(offset)
        early, self._early = self._early or [], None
        for each in early:
            self.came(*each)

    def came(self, subject: str, data: bytes, headers: NatsHeaders) -> None:
        """Take a republished message."""
        if self._early is not None:
            self._early.append((subject, data, headers))
            return
        try:
            offset, before = int(headers[b"Nats-Sequence"]), int(headers.get(b"Nats-Last-Sequence", b"0"))
        except (KeyError, ValueError):
            self._sink.foreign(f"a message on {subject}, which was not published through the stream")
            return
        token = subject.rpartition(".")[2]
        if self._stamped and (self._held or offset > self.offset + 1):
            loop = asyncio.get_running_loop()
            heapq.heappush(self._held, Republished(offset, before, loop.time() + HOLD_SECONDS, token, data, headers))
            loop.call_later(HOLD_SECONDS, self._release)
            self._release()
        else:
            self._take(token, data, headers, offset, before)

    def _release(self) -> None:
        """Take the messages that nothing can come before any more: the next ones, and those held for long enough."""
        now = asyncio.get_running_loop().time()
        try:
            while self._held and not self._client.lost.done():
                first = self._held[0]
                if first.offset > self.offset + 1 and first.until > now:
                    break
                heapq.heappop(self._held)
                self._take(first.token, first.data, first.headers, first.offset, first.before)
        except Exception as error:  # noqa: BLE001 - `lost` raises it
            self._client.end(error)

    def _take(self, token: str, data: bytes, headers: NatsHeaders, offset: int, before: int) -> None:
        seq = self._lives.seq_of(offset)
        if offset <= self.offset:
            last = self._place.last.get(channel_of(token))
            if last is not None and max(last, self._opened) < seq:
                self._sink.hole(last, self._place.seen)
                raise Lost(f"a message of {channel_of(token)} came after later ones")
            return  # handed over by catching up
        self.offset = offset
        if token == PROBE:
            self._probed(data, seq)
        else:
            self._receive(channel_of(token), data, headers, self._lives.seq_of(before), seq)
        self._reached(offset)

    def _probed(self, data: bytes, seq: int) -> None:
        """Take a probe. Its third word is the base of the life in which its node numbers: a later life has a larger."""
        words = data.split(b" ")
        if len(words) > 2 and words[2].isdigit() and int(words[2]) > self._lives.newest.base:
            raise Lost("the log has another life: another node has missed what was acknowledged")
        self._wanting.reached(b" ".join(words[:2]), seq)

    def _receive(self, channel: str, data: bytes, headers: NatsHeaders, before: int, seq: int) -> None:
        place = self._place
        if not place.follows(self._sink, channel, before, seq):
            return
        try:
            message = decode_message(channel, data, seq, None if self._stamped else time_of(headers))
        except ValueError as error:
            self._sink.foreign(f"the record {self.offset} of the channel {channel}: {error}")
            return
        place.seen = seq
        self._sink.receive((message,))

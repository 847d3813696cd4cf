"""Trimming: one node at a time looks at the channels, writes a mark, then purges the messages that it covers.

The mark is written first. A node that dies between leaves messages below a mark, which no page serves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from ...message import Retention, RetentionPolicy
from ..lives import Lives
from .pages import StreamPages
from .stream import PROBE, Stream, channel_of, refusal_of, token_of

LEASE_SECONDS = 30.0
CHANNELS = 500  # looked at in one sweep
SLACK = 64  # and an eighth of what is kept may be there beyond it

logger = logging.getLogger("oncecast.brokers.nats")


class Trimmer:
    """The trimming of one node. `wall` gives Unix seconds, `policy` a channel's retention by its name."""

    def __init__(
        self,
        stream: Stream,
        reader: StreamPages,
        lives: Lives,
        node: str,
        policy: RetentionPolicy,
        wall: Callable[[], float],
    ) -> None:
        self._stream = stream
        self._reader = reader
        self._lives = lives
        self._node = node
        self._policy = policy
        self._wall = wall
        self._next = 0

    async def sweep(self) -> None:
        """Trim the next channels, if no other node does."""
        if not await self._lease():
            return
        stream = self._stream
        question = {"subjects_filter": f"{stream.name}.m.>", "offset": 0}
        info = await stream.info(question)
        subjects = info["state"].get("subjects") or {}
        last = int(info["state"]["last_seq"])
        names = sorted(subjects)
        some = names[self._next : self._next + CHANNELS]
        self._next = self._next + CHANNELS if self._next + CHANNELS < len(names) else 0
        for subject in some:
            token = subject.rpartition(".")[2]
            if token != PROBE:
                await self._trim(channel_of(token), int(subjects[subject]), last)

    async def _trim(self, channel: str, count: int, last: int) -> None:
        retention = self._policy(channel)
        cut = 0
        if count > retention.messages + retention.messages // 8 + SLACK:
            cut = await self._reader.cut(channel, retention.messages, last)
        await self._cut(channel, cut, retention.seconds, last)

    async def trim_exactly(self, channel: str, retention: Retention) -> None:
        """Trim a channel to what is to be kept, without slack, whichever node holds the lease."""
        last = await self._stream.last()
        await self._cut(channel, await self._reader.cut(channel, retention.messages, last), retention.seconds, last)

    async def _cut(self, channel: str, cut: int, seconds: float, last: int) -> None:
        """Purge a channel up to the offset `cut`, and what is older than `seconds`.

        A mark is refused where another was written since this one was read, and never goes back.
        """
        stream = self._stream
        found = await stream.by_one_leader(partial(self._to_trim, channel, cut, seconds, last))
        if found is None:
            return
        offset, time, written = found
        headers = {"Nats-Rollup": "sub", "Nats-Expected-Last-Subject-Sequence": str(written)}
        mark = f"{offset} {time}".encode()
        answer = await stream.client.ask(f"{stream.name}.t.{token_of(channel)}", mark, headers)
        refused = refusal_of(answer)
        if refused is not None:  # messages that are purged without a mark are missing without a gap
            logger.warning("the channel %s is not trimmed now: %s", channel, refused)
            return
        question = {"filter": stream.subject(channel), "seq": offset + 1}
        await stream.client.ask_json(f"$JS.API.STREAM.PURGE.{stream.name}", question)

    async def _to_trim(self, channel: str, cut: int, seconds: float, last: int) -> tuple[int, float, int] | None:
        """Return the offset and the time of the last message to be trimmed, and the offset of the mark before."""
        kept = await self._reader.first_kept(channel, self._wall() - seconds)
        cut = max(cut, last if kept is None else kept - 1)
        newest = await self._newest_below(channel, cut) if cut else None
        if newest is None:
            return None
        record = await self._stream.get({"last_by_subj": f"{self._stream.name}.t.{token_of(channel)}"})
        if record is None:
            return (*newest, 0)
        return None if int(record.data.partition(b" ")[0]) > newest[0] else (*newest, record.offset)

    async def _newest_below(self, channel: str, cut: int) -> tuple[int, float] | None:
        """Return the offset and the time of a channel's last message up to an offset."""
        low, high = 0, cut + 1  # there is a message at `low` or above and below `high`, or none
        found = await self._next_at(channel, 1)
        if found is None or found[0] > cut:
            return None
        low = found[0]
        while True:  # by bisection: the last step from which the next message is not beyond the cut
            middle = (low + high) // 2
            if middle <= low:
                break
            step = await self._next_at(channel, middle)
            if step is not None and step[0] <= cut:
                low, found = step[0], step
            else:
                high = middle
        return found

    async def _next_at(self, channel: str, offset: int) -> tuple[int, float] | None:
        record = await self._stream.get({"seq": offset, "next_by_subj": self._stream.subject(channel)})
        return None if record is None else (record.offset, self._reader.time_of(record))

    async def _lease(self) -> bool:
        """Return whether this node trims now: it holds the lease, or takes one that has run out."""
        stream = self._stream
        held = await stream.get({"last_by_subj": f"{stream.name}.lease"})
        last, now = 0, self._wall()
        if held is not None:
            last = held.offset
            holder, _, until = held.data.decode().partition(" ")
            if holder != self._node and now < float(until):
                return False
        headers = {"Nats-Expected-Last-Subject-Sequence": str(last), "Nats-Rollup": "sub"}
        taken = await stream.client.ask(f"{stream.name}.lease", f"{self._node} {now + LEASE_SECONDS}".encode(), headers)
        return refusal_of(taken) is None

"""Reading the stream in pages, by pull consumers that live for one page.

A consumer is made for a channel and a place; the answer says how many messages are ahead of it, so exactly those are
asked for. This works on every server from 2.9 on. In a cluster the consumer may be on any replica, and the other
questions go to the leader: a page counts only if both have the records of the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from typing import Any

from ...message import Mark, Message, Page, Start, StartKind
from ..lives import Lives
from ..meters import Foreign
from ..session import Lost
from .asking import BEHIND_SECONDS, BEHIND_TRIES, Record, seconds_of
from .client import Answer
from .stream import Stream, decode_message

IDLE_NANOSECONDS = 5_000_000_000  # a consumer that is forgotten is removed by the server after this
EXPIRY_NANOSECONDS = 10**9  # a 2.9 server that counts messages which were just trimmed answers nothing before that
FETCH_SECONDS = 5.0
FORWARD = 1_000  # the longest page
EMPTY = 20  # empty fetches while messages are ahead: a consumer may not be ready at once
SKEW_SECONDS = 5.0  # between the clocks of publishers and the server's, for `since`


class StreamPages:
    """Reads pages. `stamped` says that times are the publishers', as the server republishes none.

    `foreign` is called for each record that is left out.
    """

    def __init__(self, stream: Stream, lives: Lives, *, stamped: bool, foreign: Foreign) -> None:
        self._foreign = foreign
        self._stream = stream
        self._lives = lives
        self._stamped = stamped

    async def page(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int) -> Page:
        """Read a page from a start."""
        return await self._stream.by_one_leader(partial(self._page, channels, start, limit, max_bytes))

    async def _page(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int) -> Page:
        lives, stream = self._lives, self._stream
        last = await stream.last()
        head = lives.seq_of(last)
        marks = dict(zip(channels, await asyncio.gather(*(stream.mark(name, lives) for name in channels)), strict=True))
        floors: dict[str, int] = {}
        match start.kind:
            case StartKind.CURSOR:
                assert start.cursor is not None
                after = min(start.cursor.seq, head)
            case StartKind.LATEST:
                after = head
            case StartKind.EARLIEST:
                after = 0
            case StartKind.LAST:
                count = int(min(start.number, head))
                found = await asyncio.gather(*(self._floor(name, count, marks[name], last) for name in channels))
                floors = dict(zip(channels, found, strict=True))
                after = min(floors.values(), default=head)
            case _:
                firsts = await asyncio.gather(*(self._since(name, start.number) for name in channels))
                after = min((first - 1 for first in firsts if first is not None), default=head)
        above = floors or dict(zip(channels, start.floors, strict=False))
        most = max(1, min(limit, FORWARD))
        share = max(1, max_bytes // max(1, len(channels)))
        from_ = {name: max(after, above.get(name, 0), marks[name].seq) for name in channels}
        ranges = await asyncio.gather(*(self._range(name, from_[name], last, most, share) for name in channels))
        # What was trimmed while it was read is not served: a mark that is newer than the range counts.
        marks = dict(zip(channels, await asyncio.gather(*(stream.mark(name, lives) for name in channels)), strict=True))
        messages, cut = _merge(ranges, marks, most, max_bytes)
        if start.kind is StartKind.EARLIEST:
            after = messages[0].seq - 1 if messages else head
        elif start.kind is StartKind.SINCE:
            trimmed = [mark.seq - 1 for mark in marks.values() if mark.seq and mark.time >= start.number]
            after = min([after, *trimmed])
        upto = max(head, after) if cut is None else cut
        return Page(after, messages if limit else [], upto if limit else after, marks, floors)

    async def _range(
        self, channel: str, after: int, last: int, limit: int, max_bytes: int
    ) -> tuple[list[Message], bool]:
        """Return a channel's messages above a number, and whether there are more."""
        first = self._lives.offset_of(after) + 1
        if first > last:
            return [], False
        for _ in range(BEHIND_TRIES):
            newest = await self._newest(channel)
            found, more, reached = await self._read_range(channel, first, last, limit, max_bytes)
            if more or newest < first or reached >= newest:
                return found, more
            await asyncio.sleep(BEHIND_SECONDS)
        raise Lost(f"a replica of the stream {self._stream.name} is behind its leader")

    async def _newest(self, channel: str) -> int:
        """Return the offset that a reader of a channel must reach: a consumer of a cluster may be on a late replica."""
        return await self._stream.newest(channel) if self._stream.clustered else 0

    async def _read_range(
        self, channel: str, first: int, last: int, limit: int, max_bytes: int
    ) -> tuple[list[Message], bool, int]:
        """Return messages from an offset on, whether there are more, and which offset was reached."""
        name, pending = await self._consumer(channel, {"deliver_policy": "by_start_sequence", "opt_start_seq": first})
        messages: list[Message] = []
        size = empty = reached = 0
        try:
            while pending > 0 and len(messages) < limit and size <= max_bytes:
                few = 1 if size == 0 and max_bytes < 1 << 16 else 64
                want = min(pending, limit - len(messages), few if not messages else 64)
                answers = await self._fetch(name, want, max_bytes + (1 << 16))
                if not answers:
                    answers = await self._fetch(name, 1, None)  # one that is larger than the bound
                if not answers:
                    pending, empty = await self._ahead(name), empty + 1
                    if empty > EMPTY:
                        raise Lost(f"the stream {self._stream.name} has {pending} messages that it does not send")
                    continue
                pending -= len(answers)
                reached = offset_of(answers[-1])
                for answer in answers:
                    message = self._message(channel, answer)
                    if message is not None:
                        messages.append(message)
                        size += len(message.data)
        finally:
            await self._delete(name)
        head = self._lives.seq_of(last)
        kept = [message for message in messages if message.seq <= head]
        return kept, pending > 0 and len(kept) == len(messages), reached

    async def _fetch(self, consumer: str, count: int, max_bytes: int | None) -> list[Answer]:
        client = self._stream.client
        answers: list[Answer] = []
        done = asyncio.Event()

        def answered(answer: Answer) -> None:
            if answer.status:
                done.set()
            else:
                answers.append(answer)
                if len(answers) >= count:
                    done.set()

        question: dict[str, Any] = {"batch": count, "no_wait": True, "expires": EXPIRY_NANOSECONDS}
        if max_bytes is not None:
            question["max_bytes"] = max_bytes
        number, reply = await client.receiver(answered)
        try:
            await client.tell(
                f"$JS.API.CONSUMER.MSG.NEXT.{self._stream.name}.{consumer}", json.dumps(question).encode(), reply
            )
            async with asyncio.timeout(FETCH_SECONDS):
                await done.wait()
        except TimeoutError:
            raise Lost(f"a page did not come within {FETCH_SECONDS:g} s") from None
        finally:
            await client.end_receiver(number)
        return answers

    async def _consumer(self, channel: str, policy: dict[str, Any]) -> tuple[str, int]:
        """Make a consumer of a channel; return its name and how many messages are ahead of it."""
        stream = self._stream
        config = {
            "filter_subject": stream.subject(channel),
            "ack_policy": "none",
            "inactive_threshold": IDLE_NANOSECONDS,
            "mem_storage": True,
            "num_replicas": 1,
            **policy,
        }
        question = {"stream_name": stream.name, "config": config}
        made = await stream.client.ask_json(f"$JS.API.CONSUMER.CREATE.{stream.name}", question)
        if "error" in made:
            raise Lost(f"the stream {stream.name} can't be read: {made['error']['description']}")
        return made["name"], int(made["num_pending"])

    async def _ahead(self, consumer: str) -> int:
        """Return how many messages are ahead of a consumer now: fewer than before where some were trimmed."""
        info = await self._stream.client.ask_json(f"$JS.API.CONSUMER.INFO.{self._stream.name}.{consumer}")
        if "error" in info:
            raise Lost(f"the stream {self._stream.name} can't be read: {info['error']['description']}")
        return int(info["num_pending"])

    async def _pending(self, channel: str, offset: int) -> int:
        """Return how many messages a channel has at an offset and above."""
        name, pending = await self._consumer(channel, {"deliver_policy": "by_start_sequence", "opt_start_seq": offset})
        await self._delete(name)
        return pending

    async def _delete(self, consumer: str) -> None:
        await self._stream.client.tell(f"$JS.API.CONSUMER.DELETE.{self._stream.name}.{consumer}", b"")

    async def cut(self, channel: str, count: int, last: int) -> int:
        """Return the offset above which a channel has its `count` newest messages, by bisection over the offsets."""
        low, high = 0, last  # above `low` there are more than `count`, above `high` not
        if count >= await self._pending(channel, 1):
            return 0
        while high - low > 1:
            middle = (low + high) // 2
            if await self._pending(channel, middle + 1) > count:
                low = middle
            else:
                high = middle
        return high

    async def _floor(self, channel: str, count: int, mark: Mark, last: int) -> int:
        head = self._lives.seq_of(last)
        if count <= 0:
            return head
        offset = await self.cut(channel, count, last)
        record = await self._stream.get({"seq": offset + 1, "next_by_subj": self._stream.subject(channel)})
        return head if record is None else self._lives.seq_of(record.offset) - 1

    async def _since(self, channel: str, time: float) -> int | None:
        """Return the number of a channel's first message that is not older than a time."""
        for _ in range(BEHIND_TRIES):
            seq = await self._read_since(channel, time)
            if seq is not None or not self._stream.clustered:
                return seq
            newest = await self._stream.get({"last_by_subj": self._stream.subject(channel)})
            if newest is None or self.time_of(newest) < time:
                return None
            await asyncio.sleep(BEHIND_SECONDS)
        raise Lost(f"a replica of the stream {self._stream.name} is behind its leader")

    async def _read_since(self, channel: str, time: float) -> int | None:
        margin = SKEW_SECONDS if self._stamped else 0.001
        moment = datetime.fromtimestamp(min(max(time - margin, 0.0), 32503680000.0), UTC).isoformat()
        moment = moment.replace("+00:00", "Z")
        name, pending = await self._consumer(channel, {"deliver_policy": "by_start_time", "opt_start_time": moment})
        empty = 0
        try:
            while pending > 0:
                answers = await self._fetch(name, min(pending, 64), None)
                if not answers:
                    pending, empty = await self._ahead(name), empty + 1
                    if empty > EMPTY:
                        raise Lost(f"the stream {self._stream.name} has {pending} messages that it does not send")
                    continue
                pending -= len(answers)
                for answer in answers:
                    message = self._message(channel, answer)
                    if message is not None and message.time >= time:
                        return message.seq
            return None
        finally:
            await self._delete(name)

    async def first_kept(self, channel: str, time: float) -> int | None:
        """Return the offset of a channel's first message that is not older than a time."""
        seq = await self._since(channel, time)
        return None if seq is None else self._lives.offset_of(seq)

    def time_of(self, record: Record) -> float:
        """Return the time of a record that was read by its offset."""
        if self._stamped:
            with contextlib.suppress(ValueError):
                return decode_message("", record.data, 0, None).time
        return record.time

    def _message(self, channel: str, answer: Answer) -> Message | None:
        # $JS.ACK.STREAM.CONSUMER.DELIVERED.OFFSET.NUMBER.NANOSECONDS.PENDING, with two more after ACK in later servers
        offset, nanoseconds = offset_of(answer), int(answer.reply.split(".")[-2])
        time = None if self._stamped else seconds_of(nanoseconds)
        try:
            return decode_message(channel, answer.data, self._lives.seq_of(offset), time)
        except ValueError as error:
            self._foreign(f"the record {offset} of the stream {self._stream.name}: {error}")
            return None


def offset_of(answer: Answer) -> int:
    """Return the offset of a record that a consumer sent: see `_message`."""
    return int(answer.reply.split(".")[-4])


def _merge(
    ranges: Sequence[tuple[list[Message], bool]], marks: dict[str, Mark], limit: int, max_bytes: int
) -> tuple[list[Message], int | None]:
    """Return the messages of several channels in order, and where they were cut."""
    cut = min((found[-1].seq for found, more in ranges if more and found), default=None)
    messages: list[Message] = []
    size = 0
    for message in heapq.merge(*(found for found, _ in ranges), key=attrgetter("seq")):
        if cut is not None and message.seq > cut:
            break
        if message.seq <= marks[message.channel].seq:
            continue
        size += len(message.data)
        if len(messages) >= limit or (messages and size > max_bytes):
            return messages, messages[-1].seq
        messages.append(message)
    return messages, cut

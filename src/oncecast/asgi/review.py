"""The functions that check what clients publish: `on_publish`.

Invariants: each draft has one outcome, unless its owner has left; what one owner gives is published in the order in
which it was given, however long the functions take; a function that fails or is late refuses its message. The number of
waiting messages has a bound, and so has each publisher's share of it; past either a message is refused. Once an owner
has left, no function is asked about what it gave: what was accepted before is published, and the rest is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..brokers.base import STOPPING, Done, Outcome
from ..client.encoding import Content, content_of
from ..client.failures import Refused
from ..errors import Refusal, UsageError
from ..message import BINARY, TEXT, Draft, Kind, check_event
from ..policy.channels import matches
from ..policy.identity import Identity
from .callers import call_in_time, name_of

__all__ = ["Check", "Publication", "PublishReview"]

logger = logging.getLogger("oncecast.asgi")

WAITING = 10_000  # messages that wait for a function, all clients together
WAITING_BYTES = 64 << 20
SHARE = 2_500  # of one publisher, who may always have one publish: a batch has up to 4,000 lines
SHARE_BYTES = 16 << 20
STOP_SECONDS = 2.0  # for functions that are cancelled to end

BUSY = Refusal("unavailable", "Too many messages wait for the application: publish again in a moment.", retry_after=1)

Check = Callable[["Publication"], Any]
Append = Callable[[Sequence[Draft], Done], None]


class Publication:
    """A message that a client publishes. Setting `data` or `event` changes it; raise `Refused` to refuse it.

    `identity` says who publishes. `key` is its idempotency key: a message that is sent again comes here again.
    """

    def __init__(self, draft: Draft, identity: Identity) -> None:
        self._draft = draft
        self._data: Any = msgspec.UNSET
        self.identity = identity

    @property
    def channel(self) -> str:
        """The channel, to which this client may publish."""
        return self._draft.channel

    @property
    def key(self) -> str | None:
        """The idempotency key."""
        return self._draft.key

    @property
    def subject(self) -> str | None:
        """The user who publishes, None for anybody."""
        return self.identity.subject

    @property
    def raw_data(self) -> bytes:
        """The data as it came: JSON and text in UTF-8."""
        return self._draft.data

    @property
    def kind(self) -> Kind:
        """Whether the data is JSON, text or bytes."""
        return self._draft.kind

    @property
    def data(self) -> Any:
        """The data: the value of JSON, a `str`, or `bytes`. A change inside of the value counts only once it is set."""
        if self._data is msgspec.UNSET:
            draft = self._draft
            if draft.kind is BINARY:
                self._data = draft.data
            else:
                self._data = draft.data.decode() if draft.kind is TEXT else _decoded(draft.data)
        return self._data

    @data.setter
    def data(self, data: Any) -> None:
        try:
            content = content_of(data)
        except Refused as refused:  # the mistake is the application's: the log gets it, and not the client
            raise ValueError(refused.message) from None
        self._draft = msgspec.structs.replace(self._draft, data=content.data, kind=content.kind)
        self._data = msgspec.UNSET

    @property
    def event(self) -> str | None:
        """The event's name."""
        return self._draft.event

    @event.setter
    def event(self, event: str | None) -> None:
        try:
            checked = None if event is None else check_event(event)
        except Refusal as refusal:
            raise ValueError(refusal.message) from None
        self._draft = msgspec.structs.replace(self._draft, event=checked)

    @property
    def draft(self) -> Draft:
        """The message as it stands."""
        return self._draft


@dataclass(slots=True)
class _Batch:
    """Drafts that wait, and the callback for their outcomes."""

    identity: Identity
    publisher: object
    drafts: Sequence[Draft]
    publish: Append
    done: Done
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = sum(len(draft.data) for draft in self.drafts)


@dataclass(slots=True)
class _OwnerLine:
    """The batches of one owner, in order. The functions are asked about the first one."""

    batches: deque[_Batch]
    left: bool = False


@dataclass(slots=True)
class _Amount:
    """How much waits."""

    messages: int = 0
    size: int = 0

    def fits(self, batch: _Batch, messages: int, size: int) -> bool:
        """Return whether there is room for a batch, where this may be at most so much."""
        return self.messages + len(batch.drafts) <= messages and self.size + batch.size <= size

    def add(self, batch: _Batch, sign: int) -> None:
        """Count a batch in (1) or out (-1)."""
        self.messages += sign * len(batch.drafts)
        self.size += sign * batch.size


class PublishReview:
    """The functions, by their patterns, each asked in the order in which they were registered.

    `publisher` returns the key of who publishes: a user, or an address; "" where many may be behind one address, so
    that each owner counts for itself.
    """

    def __init__(
        self,
        checks: Sequence[tuple[str, Check]],
        seconds: float,
        message_bytes: Callable[[], int],
        publisher: Callable[[Identity], str],
    ) -> None:
        self._checks = checks
        self._seconds = seconds
        self._message_bytes = message_bytes
        self._publisher = publisher
        self._lines: dict[object, _OwnerLine] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = _Amount()
        self._shares: dict[object, _Amount] = {}  # of the publishers of which something waits

    def publish(
        self, owner: object, identity: Identity, drafts: Sequence[Draft], publish: Append, done: Done, /
    ) -> None:
        """Ask the functions, then publish what is accepted."""
        line = self._lines.get(owner)
        if line is None and not any(self._wants(draft.channel) for draft in drafts):
            publish(drafts, done)
            return
        batch = _Batch(identity, self._publisher(identity) or owner, drafts, publish, done)
        share = self._shares.get(batch.publisher)
        if not self._waiting.fits(batch, WAITING, WAITING_BYTES) or not (
            share is None or share.fits(batch, SHARE, SHARE_BYTES)
        ):
            done([BUSY] * len(drafts))
            return
        self._waiting.add(batch, 1)
        self._shares.setdefault(batch.publisher, _Amount()).add(batch, 1)
        if line is not None:
            line.batches.append(batch)
            return
        self._lines[owner] = _OwnerLine(deque((batch,)))
        task = asyncio.create_task(self._work(owner), name="oncecast: on_publish")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def leave(self, owner: object, /) -> None:
        """Drop what an owner has given, but for what the functions have accepted already."""
        line = self._lines.get(owner)
        if line is not None:
            line.left = True
            while len(line.batches) > 1:
                self._forget(line.batches.pop())

    async def stop(self) -> None:
        """Refuse what waits."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
            if late:
                logger.error("on_publish: %d functions go on although they were cancelled: they are left", len(late))

    def _wants(self, channel: str) -> bool:
        return any(matches(pattern, channel) for pattern, _ in self._checks)

    async def _work(self, owner: object) -> None:
        line = self._lines[owner]
        try:
            while line.batches:
                batch = line.batches[0]
                found = [await self._judge(draft, batch.identity) for draft in batch.drafts if not line.left]
                self._forget(line.batches.popleft())
                if line.left:
                    _publish_unheard(batch, found)
                else:
                    _publish(batch, found)
        finally:
            del self._lines[owner]
            for batch in line.batches:
                self._forget(batch)
                batch.done([STOPPING] * len(batch.drafts))

    def _forget(self, batch: _Batch) -> None:
        self._waiting.add(batch, -1)
        share = self._shares.get(batch.publisher)
        if share is not None:  # else it was of batches without messages
            share.add(batch, -1)
            if not share.messages:
                del self._shares[batch.publisher]

    async def _judge(self, draft: Draft, identity: Identity) -> Draft | Refusal:
        publication = Publication(draft, identity)
        for pattern, check in self._checks:
            if not matches(pattern, draft.channel):
                continue
            try:
                said = await call_in_time(check, publication, self._seconds, "on_publish")
            except Refusal as refusal:
                return refusal
            if said is False:
                return Refusal("forbidden", f"The application does not take this message to {draft.channel}.")
            if said is not None and said is not True:
                text = "on_publish: %s returned %s: set publication.data to change a message"
                logger.error(text, name_of(check), type(said).__name__)
                return Refusal("internal", "The application failed at this message: its log has the cause.")
        if len(publication.draft.data) > self._message_bytes():
            return Refusal("body_too_large", f"A message is at most {self._message_bytes()} bytes.")
        return publication.draft


def _decoded(data: bytes) -> Any:
    """Return the value of JSON that the wire has taken. Raises `Refusal` for a number that Python's does not hold."""
    try:
        return msgspec.json.decode(data)
    except msgspec.MsgspecError as error:
        raise Refusal("data_invalid", f"The application can't read this JSON: {error}.") from None


def _publish(batch: _Batch, found: list[Draft | Refusal]) -> None:
    accepted = [each for each in found if isinstance(each, Draft)]
    if not accepted:
        batch.done([each for each in found if isinstance(each, Refusal)])
        return

    def done(outcomes: Sequence[Outcome]) -> None:
        published = iter(outcomes)
        batch.done([each if isinstance(each, Refusal) else next(published) for each in found])

    batch.publish(accepted, done)


def _publish_unheard(batch: _Batch, found: list[Draft | Refusal]) -> None:
    accepted = [each for each in found if isinstance(each, Draft)]
    if accepted:
        batch.publish(accepted, lambda outcomes: None)


def check_content(data: Any, limit: int) -> Content:
    """Return the content of data that the application publishes. Raises `Refused`."""
    content = content_of(data)
    if len(content.data) > limit:
        raise Refused(f"the message has {len(content.data)} bytes: at most {limit} are taken", code="body_too_large")
    return content


def check_pattern_of(pattern: str) -> str:
    """Return a pattern of channels that `on_publish` is for. Raises `UsageError`."""
    from ..policy.channels import is_pattern

    if not isinstance(pattern, str) or not is_pattern(pattern) or "{" in pattern:
        raise UsageError(f"on_publish: {pattern!r} is no channel or pattern: give a name, a prefix and *, or *")
    return pattern

"""The brokers' contract suite: it passes a good broker, and each clause catches a broker that breaks it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import pytest
from msgspec.structs import replace

from oncecast.brokers.base import Broker, Done, Opening, Outcome, Sink
from oncecast.brokers.memory import MemoryBroker
from oncecast.errors import Refusal
from oncecast.message import EARLIEST, LATEST, Draft, Mark, Message, Page, Receipt, Start, StartKind
from oncecast.testing.broker import CHECKS, BrokerFailed, Lab, check_broker
from oncecast.testing.clock import FakeClock, Turns
from oncecast.testing.driver import AtOnce
from oncecast.testing.history_broker import HistoryBroker


class Good(MemoryBroker):
    """A broker without a fault, to derive faulty ones from."""

    def __init__(self, epoch: str = "e") -> None:
        clock = FakeClock()
        super().__init__(epoch, clock.wall)
        self.sink: Sink | None = None

    async def start(self, sink: Sink) -> None:
        self.sink = sink
        await super().start(self)

    def begin(self, opening: Opening, /) -> None:
        assert self.sink is not None
        self.sink.begin(opening)

    def receive(self, messages: Sequence[Message], /) -> None:
        self.deliver(messages)

    def skip(self, seq: int, /) -> None:
        raise NotImplementedError

    def fail(self, reason: str, /) -> None:
        raise NotImplementedError

    def advance(self, seq: int, /) -> None:
        raise NotImplementedError

    def hole(self, before: int, after: int, /) -> None:
        raise NotImplementedError

    def wanted(self, channels: Sequence[str], seq: int, /) -> None:
        raise NotImplementedError

    def away(self, reason: str, /) -> None:
        raise NotImplementedError

    def back(self) -> None:
        raise NotImplementedError

    def deliver(self, messages: Sequence[Message]) -> None:
        assert self.sink is not None
        self.sink.receive(messages)


class BadEpoch(Good):
    def __init__(self) -> None:
        super().__init__("e-1")


class BadDurability(Good):
    def __init__(self) -> None:
        super().__init__()
        self.capabilities = replace(self.capabilities, durability="probably")


class SameNumber(Good):
    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        super().publish(drafts, lambda outcomes: done([Receipt("e", 1, "memory")] * len(drafts)))


class OtherEpoch(Good):
    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        super().publish(drafts, lambda outcomes: done([Receipt("f", r.seq, "memory") for r in outcomes]))  # type: ignore[union-attr]


class OtherDurability(Good):
    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        super().publish(drafts, lambda outcomes: done([Receipt("e", r.seq, "fsync") for r in outcomes]))  # type: ignore[union-attr]


class Reversed(Good):
    def deliver(self, messages: Sequence[Message]) -> None:
        super().deliver(messages[::-1])


class Deaf(Good):
    def deliver(self, messages: Sequence[Message]) -> None:
        pass


class LosesTheEvent(Good):
    def deliver(self, messages: Sequence[Message]) -> None:
        super().deliver([Message(m.seq, m.channel, m.data, m.kind, None, m.time) for m in messages])


class AnswersFirst(Good):
    def __init__(self) -> None:
        super().__init__()
        self.held: list[Message] = []

    def deliver(self, messages: Sequence[Message]) -> None:
        self.held.extend(messages)

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        super().publish(drafts, done)
        held, self.held = self.held, []
        super().deliver(held)


class AnswersTwice(Good):
    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        def twice(outcomes: Sequence[Outcome]) -> None:
            done(outcomes)
            done(outcomes)

        super().publish(drafts, twice)


class AnswersShort(Good):
    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        super().publish(drafts, lambda outcomes: done(outcomes[1:]))


class AnswersTurned(Good):
    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        super().publish(drafts, lambda outcomes: done(outcomes[::-1]))


class NeverAnswers(Good):
    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        pass


class MakesOneUp(Good):
    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        super().publish(drafts or [Draft("c", b"")], lambda outcomes: done(outcomes[: len(drafts)]))


class ForgetsKeys(Good):
    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        self._keys.clear()
        super().publish(drafts, done)


class OneNamespace(Good):
    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        self._by_key: dict[str | None, Outcome] = getattr(self, "_by_key", {})
        outcomes: list[Outcome] = []
        for draft in drafts:
            if draft.key not in self._by_key:
                super().publish([draft], outcomes.extend)
                if draft.key is not None:
                    self._by_key[draft.key] = outcomes[-1]
            else:
                outcomes.append(self._by_key[draft.key])
        done(outcomes)


class KeysAfterTheBatch(Good):
    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        outcomes: list[Outcome] = []
        before = dict(self._keys)
        for draft in drafts:
            self._keys.clear()
            self._keys.update(before)
            super().publish([draft], outcomes.extend)
        done(outcomes)


class TimesGoBack(Good):
    def deliver(self, messages: Sequence[Message]) -> None:
        super().deliver([Message(m.seq, m.channel, m.data, m.kind, m.event, m.time - m.seq) for m in messages])


class TimesBeforeTheEpoch(Good):
    def deliver(self, messages: Sequence[Message]) -> None:
        super().deliver([Message(m.seq, m.channel, m.data, m.kind, m.event, m.seq - 9.0) for m in messages])


class NeverCloses(Good):
    async def stop(self) -> None:
        pass


class DeliversWhenClosed(Good):
    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        if self._refusal:
            self.deliver([Message(99, "c", b"", drafts[0].kind, None, 0.0)])
        super().publish(drafts, done)


class Kept(HistoryBroker):
    """A broker with a history and without a fault, to derive faulty ones from. It has begun before it is opened."""

    def __init__(self) -> None:
        super().__init__("e", FakeClock().wall, recent=2)
        self.append(*(Draft(channel, b"old") for channel in "baa"))

    def opening(self) -> Opening:
        return self.change(super().opening())

    def change(self, opening: Opening) -> Opening:
        return opening

    def find(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int) -> Page:
        return self.spoil(super().find(channels, start, limit, max_bytes), limit)

    def spoil(self, page: Page, limit: int) -> Page:
        return page


class Fresh(Kept):
    """One whose log is empty at first."""

    def __init__(self) -> None:
        HistoryBroker.__init__(self, "e", FakeClock().wall)


class LosesTheNewest(Fresh):
    def spoil(self, page: Page, limit: int) -> Page:
        return replace(page, messages=page.messages[:-1])


class ReadsTooFar(Fresh):
    def spoil(self, page: Page, limit: int) -> Page:
        return replace(page, upto=page.upto + 1)


class ForgetsAMark(Fresh):
    def spoil(self, page: Page, limit: int) -> Page:
        return replace(page, marks=dict(list(page.marks.items())[1:]))


class MarksTheFuture(Fresh):
    def spoil(self, page: Page, limit: int) -> Page:
        return replace(page, marks=dict.fromkeys(page.marks, Mark(99, 1.0)), messages=[])


class BeginsEarly(Fresh):
    def spoil(self, page: Page, limit: int) -> Page:
        return replace(page, after=max(0, page.after - 1))


class StandsStill(Fresh):
    def spoil(self, page: Page, limit: int) -> Page:
        return replace(page, upto=0) if limit == 4 else page


class ByChannel(Fresh):
    def spoil(self, page: Page, limit: int) -> Page:
        return replace(page, messages=sorted(page.messages, key=lambda message: message.channel))


class NoBound(Fresh):
    def find(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int) -> Page:
        return super().find(channels, start, limit, 1 << 40)


class NothingFits(Fresh):
    def spoil(self, page: Page, limit: int) -> Page:
        return page if sum(len(m.data) for m in page.messages) > 100 else replace(page, messages=[])


class LastIsFirst(Fresh):
    def find(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int) -> Page:
        return super().find(channels, EARLIEST if start.kind is StartKind.LAST else start, limit, max_bytes)


class FloorsAreIgnored(Fresh):
    def find(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int) -> Page:
        return super().find(channels, dataclasses.replace(start, floors=()), limit, max_bytes)


class SinceIsLatest(Fresh):
    def find(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int) -> Page:
        return super().find(channels, LATEST if start.kind is StartKind.SINCE else start, limit, max_bytes)


class ReadsTwice(Fresh):
    def read(
        self,
        channels: Sequence[str],
        start: Start,
        limit: int,
        max_bytes: int,
        done: Callable[[Page | Refusal], None],
    ) -> None:
        super().read(channels, start, limit, max_bytes, done)
        super().read(channels, start, limit, max_bytes, done)


class CantRead(Fresh):
    def answer(self, index: int = 0, refusal: Refusal | None = None) -> None:
        super().answer(index, Refusal("unavailable", "no"))


class ReadsOn(Fresh):
    async def stop(self) -> None:
        pass


class OpensWithHoles(Kept):
    def change(self, opening: Opening) -> Opening:
        return replace(opening, recent=opening.recent[:1])


class OpensTurned(Kept):
    def change(self, opening: Opening) -> Opening:
        return replace(opening, recent=opening.recent[::-1])


class OpensBelowItsFloor(Kept):
    def change(self, opening: Opening) -> Opening:
        return replace(opening, floor=Mark(opening.head, 1.0))


class OpensAboveItsHead(Kept):
    def change(self, opening: Opening) -> Opening:
        return replace(opening, floor=Mark(99, 1.0), recent=())


class OpensWithoutMarks(Kept):
    def __init__(self) -> None:
        super().__init__()
        self.append(Draft("a", b"5"))
        self.trim("a", 2)

    def change(self, opening: Opening) -> Opening:
        return replace(opening, floor=Mark(1, 1.0), marks={})


class OpensAhead(Kept):
    def change(self, opening: Opening) -> Opening:
        return replace(opening, head=99)


@pytest.mark.parametrize("broker", [Good, Kept, Fresh])
def test_a_good_broker_passes(broker: Callable[[], Broker]) -> None:
    """All clauses hold for a broker that keeps the contract, with a history or without."""
    for name in CHECKS:
        if broker is not Kept or name in HOLDS_LATER:
            check_broker(lambda: Lab(broker), name)


# The other clauses expect that what is read is what was delivered: of a log that is new.
HOLDS_LATER = ("opens_where_it_stands", "keeps_the_order", "numbers_what_it_appends", "refuses_once_closed")


@pytest.mark.parametrize(
    "broker, name",
    [
        (LosesTheNewest, "reads_what_it_delivered"),
        (ReadsTooFar, "reads_what_it_delivered"),
        (ForgetsAMark, "reads_what_it_delivered"),
        (MarksTheFuture, "reads_what_it_delivered"),
        (BeginsEarly, "reads_what_it_delivered"),
        (ByChannel, "reads_what_it_delivered"),
        (ReadsTwice, "reads_what_it_delivered"),
        (CantRead, "reads_what_it_delivered"),
        (StandsStill, "reads_on_page_by_page"),
        (LosesTheNewest, "reads_on_page_by_page"),
        (NoBound, "bounds_a_page_by_bytes"),
        (NothingFits, "bounds_a_page_by_bytes"),
        (ReadsTooFar, "bounds_a_page_by_bytes"),
        (LastIsFirst, "finds_every_start"),
        (FloorsAreIgnored, "finds_every_start"),
        (SinceIsLatest, "finds_every_start"),
        (OpensWithHoles, "opens_where_it_stands"),
        (OpensTurned, "opens_where_it_stands"),
        (OpensBelowItsFloor, "opens_where_it_stands"),
        (OpensAboveItsHead, "opens_where_it_stands"),
        (OpensWithoutMarks, "opens_where_it_stands"),
        (OpensAhead, "opens_where_it_stands"),
        (ReadsOn, "refuses_reads_once_closed"),
    ],
)
def test_a_broken_history_is_caught(broker: type[Kept], name: str) -> None:
    """Each fault of a history fails the check of its clause."""
    with pytest.raises(BrokerFailed):
        check_broker(lambda: Lab(broker), name)


@pytest.mark.parametrize(
    "broker, name",
    [
        (BadEpoch, "names_itself"),
        (BadDurability, "names_itself"),
        (SameNumber, "numbers_what_it_appends"),
        (OtherEpoch, "numbers_what_it_appends"),
        (OtherDurability, "numbers_what_it_appends"),
        (Reversed, "keeps_the_order"),
        (Deaf, "delivers_its_own"),
        (LosesTheEvent, "delivers_its_own"),
        (AnswersFirst, "delivers_before_it_answers"),
        (AnswersTwice, "delivers_before_it_answers"),
        (AnswersShort, "answers_in_order"),
        (AnswersTurned, "answers_in_order"),
        (NeverAnswers, "answers_in_order"),
        (MakesOneUp, "answers_nothing_to_nothing"),
        (ForgetsKeys, "appends_a_key_once"),
        (OneNamespace, "keeps_keys_apart"),
        (KeysAfterTheBatch, "appends_a_key_once_in_a_batch"),
        (TimesGoBack, "times_never_go_back"),
        (TimesBeforeTheEpoch, "times_never_go_back"),
        (NeverCloses, "refuses_once_closed"),
        (DeliversWhenClosed, "refuses_once_closed"),
    ],
)
def test_a_broken_clause_is_caught(broker: type[Good], name: str) -> None:
    """Each fault fails the check of its clause, and so the whole suite."""
    with pytest.raises(BrokerFailed):
        check_broker(lambda: Lab(broker), name)
    with pytest.raises(BrokerFailed):
        check_broker(lambda: Lab(broker))


class Later(Good):
    """A broker that answers and delivers at the end of the turn."""

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self.turns = turns

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        self.turns.schedule(lambda: super(Later, self).publish(drafts, done))


@pytest.mark.parametrize("name", CHECKS)
def test_a_broker_that_answers_later_is_waited_for(name: str) -> None:
    """With a driver that runs what is due, a broker that calls back later passes too."""
    turns = Turns()
    check_broker(lambda: Lab(lambda: Later(turns), AtOnce(turns.run)), name)

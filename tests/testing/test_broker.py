"""The brokers' contract suite: it passes a good broker, and each clause catches a broker that breaks it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from msgspec.structs import replace

from oncecast.brokers.base import Broker, Done, Opening, Outcome, Sink
from oncecast.brokers.memory import MemoryBroker
from oncecast.errors import Refusal
from oncecast.message import EARLIEST, LATEST, Draft, Mark, Message, Page, Receipt, Start, StartKind
from oncecast.testing import broker_history
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

    async def stop(self) -> None:
        self.turns.run_all()
        await super().stop()


@pytest.mark.parametrize("name", CHECKS)
def test_a_broker_that_answers_later_is_waited_for(name: str) -> None:
    """With a driver that runs what is due, a broker that calls back later passes too."""
    turns = Turns()
    check_broker(lambda: Lab(lambda: Later(turns), AtOnce(turns.run)), name)


# -- several nodes on one log


class Member(HistoryBroker):
    """One of several brokers on one log, each of which does what any of them is asked."""

    def __init__(self, members: list[Member], *, only_wanted: bool = False) -> None:
        super().__init__("e", FakeClock().wall, only_wanted=only_wanted)
        self.capabilities = replace(self.capabilities, shared=True)
        self.members = members
        if members:
            first = members[0]
            self.epoch, self.head, self.holes = first.epoch, first.head, first.holes
            self.messages, self.marks, self._keys = list(first.messages), dict(first.marks), dict(first._keys)
        members.append(self)

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        self.replicate(drafts)
        super().publish(drafts, done)

    def replicate(self, drafts: Sequence[Draft]) -> None:
        for member in self.members:
            if member is not self:
                HistoryBroker.publish(member, drafts, lambda outcomes: None)

    async def stop(self) -> None:
        await super().stop()
        if self in self.members and len(self.members) > 1:
            self.members.remove(self)


class Cluster:
    """A log with members that are made by `kind`."""

    def __init__(self, kind: Callable[[list[Member]], Member]) -> None:
        self.members: list[Member] = []
        self.kind = kind

    def lab(self) -> Lab:
        """Return what a check is run with."""
        return Lab(self.make, renew=self.renew, lose=self.lose, damage=self.damage, trim=self.trim)

    def make(self) -> Broker:
        """Return one more."""
        return self.kind(self.members)

    def renew(self) -> None:
        """Empty the log."""
        for member in list(self.members):
            member.renew("f")

    def lose(self) -> None:
        """Lose its newest message."""
        for member in list(self.members):
            member.lose(1)

    def damage(self) -> None:
        """Use up a number."""
        for member in self.members:
            member.head += 1

    def trim(self, channel: str, messages: int) -> None:
        """Trim a channel now."""
        for member in self.members:
            seqs = [message.seq for message in member.messages if message.channel == channel]
            member.trim(channel, seqs[-messages] - 1)


class Wanted(Member):
    def __init__(self, members: list[Member]) -> None:
        super().__init__(members, only_wanted=True)


@pytest.mark.parametrize("kind", [Member, Wanted])
@pytest.mark.parametrize("name", CHECKS)
def test_good_nodes_pass(kind: type[Wanted], name: str) -> None:
    """All clauses hold for nodes that share a log, whether they deliver all or only what is wanted."""
    if name != "goes_on_past_damage":  # this one skips past it, as it can't tell damage from what is trimmed
        check_broker(Cluster(kind).lab, name)


class Printed:
    """A sink that drops what it gets."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *rest: None


class TakesEarly(Member):
    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        self._sink = self._sink or Printed()
        super().publish(drafts, done)


class Silent(Member):
    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        if drafts[0].data != b"30":
            super().publish(drafts, done)


class TrimsKeys(Member):
    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        super().publish([replace(draft, key=draft.key and draft.key.strip()) for draft in drafts], done)


class FoldsNames(Member):
    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        super().publish([replace(draft, channel=draft.channel.lower()) for draft in drafts], done)


class CutsData(Member):
    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        super().publish([replace(draft, data=draft.data[: 1 << 19]) for draft in drafts], done)


class FewChannels(Member):
    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        super().publish([draft for draft in drafts if draft.channel != "many-7777"] + list(drafts[:1]), done)


class Alone(Member):
    def replicate(self, drafts: Sequence[Draft]) -> None:
        pass


class OwnKeys(Member):
    def replicate(self, drafts: Sequence[Draft]) -> None:
        super().replicate([replace(draft, key=None) for draft in drafts])


class Holey(Member):
    def replicate(self, drafts: Sequence[Draft]) -> None:
        if drafts[0].data != b"7":
            super().replicate(drafts)
        else:
            for member in self.members:
                if member is not self:
                    member.append(*drafts)
                    member._fetched = member.head


class ConfirmsAhead(Wanted):
    def confirm(self, *channels: str) -> None:
        super().confirm(*channels)
        assert self._sink is not None
        if self._sink is not None and len(self.members) > 1:
            self._sink.wanted(channels, 1)


class DeliversAll(Wanted):
    def want(self, channels: Sequence[str]) -> None:
        super().want([*channels, "a"])


class Stands(Wanted):
    def arrive(self) -> None:
        sink: Any = self._sink
        self._sink = cast(Sink, Still(sink))
        super().arrive()
        self._sink = sink


class Still:
    """A sink whose head does not move by itself."""

    def __init__(self, sink: Sink | None) -> None:
        self.sink = sink

    def advance(self, seq: int, /) -> None:
        """Drop it."""

    def __getattr__(self, name: str) -> object:
        return getattr(self.sink, name)


class SameEpoch(Member):
    def renew(self, epoch: str) -> None:
        super().renew(self.epoch)


class KeepsTheOld(Member):
    def renew(self, epoch: str) -> None:
        old = self.messages
        super().renew(epoch)
        self.messages = old


class SaysNothing(Member):
    def lose(self, count: int) -> None:
        self.messages = self.messages[:-count]


class SmallHole(Member):
    def lose(self, count: int) -> None:
        super().lose(count)
        self.head = self.handed = self._fetched = self.head - 90


class ForgetsTheHole(Member):
    def lose(self, count: int) -> None:
        super().lose(count)
        self.holes = ()


class NeverTrims(Member):
    def trim(self, channel: str, upto: int) -> None:
        pass


class MarksTooFar(Member):
    def trim(self, channel: str, upto: int) -> None:
        super().trim(channel, upto)
        self.marks[channel] = Mark(self.marks[channel].seq + 1, 0.0)


class ReadsHuge(Member):
    def find(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int) -> Page:
        if start.kind is StartKind.LAST and start.number > 2**62:
            return super().find(channels, LATEST, limit, max_bytes)
        return super().find(channels, start, limit, max_bytes)


class Dies(Member):
    def __init__(self, members: list[Member]) -> None:
        super().__init__(members)
        self.asked = 0

    def find(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int) -> Page:
        self.asked += 1
        return super().find(channels if self.asked < 20 else "b", start, limit, max_bytes)


@pytest.mark.parametrize(
    "kind, name",
    [
        (TakesEarly, "refuses_until_started"),
        (Silent, "answers_all_when_it_stops"),
        (TrimsKeys, "takes_any_key"),
        (FoldsNames, "takes_any_channel"),
        (CutsData, "takes_any_size"),
        (FewChannels, "serves_many_channels"),
        (ReadsHuge, "reads_whatever_number_is_asked"),
        (Dies, "answers_many_reads"),
        (NeverTrims, "marks_what_it_trims"),
        (MarksTooFar, "marks_what_it_trims"),
        (Alone, "shares_one_log"),
        (OwnKeys, "shares_one_log"),
        (Holey, "follows_without_a_hole"),
        (Alone, "follows_without_a_hole"),
        (ConfirmsAhead, "delivers_what_is_wanted"),
        (DeliversAll, "advances_without_a_message"),
        (Stands, "advances_without_a_message"),
        (SameEpoch, "tells_of_another_log"),
        (KeepsTheOld, "tells_of_another_log"),
        (SaysNothing, "tells_of_a_hole"),
        (SmallHole, "tells_of_a_hole"),
        (ForgetsTheHole, "tells_of_a_hole"),
        (Member, "goes_on_past_damage"),
    ],
)
def test_a_faulty_node_is_caught(kind: type[Wanted], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fault fails the check of its clause."""
    monkeypatch.setattr(broker_history, "TRIM_SECONDS", 0.05)
    with pytest.raises(BrokerFailed):
        check_broker(Cluster(kind).lab, name)

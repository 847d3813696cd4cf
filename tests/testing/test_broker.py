"""The brokers' contract suite: it passes a good broker, and each clause catches a broker that breaks it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from oncecast.brokers.base import Done, Opening, Outcome, Sink
from oncecast.brokers.memory import MemoryBroker
from oncecast.message import Draft, Message, Receipt
from oncecast.testing.broker import CHECKS, BrokerFailed, check_broker
from oncecast.testing.clock import FakeClock, Turns


class Good(MemoryBroker):
    """A broker without a fault, to derive faulty ones from."""

    def __init__(self, epoch: str = "e") -> None:
        clock = FakeClock()
        super().__init__(epoch, clock.wall)
        self.sink: Sink | None = None

    def open(self, sink: Sink) -> Opening:
        self.sink = sink
        return super().open(self)

    def receive(self, messages: Sequence[Message], /) -> None:
        self.deliver(messages)

    def skip(self, seq: int, /) -> None:
        raise NotImplementedError

    def fail(self, reason: str, /) -> None:
        raise NotImplementedError

    def deliver(self, messages: Sequence[Message]) -> None:
        assert self.sink is not None
        self.sink.receive(messages)


class BadEpoch(Good):
    def __init__(self) -> None:
        super().__init__("e-1")


class BadDurability(Good):
    durability = "probably"


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
    def close(self) -> None:
        pass


class DeliversWhenClosed(Good):
    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        if self._closed:
            self.deliver([Message(99, "c", b"", drafts[0].kind, None, 0.0)])
        super().publish(drafts, done)


def test_a_good_broker_passes() -> None:
    """All clauses hold for a broker that keeps the contract."""
    check_broker(Good)


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
        check_broker(broker, name)
    with pytest.raises(BrokerFailed):
        check_broker(broker)


class Later(Good):
    """A broker that answers and delivers at the end of the turn."""

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self.turns = turns

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        self.turns.schedule(lambda: super(Later, self).publish(drafts, done))


@pytest.mark.parametrize("name", CHECKS)
def test_a_broker_that_answers_later_is_waited_for(name: str) -> None:
    """With a `settle` that runs the loop, a broker that calls back later passes too."""
    turns = Turns()

    def settle(condition: Callable[[], bool]) -> None:
        while not condition():
            assert turns.run() > 0

    check_broker(lambda: Later(turns), name, settle=settle)

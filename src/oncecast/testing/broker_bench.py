"""The tools of the brokers' contract: a `Lab`, which is one log, and a `BrokerBench`, which is one node on it.

A bench is the sink of its broker: it records deliveries and answers. A failed expectation raises `BrokerFailed`, whose
text is the clause.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from ..brokers.base import Broker, Opening, Outcome
from ..errors import OncecastError, Refusal
from ..message import EARLIEST, Cursor, Draft, Message, Page, Receipt, Start, StartKind
from .driver import AtOnce, Driver

ENOUGH = 1 << 30
DURABILITIES = frozenset({"memory", "process", "broker", "fsync"})


class BrokerFailed(OncecastError):
    """A broker breaks its contract. The text is the clause, and what the check has seen instead."""


@dataclass(slots=True)
class Lab:
    """One log, empty unless a test has filled it, and the ways to make and run brokers on it.

    `make` returns a broker for one more node, not started. `renew` empties the log and gives it another epoch. `lose`
    loses its newest acknowledged messages, as an unclean failover may. `damage` adds a record that is not a message.
    `trim` keeps only the given number of a channel's newest messages from then on. Each is called while the brokers
    run, and the brokers must notice the change. `close` is called at the end.
    """

    make: Callable[[], Broker]
    driver: Driver = field(default_factory=AtOnce)
    renew: Callable[[], None] | None = None
    lose: Callable[[], None] | None = None
    damage: Callable[[], None] | None = None
    trim: Callable[[str, int], None] | None = None
    close: Callable[[], None] = lambda: None


@dataclass(slots=True)
class BrokerBench:
    """A broker and its sink. `events` has the calls of the sink, in order, each with its number.

    With `reads_on`, a page is read as soon as a log begins, as a subscription does: `read_on` has the answers.
    """

    broker: Broker
    lab: Lab
    openings: list[Opening] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    answers: list[list[Outcome]] = field(default_factory=list)
    events: list[tuple[str, int]] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    holes: list[tuple[int, int]] = field(default_factory=list)
    confirmed: dict[str, int] = field(default_factory=dict)
    unready: str | None = None
    failures: list[str] = field(default_factory=list)
    head: int = 0
    reads_on: bool = False
    read_on: list[Page | Refusal] = field(default_factory=list)
    due: list[Callable[[], None]] = field(default_factory=list)
    others: list[BrokerBench] = field(default_factory=list)  # on the same log; stopped with this one

    # -- the sink

    def begin(self, opening: Opening, /) -> None:
        """Begin with a log."""
        self.openings.append(opening)
        self.confirmed.clear()
        self.head = opening.head
        self.events.append(("begin", opening.head))
        if self.reads_on:
            read = partial(self.broker.read, ("a",), EARLIEST, ENOUGH, ENOUGH, self.read_on.append)
            try:
                asyncio.get_running_loop().call_soon(read)  # at the end of the turn, as the core does
            except RuntimeError:
                self.due.append(read)  # a broker without a loop ends its turn when it is next waited for

    def receive(self, messages: Sequence[Message], /) -> None:
        """Record the messages."""
        self.messages.extend(messages)
        self.events.extend(("sink", message.seq) for message in messages)
        self.head = max(self.head, *(message.seq for message in messages))

    def advance(self, seq: int, /) -> None:
        """Record the head."""
        self.head = max(self.head, seq)

    def skip(self, seq: int, /) -> None:
        """Record the range that is not delivered."""
        self.skipped.append(seq)
        self.head = max(self.head, seq)

    def hole(self, before: int, after: int, /) -> None:
        """Record the range that may be lost."""
        self.holes.append((before, after))
        self.events.append(("hole", after))
        self.head = max(self.head, after)

    def wanted(self, channels: Sequence[str], seq: int, /) -> None:
        """Record the channels that are delivered from here on."""
        self.confirmed.update(dict.fromkeys(channels, seq))

    def away(self, reason: str, /) -> None:
        """Record why the broker is not ready."""
        self.unready = reason

    def back(self) -> None:
        """Record that the broker is ready."""
        self.unready = None

    def fail(self, reason: str, /) -> None:
        """Record the failure."""
        self.failures.append(reason)

    # -- what the checks do

    @property
    def opening(self) -> Opening:
        """The opening that the broker began with."""
        return self.openings[-1]

    def start(self) -> None:
        """Start the broker."""
        self.lab.driver.run(self.broker.start(self))
        expect(bool(self.openings), "`begin` is called before `start` returns", self.events)

    def stop(self) -> None:
        """Stop the broker."""
        self.lab.driver.run(self.broker.stop())

    def want(self, *channels: str) -> None:
        """Want channels, and wait until they are delivered."""
        self.broker.want(channels)
        if self.broker.capabilities.only_wanted:
            self.wait(lambda: all(channel in self.confirmed for channel in channels))
            missing = [channel for channel in channels if channel not in self.confirmed]
            expect(not missing, "each wanted channel is confirmed", missing)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Run the broker until the condition holds."""
        while self.due:
            self.due.pop(0)()
        self.lab.driver.wait(condition)

    def send(self, *drafts: Draft) -> list[Outcome]:
        """Publish a batch, and return the list that its outcomes are added to."""
        number = len(self.answers)
        answer: list[Outcome] = []
        called = 0

        def done(outcomes: Sequence[Outcome]) -> None:
            nonlocal called
            called += 1
            expect(called == 1, "done is called exactly once for each publish", called)
            expect(len(drafts) == len(outcomes), "done gets one outcome for each draft", outcomes)
            answer.extend(outcomes)
            self.events.append(("done", number))

        self.answers.append(answer)
        self.broker.publish(drafts, done)
        return answer

    def publish(self, *drafts: Draft) -> list[Outcome]:
        """Publish a batch, wait for its outcomes, and return them."""
        done = ("done", len(self.answers))
        answer = self.send(*drafts)
        self.wait(lambda: done in self.events)
        expect(done in self.events, "done is called for each publish", self.events)
        return answer

    def ask(self, channels: str, start: Start, limit: int = ENOUGH, max_bytes: int = ENOUGH) -> Page | Refusal | None:
        """Read channels of one letter each, and return the answer. None where the broker has no history."""
        return self.ask_names(tuple(channels), start, limit, max_bytes)

    def ask_names(
        self, channels: Sequence[str], start: Start, limit: int = ENOUGH, max_bytes: int = ENOUGH
    ) -> Page | Refusal | None:
        """Do as `ask`, for channels of any name."""
        answers: list[Page | Refusal] = []
        if not self.broker.capabilities.history:
            return None
        self.broker.read(channels, start, limit, max_bytes, answers.append)
        self.wait(lambda: bool(answers))
        expect(len(answers) == 1, "a read is answered exactly once", answers)
        return answers[0]

    def page(self, channels: str, start: Start, limit: int = ENOUGH, max_bytes: int = ENOUGH) -> Page | None:
        """Do as `ask`, and expect a page."""
        answer = self.ask(channels, start, limit, max_bytes)
        expect(not isinstance(answer, Refusal), "a read of what there is is answered with a page", answer)
        return answer if isinstance(answer, Page) else None

    def after(self, seq: int) -> Start:
        """Return the start after a number."""
        return Start(StartKind.CURSOR, Cursor(self.opening.epoch, seq))

    def kept(self, channels: Sequence[str], page: Page, after: int) -> list[Message]:
        """Return the messages delivered on the channels after a number, without those that the page's marks trim."""
        trimmed = {name: max(after, mark.seq) for name, mark in page.marks.items()}
        return [m for m in self.messages if m.channel in channels and m.seq > trimmed.get(m.channel, after)]

    def receipts(self, *drafts: Draft) -> list[Receipt]:
        """Publish a batch, expect that it is accepted, and return its receipts."""
        outcomes = self.publish(*drafts)
        receipts = [outcome for outcome in outcomes if isinstance(outcome, Receipt)]
        expect(len(receipts) == len(outcomes), "a valid draft is answered with a receipt", outcomes)
        return receipts

    def more(self, *channels: str) -> BrokerBench:
        """Return a started bench of one more node on the same log, which wants these channels."""
        other = BrokerBench(self.lab.make(), self.lab)
        self.others.append(other)
        other.start()
        other.want(*channels)
        return other

    def seqs(self, *channels: str) -> list[int]:
        """Return the delivered numbers, of some channels or of all."""
        return [message.seq for message in self.messages if not channels or message.channel in channels]


def expect(held: bool, clause: str, seen: object) -> None:
    """Raise `BrokerFailed` with the clause unless `held`. Checks in other packages may use it too."""
    if not held:
        raise BrokerFailed(f"{clause}; seen: {seen!r}")


__all__ = ["DURABILITIES", "ENOUGH", "BrokerBench", "BrokerFailed", "Lab", "expect"]

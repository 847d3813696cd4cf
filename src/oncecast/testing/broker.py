"""The contract that every broker must keep, as checks that anybody can run over their own: `check_broker`.

A check is a function of one `Bench`, a broker that is open and records what it delivers and how it answers. `CHECKS`
holds them by name, so that pytest can show each as a test of its own:

    @pytest.mark.parametrize("name", CHECKS)
    def test_contract(name): check_broker(factory, name)

To add a clause to the contract, write a check and put it into `CHECKS`. The checks are plain asserts and need no
plugin; a failed one raises `BrokerFailed`, whose text is the clause.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..brokers.base import Broker, Outcome
from ..errors import OncecastError, Refusal
from ..message import Cursor, Draft, Kind, Message, Receipt

DURABILITIES = frozenset({"memory", "process", "broker", "fsync"})

Settle = Callable[[Callable[[], bool]], None]


class BrokerFailed(OncecastError):
    """A broker breaks its contract. The text is the clause, and what was seen instead."""


@dataclass(slots=True)
class Bench:
    """A broker and what it did: its sink. `events` holds `("sink", seq)` and `("done", number)` in the order seen."""

    broker: Broker
    settle: Settle
    messages: list[Message] = field(default_factory=list)
    answers: list[list[Outcome]] = field(default_factory=list)
    events: list[tuple[str, int]] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def receive(self, messages: Sequence[Message], /) -> None:
        """Take what the broker delivers."""
        self.messages.extend(messages)
        self.events.extend(("sink", message.seq) for message in messages)

    def skip(self, seq: int, /) -> None:
        """Take note of what is not delivered."""
        self.skipped.append(seq)

    def fail(self, reason: str, /) -> None:
        """Take note of the end."""
        self.failures.append(reason)

    def publish(self, *drafts: Draft) -> list[Outcome]:
        """Publish a batch and return its outcomes, once they have come."""
        number = len(self.answers)
        answer: list[Outcome] = []
        called = 0

        def done(outcomes: Sequence[Outcome]) -> None:
            nonlocal called
            called += 1
            answer.extend(outcomes)
            self.events.append(("done", number))

        self.answers.append(answer)
        self.broker.publish(drafts, done)
        self.settle(lambda: called > 0)
        expect(called == 1, "done is called exactly once for each publish", called)
        expect(len(drafts) == len(answer), "done gets one outcome for each draft", answer)
        return answer

    def receipts(self, *drafts: Draft) -> list[Receipt]:
        """Publish a batch that must be taken, and return its receipts."""
        outcomes = self.publish(*drafts)
        receipts = [outcome for outcome in outcomes if isinstance(outcome, Receipt)]
        expect(len(receipts) == len(outcomes), "a valid draft is answered with a receipt", outcomes)
        return receipts


Check = Callable[[Bench], None]


def check_broker(factory: Callable[[], Broker], name: str | None = None, *, settle: Settle | None = None) -> None:
    """Hold a broker to the contract, or to the one clause of it that `name` says. Raises `BrokerFailed`.

    `factory` makes a fresh broker, not yet open, for each check; the check closes it. A broker that answers later is
    given `settle`, which runs the loop until the condition it is handed holds, or a time has passed.
    """
    for check in CHECKS.values() if name is None else (CHECKS[name],):
        bench = Bench(factory(), settle or _at_once)
        bench.broker.open(bench)
        try:
            check(bench)
        finally:
            bench.broker.close()


# -- the clauses


def names_itself(bench: Bench) -> None:
    """The epoch makes cursors that can be read back, and the durability is one that the wire knows."""
    cursor = Cursor(bench.broker.epoch, 1)
    try:
        read = Cursor.parse(str(cursor))
    except Refusal:
        read = None
    expect(cursor == read, "an epoch is 1 to 32 of [A-Za-z0-9_]", bench.broker.epoch)
    expect(bench.broker.durability in DURABILITIES, "a durability is one of the wire's", bench.broker.durability)


def numbers_what_it_appends(bench: Bench) -> None:
    """Messages of every channel are numbered upwards, along the shard, and their receipts say the number."""
    receipts = [r for n in range(5) for r in bench.receipts(Draft(f"c{n % 2}", b"%d" % n))]
    seqs = [receipt.seq for receipt in receipts]
    expect(seqs == sorted(set(seqs)) and seqs[0] > 0, "each message has a higher number than the one before", seqs)
    expect({bench.broker.epoch} == {r.epoch for r in receipts}, "a receipt is of the broker's epoch", receipts)
    expect({bench.broker.durability} == {r.durability for r in receipts}, "a receipt tells the durability", receipts)


def keeps_the_order(bench: Bench) -> None:
    """What was published in one order reaches the sink in that order, batches included."""
    published = [b"%d" % n for n in range(20)]
    for at in range(0, 20, 4):
        bench.receipts(*(Draft("c", data) for data in published[at : at + 4]))
    expect(published == [m.data for m in bench.messages], "the sink gets messages as published", bench.messages)
    seqs = [message.seq for message in bench.messages]
    expect(seqs == sorted(set(seqs)), "the sink gets messages in the order of their numbers", seqs)


def delivers_its_own(bench: Bench) -> None:
    """A broker's own publishes reach its sink whole: channel, data, kind and event as they were, the key left out."""
    drafts = [
        Draft("a", b'{"n":1}', Kind.JSON, "made"),
        Draft("b:1", "wörds\r\n".encode(), Kind.TEXT, None),
        Draft("c@x", b"\x00\xff\r\n", Kind.BINARY, "ünt", key="k"),
        Draft("d", b"", Kind.BINARY),
    ]
    receipts = bench.receipts(*drafts)
    sent = [(r.seq, d.channel, d.data, d.kind, d.event) for r, d in zip(receipts, drafts, strict=True)]
    seen = [(m.seq, m.channel, m.data, m.kind, m.event) for m in bench.messages]
    expect(sent == seen, "a message is what was published, under its receipt's number", seen)


def delivers_before_it_answers(bench: Bench) -> None:
    """A message reaches the sink before its publisher hears that it is in the log."""
    receipts = bench.receipts(Draft("c", b"1"), Draft("c", b"2"))
    expected = [*(("sink", receipt.seq) for receipt in receipts), ("done", 0)]
    expect(expected == bench.events, "the sink is called before done", bench.events)


def answers_in_order(bench: Bench) -> None:
    """The outcomes of a batch stand in the order of its drafts, repeated ones among them."""
    (first,) = bench.receipts(Draft("c", b"1", key="k"))
    outcomes = bench.receipts(Draft("c", b"2"), Draft("c", b"again", key="k"), Draft("c", b"3"))
    expect(first == outcomes[1], "a repeated draft is answered in its place", outcomes)
    expect(outcomes[0].seq < outcomes[2].seq, "a batch is appended in order", outcomes)
    expect([m.data for m in bench.messages] == [b"1", b"2", b"3"], "a repeat is not appended", bench.messages)


def answers_nothing_to_nothing(bench: Bench) -> None:
    """A batch of no drafts is answered with no outcomes, and delivers nothing."""
    bench.publish()
    expect(bench.messages == [], "an empty batch delivers nothing", bench.messages)


def appends_a_key_once(bench: Bench) -> None:
    """The same key on the same channel is one message, with one receipt, however often it comes and with what data."""
    receipts = [r for n in range(3) for r in bench.receipts(Draft("c", b"%d" % n, key="k"))]
    expect(len(set(receipts)) == 1, "a repeated publish gets the first receipt", receipts)
    expect([m.data for m in bench.messages] == [b"0"], "a repeated publish is appended once", bench.messages)


def keeps_keys_apart(bench: Bench) -> None:
    """The same key on another channel, and another key on the same, is another message."""
    drafts = [Draft("a", b"1", key="k"), Draft("b", b"2", key="k"), Draft("a", b"3", key="K"), Draft("a", b"4")]
    receipts = bench.receipts(*drafts)
    expect(len({receipt.seq for receipt in receipts}) == 4, "a key belongs to its channel", receipts)
    expect([d.data for d in drafts] == [m.data for m in bench.messages], "each of them is appended", bench.messages)


def appends_a_key_once_in_a_batch(bench: Bench) -> None:
    """A key that a batch holds twice is one message."""
    first, other, second = bench.receipts(
        Draft("c", b"1", key="k"), Draft("d", b"2", key="k"), Draft("c", b"3", key="k")
    )
    expect(first == second and other != first, "a key counts inside its own batch too", (first, other, second))
    expect([m.data for m in bench.messages] == [b"1", b"2"], "it is appended once", bench.messages)


def times_never_go_back(bench: Bench) -> None:
    """A message's time is in Unix seconds and never before an earlier message's."""
    for n in range(5):
        bench.receipts(Draft(f"c{n % 2}", b"%d" % n))
    times = [message.time for message in bench.messages]
    expect(times == sorted(times), "times never decrease along a shard", times)
    expect(times[0] >= 0, "a time is in Unix seconds", times)


def refuses_once_closed(bench: Bench) -> None:
    """A closed broker answers every draft with `unavailable`, delivers nothing, and may be closed again."""
    bench.broker.close()
    outcomes = bench.publish(Draft("c", b"1"), Draft("c", b"2"))
    codes = [outcome.code if isinstance(outcome, Refusal) else "taken" for outcome in outcomes]
    expect(codes == ["unavailable"] * 2, "a closed broker refuses with `unavailable`", outcomes)
    expect(bench.messages == [], "a closed broker delivers nothing", bench.messages)


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        names_itself,
        numbers_what_it_appends,
        keeps_the_order,
        delivers_its_own,
        delivers_before_it_answers,
        answers_in_order,
        answers_nothing_to_nothing,
        appends_a_key_once,
        keeps_keys_apart,
        appends_a_key_once_in_a_batch,
        times_never_go_back,
        refuses_once_closed,
    )
}


# -- helpers


def expect(held: bool, clause: str, seen: object) -> None:
    """Raise `BrokerFailed` with the clause unless it held. For checks written elsewhere, too."""
    if not held:
        raise BrokerFailed(f"{clause}; seen: {seen!r}")


def _at_once(condition: Callable[[], bool]) -> None:
    """Settle a broker that answers before `publish` returns."""


__all__ = ["CHECKS", "Bench", "BrokerFailed", "check_broker", "expect"]

"""The contract that every broker must keep, as checks that anybody can run over their own: `check_broker`.

A check is a function of one `Bench`, a broker that is started and records what it delivers and how it answers. `CHECKS`
holds them by name, so that pytest can show each as a test of its own:

    @pytest.mark.parametrize("name", CHECKS)
    def test_contract(name): check_broker(lambda: Lab(make), name)

A `Lab` is one log: `make` returns a broker for one more node on it. A broker that answers later is given a `driver`
that runs its loop. What only the log's owner can do, such as to put an empty log in its place, is a hook of the lab; a
clause whose hook is missing, or that is about what the broker's capabilities rule out, has nothing to hold.

What a broker trims while it is checked is left out of what is expected, by the marks that its pages have.

To add a clause to the contract, write a check and put it into `CHECKS`. The checks are plain asserts and need no
plugin; a failed one raises `BrokerFailed`, whose text is the clause.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ..brokers.base import Broker, Opening, Outcome
from ..errors import OncecastError, Refusal
from ..message import EARLIEST, LATEST, Cursor, Draft, Kind, Message, Page, Receipt, Start, StartKind
from .driver import AtOnce, Driver

ENOUGH = 1 << 30
DURABILITIES = frozenset({"memory", "process", "broker", "fsync"})


class BrokerFailed(OncecastError):
    """A broker breaks its contract. The text is the clause, and what was seen instead."""


@dataclass(slots=True)
class Lab:
    """One log, empty unless a test has put something there, and how brokers on it are made and run.

    `make` returns a broker for one more node, not started. `renew` empties the log under another epoch, `lose` loses
    its newest acknowledged messages as an unclean failover may, `damage` puts a record into it that is no message; each
    is called while the brokers run, and they have to notice by themselves. `close` is called at the end.
    """

    make: Callable[[], Broker]
    driver: Driver = field(default_factory=AtOnce)
    renew: Callable[[], None] | None = None
    lose: Callable[[], None] | None = None
    damage: Callable[[], None] | None = None
    close: Callable[[], None] = lambda: None


@dataclass(slots=True)
class Bench:
    """A broker and what it did: its sink. `events` holds what was called, in the order seen, with its number."""

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

    # -- the sink

    def begin(self, opening: Opening, /) -> None:
        """Begin with a log."""
        self.openings.append(opening)
        self.confirmed.clear()
        self.head = opening.head
        self.events.append(("begin", opening.head))

    def receive(self, messages: Sequence[Message], /) -> None:
        """Take what the broker delivers."""
        self.messages.extend(messages)
        self.events.extend(("sink", message.seq) for message in messages)
        self.head = max(self.head, *(message.seq for message in messages))

    def advance(self, seq: int, /) -> None:
        """Take note of the head."""
        self.head = max(self.head, seq)

    def skip(self, seq: int, /) -> None:
        """Take note of what is not delivered."""
        self.skipped.append(seq)
        self.head = max(self.head, seq)

    def hole(self, before: int, after: int, /) -> None:
        """Take note of what may be lost."""
        self.holes.append((before, after))
        self.events.append(("hole", after))
        self.head = max(self.head, after)

    def wanted(self, channels: Sequence[str], seq: int, /) -> None:
        """Take note of what is delivered from here on."""
        self.confirmed.update(dict.fromkeys(channels, seq))

    def away(self, reason: str, /) -> None:
        """Take note of why it is not ready."""
        self.unready = reason

    def back(self) -> None:
        """Take note that it is ready."""
        self.unready = None

    def fail(self, reason: str, /) -> None:
        """Take note of the end."""
        self.failures.append(reason)

    # -- what the checks do

    @property
    def opening(self) -> Opening:
        """The log as it began."""
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
        self.lab.driver.wait(condition)

    def send(self, *drafts: Draft) -> list[Outcome]:
        """Publish a batch, and return where its outcomes will be."""
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
        """Publish a batch and return its outcomes, once they have come."""
        done = ("done", len(self.answers))
        answer = self.send(*drafts)
        self.wait(lambda: done in self.events)
        expect(done in self.events, "done is called for each publish", self.events)
        return answer

    def ask(self, channels: str, start: Start, limit: int = ENOUGH, max_bytes: int = ENOUGH) -> Page | Refusal | None:
        """Read channels with a letter each, and return the answer once it has come; None where there is no history."""
        return self.ask_names(tuple(channels), start, limit, max_bytes)

    def ask_names(
        self, channels: Sequence[str], start: Start, limit: int = ENOUGH, max_bytes: int = ENOUGH
    ) -> Page | Refusal | None:
        """Do as `ask`, with channels of any name."""
        answers: list[Page | Refusal] = []
        if not self.broker.capabilities.history:
            return None
        self.broker.read(channels, start, limit, max_bytes, answers.append)
        self.wait(lambda: bool(answers))
        expect(len(answers) == 1, "a read is answered exactly once", answers)
        return answers[0]

    def page(self, channels: str, start: Start, limit: int = ENOUGH, max_bytes: int = ENOUGH) -> Page | None:
        """Do as `ask` does, where the answer must be a page."""
        answer = self.ask(channels, start, limit, max_bytes)
        expect(not isinstance(answer, Refusal), "a read of what there is is answered with a page", answer)
        return answer if isinstance(answer, Page) else None

    def after(self, seq: int) -> Start:
        """Return the start after a number."""
        return Start(StartKind.CURSOR, Cursor(self.opening.epoch, seq))

    def kept(self, channels: Sequence[str], page: Page, after: int) -> list[Message]:
        """Return what was delivered of the channels after a number, and is not trimmed as the page says."""
        trimmed = {name: max(after, mark.seq) for name, mark in page.marks.items()}
        return [m for m in self.messages if m.channel in channels and m.seq > trimmed.get(m.channel, after)]

    def receipts(self, *drafts: Draft) -> list[Receipt]:
        """Publish a batch that must be taken, and return its receipts."""
        outcomes = self.publish(*drafts)
        receipts = [outcome for outcome in outcomes if isinstance(outcome, Receipt)]
        expect(len(receipts) == len(outcomes), "a valid draft is answered with a receipt", outcomes)
        return receipts

    def more(self) -> Bench:
        """Return a bench of one more node on the same log, started."""
        other = Bench(self.lab.make(), self.lab)
        other.start()
        return other


Check = Callable[[Bench], None]

CHANNELS = ("a", "b", "c", "d", "x", "c0", "c1", "b:1", "c@x")  # that the clauses publish to


def check_broker(factory: Callable[[], Lab], name: str | None = None) -> None:
    """Hold a broker to the contract, or to the one clause of it that `name` says. Raises `BrokerFailed`.

    `factory` makes a fresh lab for each check; the check stops what it has started, and closes the lab.
    """
    for check in CHECKS.values() if name is None else (CHECKS[name],):
        lab = factory()
        try:
            bench = Bench(lab.make(), lab)
            try:
                bench.start()
                bench.want(*CHANNELS)
                check(bench)
            finally:
                bench.stop()
        finally:
            lab.close()


# -- the clauses


def names_itself(bench: Bench) -> None:
    """The epoch makes cursors that can be read back, and the durability is one that the wire knows."""
    cursor = Cursor(bench.opening.epoch, 1)
    try:
        read = Cursor.parse(str(cursor))
    except Refusal:
        read = None
    expect(cursor == read, "an epoch is 1 to 32 of [A-Za-z0-9_]", bench.opening.epoch)
    expect(
        bench.broker.capabilities.durability in DURABILITIES,
        "a durability is one of the wire's",
        bench.broker.capabilities.durability,
    )


def numbers_what_it_appends(bench: Bench) -> None:
    """Messages of every channel are numbered upwards, along the shard, and their receipts say the number."""
    receipts = [r for n in range(5) for r in bench.receipts(Draft(f"c{n % 2}", b"%d" % n))]
    seqs = [receipt.seq for receipt in receipts]
    expect(seqs == sorted(set(seqs)) and seqs[0] > 0, "each message has a higher number than the one before", seqs)
    expect({bench.opening.epoch} == {r.epoch for r in receipts}, "a receipt is of the broker's epoch", receipts)
    expect(
        {bench.broker.capabilities.durability} == {r.durability for r in receipts},
        "a receipt tells the durability",
        receipts,
    )


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
    expect(expected == bench.events[1:], "the sink is called before done", bench.events)


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
    bench.stop()
    outcomes = bench.publish(Draft("c", b"1"), Draft("c", b"2"))
    codes = [outcome.code if isinstance(outcome, Refusal) else "taken" for outcome in outcomes]
    expect(codes == ["unavailable"] * 2, "a closed broker refuses with `unavailable`", outcomes)
    expect(bench.messages == [], "a closed broker delivers nothing", bench.messages)


def reads_what_it_delivered(bench: Bench) -> None:
    """From any cursor a page has what was delivered after it, in order and whole, up to the limit, and says how far."""
    seqs = [0, *_publish_over_channels(bench)]
    for channels in ("a", "ab", "cba", "x"):
        for seq in (*seqs, seqs[-1] + 1_000):
            for limit in (0, 1, 3, ENOUGH):
                page = bench.page(channels, bench.after(seq), limit)
                if page is None:
                    return
                after = min(seq, seqs[-1])
                kept = bench.kept(channels, page, after)
                expect(page.after == after, "a page begins at its cursor, or at the head before it", page)
                expect(page.messages == kept[:limit], "a page has what was delivered after its cursor", page)
                upto = after if limit == 0 else seqs[-1] if len(kept) <= limit else kept[limit - 1].seq
                expect(page.upto == upto, "a page says up to where it has all there is", page)
                expect(set(page.marks) == set(channels), "a page has the mark of each of its channels", page)
                trimmed = [name for name, mark in page.marks.items() if mark.seq > seqs[-1]]
                expect(not trimmed, "a mark is the number of a message", page)


def reads_on_page_by_page(bench: Bench) -> None:
    """Who reads on where each page ends gets each message once, until nothing is left."""
    _publish_over_channels(bench)
    found: list[Message] = []
    seq = 0
    while (page := bench.page("abc", bench.after(seq), 4)) and page.messages:
        expect(page.upto > seq, "a page moves its reader on", page)
        found.extend(page.messages)
        seq = page.upto
    if page is not None:
        expect(found == bench.kept("abc", page, 0), "pages follow one another without a loss or a repeat", found)


def bounds_a_page_by_bytes(bench: Bench) -> None:
    """A page has as many messages as fit in its bytes, and at least one, however large."""
    bench.receipts(*(Draft("a", bytes(100), Kind.BINARY) for _ in range(5)))
    for max_bytes, count in ((1, 1), (100, 1), (250, 2), (300, 3), (ENOUGH, 5)):
        page = bench.page("a", bench.after(0), max_bytes=max_bytes)
        if page is not None:
            expected = bench.kept("a", page, 0)[:count]
            expect(page.messages == expected, "a page holds what fits, or one message", (max_bytes, page))
            expect(page.upto == expected[-1].seq, "a page that is full ends with its last message", page)


def finds_every_start(bench: Bench) -> None:
    """The earliest, the latest, the last so many and those since a time begin right before what they name."""
    _publish_over_channels(bench)
    head = bench.messages[-1].seq
    for channels in ("a", "bc", "x"):
        for start in (LATEST, EARLIEST, *(Start(StartKind.LAST, number=n) for n in (0, 1, 3, 100))):
            page = bench.page(channels, start)
            if page is None:
                return
            kept = bench.kept(channels, page, 0)
            if start.kind is not StartKind.EARLIEST:
                count = int(start.number)
                newest = {name: [m.seq for m in kept if m.channel == name][::-1][:count] for name in channels}
                kept = [message for message in kept if message.seq in newest[message.channel]]
                if start.kind is StartKind.LAST:
                    floors = {name: min(seqs, default=head + 1) - 1 for name, seqs in newest.items()}
                    expect(dict(page.floors) == floors, "`last` has the floor of each channel", page)
                    above = tuple(page.floors[name] for name in channels)
                    again = bench.page(channels, replace(bench.after(page.after), floors=above))
                    assert again is not None
                    expect(again.messages == kept, "a read with floors leaves out what is not above them", again)
            after = kept[0].seq - 1 if kept else head
            expect((page.after, page.messages) == (after, kept), f"`{start.kind.value}` begins where it says", page)
        for time in {0.0, *(m.time for m in bench.messages), bench.messages[-1].time + 1}:
            page = bench.page(channels, Start(StartKind.SINCE, number=time))
            assert page is not None
            expected = [message for message in bench.kept(channels, page, 0) if message.time >= time]
            expect(page.messages == expected, "`since` begins with the first message of that time", (time, page))


def opens_where_it_stands(bench: Bench) -> None:
    """An opening's newest messages are the end of the log, and what is delivered goes on from its head."""
    opening = bench.opening
    seqs = [message.seq for message in opening.recent]
    expect(seqs == sorted(set(seqs)), "the recent messages are in order", seqs)
    expect(opening.floor.seq <= opening.head, "the floor is not above the head", opening)
    expect(all(opening.floor.seq < n <= opening.head for n in seqs), "they are between the floor and the head", opening)
    channels = "".join(sorted({message.channel for message in opening.recent}))
    page = bench.page(channels, bench.after(opening.floor.seq)) if channels else None
    if page is not None:
        expect(page.messages == list(opening.recent), "they are what a read after the floor gives", page)
        told = {name: mark for name, mark in page.marks.items() if mark.seq > opening.floor.seq}
        expect(told == dict(opening.marks), "the marks are those above the floor", opening.marks)
    (receipt,) = bench.receipts(Draft("a", b"1"))
    expect(receipt.seq > opening.head, "what is published is after the head", receipt)


def refuses_reads_once_closed(bench: Bench) -> None:
    """A closed broker answers a read with `unavailable`."""
    bench.receipts(Draft("a", b"1"))
    bench.stop()
    answer = bench.ask("a", EARLIEST)
    refused = answer is None or (isinstance(answer, Refusal) and answer.code == "unavailable")
    expect(refused, "a closed broker refuses to read with `unavailable`", answer)


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
        reads_what_it_delivered,
        reads_on_page_by_page,
        bounds_a_page_by_bytes,
        finds_every_start,
        opens_where_it_stands,
        refuses_reads_once_closed,
    )
}


# -- helpers


def _publish_over_channels(bench: Bench) -> list[int]:
    drafts = [Draft("abc"[n * n % 3], b"%d" % n, Kind.JSON, "made" if n % 2 else None) for n in range(14)]
    drafts[5] = Draft("c", b"5", Kind.TEXT)
    return [receipt.seq for at in (0, 5, 10) for receipt in bench.receipts(*drafts[at : at + 5])]


def expect(held: bool, clause: str, seen: object) -> None:
    """Raise `BrokerFailed` with the clause unless it held. For checks written elsewhere, too."""
    if not held:
        raise BrokerFailed(f"{clause}; seen: {seen!r}")


__all__ = ["CHECKS", "Bench", "BrokerFailed", "Lab", "check_broker", "expect"]

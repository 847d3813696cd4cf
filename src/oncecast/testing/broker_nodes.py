"""The clauses of the brokers' contract about several nodes on one log, and about changes of the log at run time."""

from __future__ import annotations

from ..brokers.meters import Meters
from ..message import Draft, Message, Page, Receipt
from .broker_bench import BrokerBench, expect

ROUNDS = 40


def shares_one_log(bench: BrokerBench) -> None:
    """Two nodes see the same messages in the same order, know each other's keys, and read each other's messages."""
    if not bench.broker.capabilities.shared:
        return
    other = bench.more("a", "b")
    for n in range(ROUNDS):
        at = (bench, other)[n % 2]
        at.receipts(Draft("ab"[n % 3 % 2], b"%d" % n, key=f"k{n}"))
    (first,) = bench.receipts(Draft("a", b"keyed", key="k"))
    (again,) = other.receipts(Draft("a", b"again", key="k"))
    expect(first == again, "a key is known to every node", (first, again))
    _wait_for(bench, other)
    expect(bench.messages == other.messages, "every node sees one order", (bench.seqs(), other.seqs()))
    expect(bench.opening.epoch == other.opening.epoch, "every node names the log alike", other.opening)
    for _ in range(ROUNDS if bench.broker.capabilities.history else 0):
        (receipt,) = bench.receipts(Draft("a", b"ahead"))
        page = other.page("a", other.after(receipt.seq))
        expect(page is not None and page.after == receipt.seq, "a node knows each cursor of another", (receipt, page))
    _wait_for(bench, other)
    third = bench.more("a", "b")
    pages = [node.page("ab", node.after(0)) for node in (bench, other, third)]
    expect(
        all(page is None or page.messages == pages[0].messages for page in pages if pages[0]), "and reads alike", pages
    )
    (late,) = other.receipts(Draft("a", b"late"))
    _wait_for(other, third)
    expect(third.seqs()[-1:] == [late.seq], "a node that comes later hears what comes then", third.seqs())
    expect(all(n > third.opening.head for n in third.seqs()), "and nothing from before its opening", third.seqs())


def follows_without_a_hole(bench: BrokerBench) -> None:
    """While other nodes publish, a node gets each message once and in order; the history has those that it skips."""
    if not bench.broker.capabilities.shared:
        return
    writer, reader = bench.more("a"), bench.more("a")
    answers = [
        node.send(Draft("a", b"%d" % n), Draft("a", b"-")) for n in range(ROUNDS * 5) for node in (bench, writer)
    ]
    bench.wait(lambda: all(answers))
    seqs = sorted(outcome.seq for answer in answers for outcome in answer if isinstance(outcome, Receipt))
    expect(len(seqs) == len(answers) * 2, "each publish is taken", len(seqs))
    bench.wait(lambda: all(node.head >= seqs[-1] for node in (bench, writer, reader)))
    for node in (bench, writer, reader):
        found = _with_history(node, "a")
        expect([message.seq for message in found] == seqs, "each message is there once, in order", node.seqs()[:10])


def delivers_what_is_wanted(bench: BrokerBench) -> None:
    """A channel that is wanted during publishes to it is delivered from the confirmed number on, without a hole."""
    if not bench.broker.capabilities.shared:
        return
    other = bench.more()
    answers = [bench.send(Draft("a", b"%d" % n)) for n in range(ROUNDS)]
    other.broker.want(("a",))
    answers += [bench.send(Draft("a", b"%d" % n)) for n in range(ROUNDS)]
    bench.wait(lambda: all(answers))
    other.want("a")
    (last,) = bench.receipts(Draft("a", b"last"))
    other.wait(lambda: other.head >= last.seq)
    start = other.confirmed.get("a", other.opening.head)
    delivered = [seq for seq in other.seqs("a") if seq > start]
    expected = [seq for seq in bench.seqs("a") if seq > start]
    expect(delivered == expected, "each message above the number that was confirmed is delivered", (start, delivered))
    found = [message.seq for message in _with_history(other, "a")]
    expect(found == bench.seqs("a"), "what is below it is in the history", found)
    expect(other.seqs() == sorted(set(other.seqs())), "nothing is delivered twice", other.seqs())


def advances_without_a_message(bench: BrokerBench) -> None:
    """The head of a node moves with the log, also past messages of channels that the node does not want."""
    if not bench.broker.capabilities.shared:
        return
    other = bench.more("b")
    (receipt,) = bench.receipts(Draft("a", b"1"))
    other.wait(lambda: other.head >= receipt.seq)
    expect(other.head >= receipt.seq, "the head moves without a message", (other.head, receipt))
    if other.broker.capabilities.only_wanted:
        expect(other.messages == [], "what is not wanted is not delivered", other.messages)
        other.want("a")
        bench.receipts(Draft("a", b"2"))
        other.wait(lambda: bool(other.messages))
        other.broker.unwant(("a",))
        expect([m.data for m in other.messages] == [b"2"], "what is wanted is delivered", other.messages)


def tells_of_another_log(bench: BrokerBench) -> None:
    """An emptied log begins again with another epoch; the wanted channels are confirmed and delivered in it.

    Who reads on as soon as it begins is answered with a page.
    """
    if bench.lab.renew is None:
        return
    bench.receipts(*(Draft("a", b"old") for _ in range(5)))
    before = bench.opening.epoch
    bench.reads_on = bench.broker.capabilities.history
    bench.lab.renew()
    bench.wait(lambda: bench.opening.epoch != before and bench.unready is None)
    expect(bench.opening.epoch != before, "another log has another epoch", bench.openings)
    bench.wait(lambda: bool(bench.read_on) or not bench.reads_on)
    answered = all(isinstance(answer, Page) for answer in bench.read_on)
    expect(answered, "a page that is asked for when a log begins is read", bench.read_on)
    bench.want(*(("a",) if not bench.broker.capabilities.only_wanted else ()))
    bench.wait(lambda: not bench.broker.capabilities.only_wanted or "a" in bench.confirmed)
    bench.messages.clear()
    receipt = _publish_until_taken(bench, Draft("a", b"new"))
    expect(receipt.epoch == bench.opening.epoch, "a receipt is of the new log", receipt)
    bench.wait(lambda: bool(bench.messages))
    expect([m.data for m in bench.messages] == [b"new"], "what is published then is delivered", bench.messages)
    page = bench.page("a", bench.after(0))
    expect(page is None or [m.data for m in page.messages] == [b"new"], "nothing of the old log is read", page)
    expect(bench.failures == [], "another log is not the end", bench.failures)


def tells_of_a_hole(bench: BrokerBench) -> None:
    """The sink gets a `hole` for lost messages; no number is assigned twice, and deliveries continue after it."""
    if bench.lab.lose is None:
        return
    old = [receipt.seq for n in range(5) for receipt in bench.receipts(Draft("a", b"%d" % n))]
    bench.lab.lose()
    bench.wait(lambda: bool(bench.holes) and bench.unready is None)
    expect(len(bench.holes) == 1, "a loss is one hole", bench.holes)
    (before, after), *_ = bench.holes
    page = bench.page("a", bench.after(0))
    assert page is not None
    kept = [message.seq for message in page.messages]
    expect(all(seq <= before for seq in kept), "what is left is before the hole", (bench.holes, kept))
    lost = [seq for seq in old if seq not in kept]
    expect(bool(lost) and all(before < seq < after for seq in lost), "what is lost is in the hole", (bench.holes, lost))
    receipt = _publish_until_taken(bench, Draft("a", b"new"))
    expect(receipt.seq > after, "what is published then has a number after the hole", (bench.holes, receipt))
    bench.wait(lambda: receipt.seq in bench.seqs())
    expect(bench.seqs()[-1] == receipt.seq, "and is delivered", bench.seqs())
    later = bench.more("a")
    covered = any(first <= before and after <= last for first, last in later.opening.holes)
    expect(covered, "a node that starts later knows the hole", later.opening.holes)
    expect(bench.failures == [], "a hole is not the end", bench.failures)


def goes_on_past_damage(bench: BrokerBench) -> None:
    """A record that is not a message is counted, neither delivered nor read, and the messages around it are."""
    if bench.lab.damage is None:
        return
    bench.receipts(Draft("a", b"1"))
    bench.lab.damage()
    bench.receipts(Draft("a", b"2"), Draft("b", b"3"))
    bench.wait(lambda: len(bench.messages) >= 3)
    expect(
        [m.data for m in bench.messages] == [b"1", b"2", b"3"], "what is no message is not delivered", bench.messages
    )
    page = bench.page("ab", bench.after(0))
    expect(page is None or page.messages == bench.messages, "nor is it on a page", page)
    meters = getattr(bench.broker, "meters", None)
    expect(isinstance(meters, Meters) and meters.foreign > 0, "it is counted", meters)
    other = bench.more("a", "b")
    bench.receipts(Draft("a", b"4"))
    other.wait(lambda: bool(other.messages))
    expect([m.data for m in other.messages] == [b"4"], "a node starts past it", other.messages)
    expect(bench.failures == other.failures == [], "it is not the end", (bench.failures, other.failures))


# -- helpers


def _wait_for(ahead: BrokerBench, behind: BrokerBench) -> None:
    """Wait until the second node has reached the head of the first."""
    behind.wait(lambda: behind.head >= ahead.messages[-1].seq)
    ahead.wait(lambda: ahead.head >= behind.head)


def _with_history(bench: BrokerBench, channel: str) -> list[Message]:
    """Return a channel's messages: those that were delivered, and the others from the history."""
    page = bench.page(channel, bench.after(0))
    if page is None:
        return [*bench.opening.recent, *bench.messages]
    found: list[Message] = []
    while page.messages:
        found.extend(page.messages)
        answer = bench.page(channel, bench.after(page.upto), 100)
        assert isinstance(answer, Page)
        page = answer
    delivered = [message for message in bench.messages if message.channel == channel]
    lacking = set(delivered) - set(found)
    expect(not lacking, "what was delivered is in the history", (lacking, found[-3:]))
    if bench.skipped or bench.broker.capabilities.only_wanted:
        return found
    first = delivered[0].seq if delivered else bench.head + 1
    return [message for message in found if message.seq < first] + delivered


def _publish_until_taken(bench: BrokerBench, draft: Draft) -> Receipt:
    """Publish, and try again while the broker is away, as a client does."""
    answer = bench.send(draft)

    def taken() -> bool:
        nonlocal answer
        if answer and not isinstance(answer[0], Receipt):
            answer = bench.send(draft)
        return bool(answer) and isinstance(answer[0], Receipt)

    bench.wait(taken)
    expect(taken(), "a broker that is back takes publishes", (bench.unready, answer))
    assert isinstance(answer[0], Receipt)
    return answer[0]

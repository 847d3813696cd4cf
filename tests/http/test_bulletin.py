"""What nodes tell each other: records in any order, damaged ones, and waits that end."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from oncecast.core.node import Node
from oncecast.errors import Refusal
from oncecast.http import bulletin
from oncecast.http.bulletin import Bulletin
from oncecast.http.roll import CALL_SECONDS, PresentProcess
from oncecast.message import INTERNAL, REVOCATIONS, TICKETS, Draft, LogGap, Reason, Receipt, check_channel
from oncecast.message import Cursor as Place
from oncecast.policy.identity import Identity
from oncecast.testing.carrier import memory_node
from oncecast.testing.clock import FakeClock, Turns

ANN = Identity("", "ann", "token", ("c",), (), 5.0, 2_000_000_000.0)


class Desk:
    """A node's end, with a clock of its own."""

    def __init__(self, clock: FakeClock, node: Node, turns: Turns) -> None:
        numbers = itertools.count(1)
        self.clock, self.node, self.turns = clock, node, turns
        self.ended: list[str] = []
        self.warned: list[str] = []
        self.results: list[Any] = []
        self.bulletin = Bulletin(
            node,
            clock.wall,
            clock.monotonic,
            lambda size: next(numbers).to_bytes(size, "big"),
            self.ended.append,
            self.warned.append,
            remember_seconds=1000.0,
        )
        self.after(0)

    def after(self, seconds: float) -> None:
        """Let time pass, with a tick, and deliver."""
        self.clock.advance(seconds)
        self.bulletin.tick()
        self.turns.run_all()

    def ticket(self) -> str:
        """Issue a ticket for ann."""
        issued: list[str | Refusal] = []
        self.bulletin.issue(ANN, issued.append)
        self.turns.run_all()
        assert isinstance(issued[0], str)
        return issued[0]

    def redeem(self, ticket: str) -> list[Any]:
        """Use a ticket, and return what has come of all uses by now."""
        self.bulletin.redeem(ticket, self.results.append)
        self.turns.run_all()
        return [each.code if isinstance(each, Refusal) else each for each in self.results]


@pytest.fixture
def desk() -> Desk:
    """A node's end, which has begun to read."""
    clock = FakeClock()
    return Desk(clock, *memory_node("e", clock))


def test_who_is_there(desk: Desk) -> None:
    """A call is answered by each process that has read it, but not one of long ago, nor while the broker is away."""
    me = PresentProcess("a:1", "m", 7, "1")
    desk.bulletin.roll.me = lambda: me
    assert [] == desk.bulletin.roll.look()
    desk.turns.run_all()
    assert [me] == desk.bulletin.roll.look()
    written = desk.bulletin.written
    desk.clock.advance(CALL_SECONDS)
    desk.node.unready = "the broker is away"
    desk.bulletin.roll.look()
    assert written == desk.bulletin.written
    desk.node.unready = None
    late = Bulletin(desk.node, lambda: desk.clock.wall() + 1000, desk.clock.monotonic, bytes, print, print)
    late.roll.me = pytest.fail
    late.tick()
    desk.turns.run_all()
    assert [] == late.roll.look()


def test_no_client_can_name_the_channels() -> None:
    """The internal channels' names are outside of the grammar that each name of a client is checked against."""
    for channel in INTERNAL:
        with pytest.raises(Refusal):
            check_channel(channel)


def test_a_ticket_is_used_once_and_within_its_time(desk: Desk) -> None:
    """A ticket grants what its identity may do, at the address of the request, once and until it expires."""
    first, late = desk.ticket(), desk.ticket()
    assert [ANN, "unauthorized"] == desk.redeem(first) + desk.redeem(first)[1:]
    desk.after(bulletin.TICKET_SECONDS)
    assert "unauthorized" == desk.redeem(late)[-1]


def test_the_log_has_no_ticket(desk: Desk) -> None:
    """A copy of the log opens nothing."""
    ticket = desk.ticket()
    assert not any(ticket.encode() in entry.message.data for entry in _entries(desk.node))


def _entries(node: Node) -> list[Any]:
    found: list[Any] = []
    from oncecast.message import EARLIEST

    node.poll(INTERNAL, EARLIEST, 100, lambda poll: found.extend(poll.entries))  # type: ignore[union-attr]
    assert found
    return found


def test_a_ticket_that_is_not_heard_of_yet(desk: Desk) -> None:
    """It is waited for; a text that is none is refused after two seconds, and causes no record."""
    head = desk.node.log.head
    assert [] == desk.redeem("ff" * 24)
    desk.after(1.9)
    assert [] == desk.results
    desk.after(0.1)
    assert ["unauthorized"] == [each.code for each in desk.results]
    assert head == desk.node.log.head
    next_one = (1).to_bytes(24, "big").hex()  # what this desk will issue first
    assert ["unauthorized"] == desk.redeem(next_one)
    assert next_one == desk.ticket()
    desk.after(0)
    assert ANN == desk.results[-1]


def test_another_node_was_first(desk: Desk) -> None:
    """The order of the log decides."""
    ticket = desk.ticket()
    digest = bulletin._digest(ticket)
    desk.node.publish((Draft(TICKETS, b'{"redeem":"%s","nonce":"theirs"}' % digest.encode()),), lambda outcomes: None)
    assert ["unauthorized"] == desk.redeem(ticket)


@pytest.mark.parametrize(
    "data", [b"", b"5", b"{", b'{"redeem":5}', b"[" * 5000, b'{"ticket":"x"}', b"\xff", b'{"disconnect":null}', b"{}"]
)
def test_records_of_others_are_skipped(desk: Desk, data: bytes) -> None:
    """A foreign record on the internal channel is skipped."""
    desk.node.publish((Draft(TICKETS, data),), lambda outcomes: None)
    desk.after(0)
    assert [ANN] == desk.redeem(desk.ticket())


def test_disconnections_and_revocations(desk: Desk) -> None:
    """A user is ended once; with revoke, tokens from before that second count no more, for as long as one may live."""
    receipts: list[Receipt | Refusal] = []
    desk.bulletin.end("ann", receipts.append, revoke=False)
    desk.bulletin.end("bob", receipts.append, revoke=True)
    desk.after(0)
    assert ["ann", "bob"] == desk.ended
    assert {"bob": float(int(desk.clock.wall()))} == desk.bulletin.revoked
    assert all(isinstance(receipt, Receipt) for receipt in receipts)
    again = Desk(desk.clock, desk.node, desk.turns)
    assert {"bob"} == set(again.bulletin.revoked)
    desk.after(900)
    late = Desk(desk.clock, desk.node, desk.turns)
    assert ([], {"bob"}) == (late.ended, set(late.bulletin.revoked))
    desk.after(101)
    assert {} == desk.bulletin.revoked


def test_more_are_revoked_than_can_be_kept(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one is refused, and nobody forgotten for it; where two nodes pass the bound at once, the log says so."""
    monkeypatch.setattr(bulletin, "REVOKED", 2)
    receipts: list[Receipt | Refusal] = []

    def revoke(subject: str) -> Receipt | Refusal:
        desk.bulletin.end(subject, receipts.append, revoke=True)
        desk.after(0)
        return receipts[-1]

    assert all(isinstance(revoke(subject), Receipt) for subject in ("ann", "bob", "ann"))
    refused = revoke("eve")
    assert isinstance(refused, Refusal)
    assert ("unavailable", bulletin.REVOKED_SECONDS) == (refused.code, refused.retry_after)
    assert {"ann", "bob"} == set(desk.bulletin.revoked)
    desk.bulletin.end("eve", receipts.append, revoke=False)
    desk.after(0)
    assert "eve" == desk.ended[-1]
    assert ([], 0) == (desk.warned, desk.bulletin.forgotten)
    theirs = b'{"at":%f,"disconnect":"eve","not_before":%f}' % (desk.clock.wall(), desk.clock.wall())
    desk.node.publish((Draft(REVOCATIONS, theirs),), lambda outcomes: None)
    desk.after(0)
    assert {"ann", "eve"} == set(desk.bulletin.revoked)  # bob was revoked first
    assert 1 == desk.bulletin.forgotten
    assert ["a revocation was forgotten for a newer one, as more than 2 users are revoked"] == desk.warned


def test_the_revocations_of_one_user_push_out_no_other(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many are taken as the log keeps, and more once the first of them count no more."""
    monkeypatch.setattr(bulletin, "REVOCATION_RECORDS", 2)
    receipts: list[Receipt | Refusal] = []
    for subject in ("bob", "ann", "ann"):
        desk.bulletin.end(subject, receipts.append, revoke=True)
        desk.after(0)
    assert [False, False, True] == [isinstance(receipt, Refusal) for receipt in receipts]
    desk.after(1001)
    desk.bulletin.end("ann", receipts.append, revoke=True)
    desk.after(0)
    assert isinstance(receipts[-1], Receipt)


def test_a_revocation_takes_the_tickets_that_stand_before_it(desk: Desk) -> None:
    """By their order in the log, whatever the clocks of the nodes said; one that is issued after it counts."""
    before = desk.ticket()
    desk.bulletin.end("ann", lambda receipt: None, revoke=True)
    desk.after(0)
    assert ["unauthorized"] == desk.redeem(before)
    assert ANN == desk.redeem(desk.ticket())[-1]


def test_a_subscription_that_ends_begins_again(desk: Desk) -> None:
    """As one does whose node was slow, or whose log is another one now."""
    desk.bulletin.gap(LogGap(TICKETS, Reason.EPOCH, Place("e", 1), None, Place("f", 0)))
    desk.bulletin.refuse(Refusal("slow", "It was slow."))
    desk.after(1)
    assert [ANN] == desk.redeem(desk.ticket())


def test_no_record_counts_twice(desk: Desk) -> None:
    """A subscription that was refused goes on where it was: what came meanwhile counts, nothing from before does."""
    desk.bulletin.end("bob", lambda receipt: None, revoke=False)
    desk.bulletin.end("ann", lambda receipt: None, revoke=True)
    desk.after(0)
    ticket = desk.ticket()
    desk.bulletin.refuse(Refusal("unavailable", "The broker is away."))
    assert 0 == desk.node.hub.subscriptions
    desk.bulletin.end("eve", lambda receipt: None, revoke=False)
    desk.bulletin.end("joe", lambda receipt: None, revoke=True)
    desk.turns.run_all()
    assert ["bob", "ann"] == desk.ended
    desk.after(1)
    assert ["bob", "ann", "eve", "joe"] == desk.ended
    assert [ANN] == desk.redeem(ticket)
    assert 2 == len(desk.bulletin._standing)
    assert [] == desk.warned


def test_the_clocks_of_nodes_may_differ(desk: Desk) -> None:
    """What comes while a node reads is news, whenever its writer says it was; what was there before has to be young."""
    for seconds in (-1000, 1000):
        other = Bulletin(desk.node, lambda: desk.clock.wall() + seconds, desk.clock.monotonic, bytes, print, print)  # noqa: B023
        other.end(f"at {seconds}", lambda receipt: None, revoke=False)
        desk.turns.run_all()
    assert ["at -1000", "at 1000"] == desk.ended
    late = Desk(desk.clock, desk.node, desk.turns)
    assert ["at 1000"] == late.ended


def test_too_many_at_a_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound a request is asked to come again; tickets that nobody has issued refuse none that is known."""
    monkeypatch.setattr(bulletin, "WAITING", 1)
    first, second = desk.ticket(), desk.ticket()
    desk.redeem("aa")
    assert "unavailable" == desk.redeem("bb")[-1]
    assert ANN == desk.redeem(first)[-1]
    third = desk.ticket()
    desk.bulletin.redeem(second, desk.results.append)
    desk.bulletin.redeem(third, desk.results.append)  # in the same turn, so that the second waits for its record
    assert "unavailable" == desk.results[-1].code
    desk.turns.run_all()
    assert ANN == desk.results[-1]


def test_tickets_are_bounded_by_bytes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound the oldest are forgotten: a few of many patterns, or many of few."""
    patterns = tuple(f"{number:064d}*" for number in range(64))
    large = Identity("", "ann", "token", patterns, patterns, 5.0, 2_000_000_000.0)
    desk.bulletin.issue(large, lambda ticket: None)
    desk.after(0)
    size = desk.bulletin._ticket_bytes
    assert 128 * 64 < size < 128 * 200
    monkeypatch.setattr(bulletin, "KNOWN_BYTES", 3 * size)
    for _ in range(5):
        desk.bulletin.issue(large, lambda ticket: None)
        desk.after(0)
    assert (3, 3 * size) == (len(desk.bulletin._tickets), desk.bulletin._ticket_bytes)
    tickets = [desk.ticket() for _ in range(5)]
    assert 2 + 5 == len(desk.bulletin._tickets)
    assert [ANN] == desk.redeem(tickets[0])
    desk.after(bulletin.TICKET_SECONDS + bulletin.LATE_SECONDS + 1)
    assert (0, 0) == (len(desk.bulletin._tickets), desk.bulletin._ticket_bytes)


def test_a_used_ticket_causes_no_record(desk: Desk) -> None:
    """A ticket that was used, or has expired, writes nothing to the log."""
    used, late = desk.ticket(), desk.ticket()
    desk.redeem(used)
    head = desk.node.log.head
    assert "unauthorized" == desk.redeem(used)[-1]
    desk.after(bulletin.TICKET_SECONDS)
    assert ["unauthorized"] * 2 == desk.redeem(late)[-2:]
    assert head == desk.node.log.head

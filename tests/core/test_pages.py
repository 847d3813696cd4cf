"""Pages of history: which subscriptions share one, where it is cut, and that each request ends."""

from __future__ import annotations

import pytest

from oncecast.brokers.base import Opening
from oncecast.core import pages as pages_module
from oncecast.core.pages import PAGE_BYTES, PAGE_MESSAGES, READ_SECONDS
from oncecast.core.subscription import State
from oncecast.errors import Refusal
from oncecast.message import Kind, Mark, Message, Page, Reason
from tests.core.conftest import HistoryBench, Words

REFUSAL = Refusal("unavailable", "The disk is broken.")


def empty(bench: HistoryBench) -> bool:
    """Whether nothing is asked for, held or waited for."""
    pages = bench.hub._replay._history
    assert pages is not None
    return not (pages._asked or pages._found or pages._later or pages._asking or pages._kept)


def test_a_page_is_asked_for_once_and_shared() -> None:
    """By those at one place with the same channels; each format is made once."""
    bench = HistoryBench("aaaa")
    clients = [bench.behind("a", 1) for _ in range(2)]
    bench.format = Words()
    clients.append(bench.behind("a", 1))
    elsewhere, _ = bench.behind("a", 2)
    bench.turns.run()
    assert [(("a",), 1), (("a",), 2)] == [(asked.channels, asked.seq) for asked in bench.asked]
    assert {(PAGE_MESSAGES, PAGE_BYTES)} == {(asked.limit, asked.max_bytes) for asked in bench.asked}
    bench.finish()
    assert [[2, 3, 4]] * 3 == [sink.seqs for sink, _ in clients]
    assert [3, 4] == elsewhere.seqs
    assert clients[0][0].blocks[0] is clients[1][0].blocks[0]
    assert (3 + 2, 2) == (bench.format.made, bench.hub.counters.pages)
    assert empty(bench)


def test_each_page_is_given_back_when_it_has_been_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """A served page gives its room back even if its subscriptions already wait for the next one."""
    monkeypatch.setattr(pages_module, "PAGE_MESSAGES", 1)
    bench = HistoryBench("aaaa")
    sinks = [bench.behind("a", 0)[0] for _ in range(2)]
    pages = bench.hub._replay._history
    assert pages is not None
    while bench.turns.run() or bench.asked:
        assert len(pages._found) <= 1
        if bench.asked:
            bench.answer()
    assert [[1, 2, 3, 4]] * 2 == [sink.seqs for sink in sinks]
    assert empty(bench)


def test_a_page_asks_with_the_floors_of_its_place() -> None:
    """A page asks the history with the floors of its place, and drops messages that are not above them."""
    bench = HistoryBench("abbabb")
    sink, _ = bench.behind("ab", 0, floors=(0, 5))
    other, _ = bench.behind("ab", 0)
    bench.turns.run()
    assert [(0, 5), ()] == [asked.floors for asked in bench.asked]
    bench.finish()
    assert ([1, 4, 6], [1, 2, 3, 4, 5, 6]) == (sink.seqs, other.seqs)


def test_a_page_is_not_needed_where_only_what_is_below_a_floor_is_gone() -> None:
    """The window holds all that is above the floors."""
    bench = HistoryBench("ab")
    bench.append("abab")
    bench.turns.run()
    sink, _ = bench.behind("ab", 2, floors=(2, 4))
    bench.append("b")  # the window drops 4
    bench.turns.run_all()
    assert ([], [3, 5, 6, 7]) == (bench.asked, sink.seqs)


def test_a_page_is_cut_at_the_head() -> None:
    """Messages above this node's head are cut off a page, and sent once when they are handed over."""
    bench = HistoryBench("aaaa")
    bench.log.head = bench.hub.flushed = 3
    sink, _ = bench.behind("a", 1)
    bench.finish()
    assert [2, 3] == sink.seqs
    bench.hub.append([bench.stored[3]], 0.0)
    bench.finish()
    assert [2, 3, 4] == sink.seqs


@pytest.mark.parametrize("mark, waits", [(4, False), (5, True)])
def test_a_page_is_read_again_only_if_something_trimmed_is_still_to_come(mark: int, waits: bool) -> None:
    """A mark at the head is of what this node has handed out; one above it may be of what it has not."""
    bench = HistoryBench("aaaa")
    sink, subscription = bench.behind("ab", 1)
    bench.turns.run()
    page = bench.page(bench.asked[0], a=mark)
    assert waits == bench.hub.is_ahead(page)
    bench.asked[0].done(Page(1, [], 4, {"a": Mark(mark), "b": Mark(1)}))
    bench.asked.clear()
    bench.turns.run_all()
    if waits:
        assert ([], [], State.CATCHING_UP) == (sink.missed, bench.asked, subscription.state)
        bench.append("b")
        bench.turns.run_all()
        bench.asked.pop().done(Page(1, [], 5, {"a": Mark(mark), "b": Mark(1)}))
        bench.turns.run_all()
    assert ([("a", Reason.EXPIRED, 2, mark)], State.LIVE) == (sink.missed, subscription.state)


def test_a_refused_page_lets_the_next_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each that asked is refused, and those that wait for room are served at the end of this very turn."""
    monkeypatch.setattr(pages_module, "PAGES_FOUND", 1)
    bench = HistoryBench("aaaa")
    refused = [bench.behind("a", 1) for _ in range(2)]
    waiting, _ = bench.behind("a", 2)
    bench.turns.run_all()
    assert [1] == [asked.seq for asked in bench.asked]
    bench.asked.pop(0).done(REFUSAL)
    assert [["unavailable"]] * 2 == [sink.refusals for sink, _ in refused]
    assert 1 == len(bench.turns)
    bench.turns.run_all()
    assert [2] == [asked.seq for asked in bench.asked]
    bench.finish()
    assert [3, 4] == waiting.seqs


def test_those_that_wait_for_room_come_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests for pages get room in their order, and a subscription that has left takes none."""
    monkeypatch.setattr(pages_module, "PAGES_FOUND", 1)
    bench = HistoryBench("aaaaaa")
    clients = [bench.behind("a", seq) for seq in range(5)]
    bench.turns.run_all()
    bench.hub.detach(clients[1][1])
    bench.hub.block([clients[2][1]])
    order = []
    while bench.asked:
        order.append(bench.asked[0].seq)
        bench.answer()
        bench.turns.run_all()
    assert [0, 3, 4] == order
    assert empty(bench)


def test_a_page_of_those_that_have_left_is_not_held() -> None:
    """Before it is answered or after, ended or full."""
    bench = HistoryBench("aaaa")
    for answered in (False, True):
        for leave in (bench.hub.detach, lambda subscription: bench.hub.block([subscription])):
            sink, subscription = bench.behind("a", 1)
            bench.turns.run()
            if answered:
                bench.answer()
            leave(subscription)
            if not answered:
                bench.answer()
            assert empty(bench)
            bench.turns.run_all()
            assert [] == sink.blocks


def test_a_page_is_held_until_all_have_been_served() -> None:
    """One that leaves does not take it from the others."""
    bench = HistoryBench("aaaa")
    _, leaves = bench.behind("a", 1)
    sink, _ = bench.behind("a", 1)
    bench.turns.run()
    bench.answer()
    bench.hub.detach(leaves)
    bench.turns.run_all()
    assert ([2, 3, 4], []) == (sink.seqs, bench.asked)


def test_a_request_that_is_not_answered_is_refused_in_time() -> None:
    """A request for a page is refused at its deadline, and an answer after that is ignored, whoever has asked since."""
    bench = HistoryBench("aaaa")
    sink, subscription = bench.behind("a", 1)
    bench.turns.run()
    late = bench.asked.pop()
    bench.hub.tick(50.0)
    bench.hub.tick(50.0 + READ_SECONDS - 1)
    assert [] == sink.refusals
    bench.hub.tick(50.0 + READ_SECONDS)
    assert ["unavailable"] == sink.refusals
    bench.hub.detach(subscription)
    assert empty(bench)
    other, _ = bench.behind("a", 1)
    bench.turns.run()
    late.done(bench.page(late))
    assert 0 == bench.hub.counters.pages
    bench.finish()
    assert [2, 3, 4] == other.seqs


def test_what_a_page_says_is_trimmed_leaves_the_window() -> None:
    """No message comes after a gap that has named it."""
    bench = HistoryBench("ab")
    bench.append("ab")
    bench.turns.run()
    sink, _ = bench.behind("ab", 0)
    bench.turns.run()
    bench.asked.pop().done(Page(0, [bench.stored[1]], 2, {"a": Mark(3), "b": Mark()}))
    assert [4] == [entry.seq for entry in bench.log.read_after(("a", "b"), 0, 9)]
    bench.turns.run_all()
    assert ([("a", Reason.EXPIRED, 1, 3)], [2]) == (sink.missed, sink.seqs)
    late, _ = bench.behind("b", 2)
    bench.turns.run()
    assert ([4], 2) == (late.seqs, bench.asked.pop().seq)


def test_a_page_that_is_held_takes_up_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it has been served, as much as one that is asked for."""
    monkeypatch.setattr(pages_module, "PAGES_FOUND", 1)
    bench = HistoryBench("aaaa")
    first, _ = bench.behind("a", 1)
    bench.turns.run_all()
    second, _ = bench.behind("a", 2)
    bench.answer()
    bench.turns.run()
    assert ([2, 3, 4], []) == (first.seqs, bench.asked)
    bench.finish()
    assert [3, 4] == second.seqs


def test_room_that_is_made_in_a_turn_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last page of a turn may leave nothing in the queue, and still a subscription that waits to ask."""
    monkeypatch.setattr(pages_module, "PAGES_FOUND", 1)
    bench = HistoryBench("aaaa")
    first, leaving = bench.behind("a", 1)
    waiting, _ = bench.behind("a", 2)
    bench.turns.run_all()
    first.on_write = lambda: bench.hub.detach(leaving)
    bench.answer()
    bench.turns.run_all()
    assert [2] == [asked.seq for asked in bench.asked]
    bench.finish()
    assert ([2, 3, 4], [3, 4]) == (first.seqs, waiting.seqs)


def test_an_answer_from_another_log_is_ignored() -> None:
    """A page of another log trims nothing, reaches no subscriber, and frees its place for a new request."""
    bench = HistoryBench("aaaa")
    sink, _ = bench.behind("a", 0)
    bench.turns.run()
    old = bench.asked.pop()
    recent = tuple(Message(n, "a", b"x", Kind.JSON, None, float(n)) for n in (1, 2))
    bench.hub.begin(Opening("f", 2, Mark(), recent), 0.0)
    assert empty(bench)
    old.done(bench.page(old, a=2))
    assert 0 == bench.hub.counters.pages
    bench.turns.run_all()
    assert ([1, 2], [("a", Reason.EPOCH, 1, -1)]) == (sink.seqs, sink.missed)

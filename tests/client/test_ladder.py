"""Which transport to use: what leads down, what does not, what leads up, and what is remembered."""

from __future__ import annotations

from oncecast import Moved, TransportMemory
from oncecast.client import ladder as module
from oncecast.client.ladder import CUTS, EARLY, Ladder

NAMES = ("a", "b", "c")


def make(moves: list[Moved], start: str | None = None) -> Ladder:
    """A ladder that notes its moves."""
    return Ladder(NAMES, proof=10.0, on_move=moves.append, start=start)


def test_what_does_not_work_here() -> None:
    """One step down for each that is unsuited; from the last there is none."""
    moves: list[Moved] = []
    ladder = make(moves)
    assert ladder.unsuited("a", "403")
    assert ladder.unsuited("a", "said by another connection")
    assert ("b", ("a",), False) == (ladder.current, ladder.better, ladder.is_last)
    assert ladder.unsuited("b", "silence")
    assert ladder.is_last
    assert not ladder.unsuited("c", "no")
    assert [("a", "b"), ("b", "c")] == [(move.before, move.after) for move in moves]
    assert ["a does not work here: 403", "b does not work here: silence"] == [move.reason for move in moves]


def test_what_is_cut_again_and_again() -> None:
    """Breaks before anything came, or soon after, lead down once they repeat; a long life resets the count."""
    moves: list[Moved] = []
    ladder = make(moves)
    for _ in range(CUTS - 1):
        ladder.broke("a", 1.0, "cut")
    ladder.broke("a", 11.0, "cut")
    for _ in range(EARLY - 1):
        ladder.broke("a", None, "cut")
    ladder.broke("a", 1.0, "cut")
    assert [] == moves
    for _ in range(CUTS - 1):
        ladder.broke("a", 1.0, "cut")
        ladder.broke("b", None, "another connection's")
    for _ in range(EARLY):
        ladder.broke("b", None, "cut")
    for _ in range(EARLY * 2):
        ladder.broke("c", None, "cut")
    assert [("a", "b"), ("b", "c")] == [(move.before, move.after) for move in moves]


def test_up() -> None:
    """A probe leads up, never down."""
    moves: list[Moved] = []
    ladder = make(moves, "c")
    ladder.works("b")
    ladder.works("c")
    ladder.works("a")
    assert ["b", "a"] == [move.after for move in moves]
    assert "a" == make([], "unknown").current


def test_memory() -> None:
    """The transport that worked is remembered for a time, and for a bounded number of servers."""
    now = 0.0
    memory = TransportMemory(lambda: now, seconds=5.0)
    assert memory.get("s") is None
    memory.put("s", "b")
    assert "b" == memory.get("s")
    for number in range(module.MEMORY_SERVERS - 1):
        memory.put(str(number), "c")
    assert "b" == memory.get("s")
    memory.put("one more", "c")
    assert (None, "c") == (memory.get("s"), memory.get("one more"))
    now = 5.0
    assert memory.get("one more") is None

"""The ends of credentials: each connection is due once, in its moment, and a crowd in turns."""

from __future__ import annotations

import pytest

from oncecast.policy.identity import Identity
from oncecast.server.expiries import AT_ONCE, Expiries, warn_at


def test_due_in_order_and_once() -> None:
    """A connection is returned within a quarter of a second after its time, and then is not known any more."""
    expiries: Expiries[str] = Expiries()
    for name, when in (("b", 20.0), ("a", 10.1), ("c", 20.0)):
        expiries.watch(name, when)
    assert [] == list(expiries.due(10.2))
    assert ["a"] == list(expiries.due(10.25))
    assert {"b", "c"} == set(expiries.due(1000.0))
    assert 0 == len(expiries)
    assert [] == list(expiries.due(2000.0))


def test_another_time_replaces_the_first() -> None:
    """A later or sooner time replaces the one before, and a removed entry is never due."""
    expiries: Expiries[str] = Expiries()
    expiries.watch("a", 10)
    expiries.watch("a", 30)
    expiries.watch("b", 30)
    expiries.watch("b", 10)
    expiries.watch("c", 10)
    expiries.forget("c")
    expiries.forget("never there")
    assert ["b"] == list(expiries.due(20))
    assert ["a"] == list(expiries.due(30))


def test_what_is_forgotten_leaves_nothing_behind() -> None:
    """A token may end in a week: connections that come and go would leave a slot for each quarter of a second."""
    expiries: Expiries[int] = Expiries()
    expiries.watch(-1, 5000)
    for number in range(10_000):
        expiries.watch(number, 5001 + number)
        expiries.watch(number, 5002 + number)
        expiries.forget(number)
    assert (1, 1) == (len(expiries), len(expiries._due_in))
    assert len(expiries._slots) <= 2 + 64
    assert [[-1], []] == [list(expiries.due(20_000)) for _ in range(2)]
    assert ([], {}) == (expiries._slots, expiries._due_in)


def test_a_crowd_is_due_in_turns() -> None:
    """The loop is not held up by many tokens that end in the same second; one that comes meanwhile has its turn."""
    expiries: Expiries[int] = Expiries()
    for number in range(2 * AT_ONCE + 1):
        expiries.watch(number, 10)
    assert [AT_ONCE, AT_ONCE, 1, 0] == [len(list(expiries.due(10))) for _ in range(4)]
    expiries.watch(1, 5)
    assert [1] == list(expiries.due(10))


@pytest.mark.parametrize("issued, expires, warned", [(0.0, 3600.0, 3570.0), (0.0, 40.0, 30.0), (None, 100.0, 75.0)])
def test_when_to_warn(issued: float | None, expires: float, warned: float) -> None:
    """Half a minute before the end, or in the last quarter of a short life."""
    assert warned == warn_at(Identity(issued=issued, expires=expires))

"""The users who were disconnected lately: which questions a disconnection counts for, and how many are kept."""

from __future__ import annotations

import pytest

from oncecast.http import ended
from oncecast.http.ended import LatelyEnded


def test_a_disconnection_counts_for_what_was_asked_before() -> None:
    """It counts for its user alone, and not for what is asked after it."""
    users = LatelyEnded()
    before = users.count
    users.note("ann")
    assert (True, False) == (users.since("ann", before), users.since("bob", before))
    after = users.count
    assert not users.since("ann", after)
    users.note("ann")
    assert (True, True) == (users.since("ann", before), users.since("ann", after))


def test_who_is_forgotten_may_have_been_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound the oldest are forgotten, and what was asked before them counts as asked about them."""
    monkeypatch.setattr(ended, "KNOWN", 2)
    users = LatelyEnded()
    first = users.count
    users.note("ann")
    second = users.count
    for subject in ("bob", "zoe", "bob"):
        users.note(subject)
    assert (True, False) == (users.since("ann", first), users.since("ann", second))
    assert (True, True, False) == tuple(users.since(name, second) for name in ("bob", "zoe", "eve"))
    users.note("eve")
    assert (True, False) == (users.since("zoe", second), users.since("zoe", users.count))

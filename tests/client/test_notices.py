"""Notices: which callback is called with what, and how it is removed."""

from __future__ import annotations

import asyncio

import pytest

from oncecast import Gap, LinkState, Moved, StateChanged, UsageError
from oncecast.client.notices import Notices

MOVED = Moved("a", "b", "why")
CHANGED = StateChanged(LinkState.IDLE, LinkState.CONNECTING)
GAP = Gap(channel="c", reason="slow", cursor="e-1")


def test_each_kind_has_its_callbacks() -> None:
    """A notice goes to those of its kind, in the order in which they were added."""
    notices = Notices()
    seen: list[object] = []
    notices.on("transport", seen.append)
    notices.on("state", lambda notice: seen.append("state"))
    notices.on("state", seen.append)
    assert [True, True, False] == [notices.wanted(kind) for kind in ("transport", "state", "gap")]
    for notice in (MOVED, CHANGED, GAP):
        notices.send(notice)
    assert [MOVED, "state", CHANGED] == seen


def test_a_callback_is_removed_once() -> None:
    """One that was added twice is called once less; removing it again changes nothing."""
    notices = Notices()
    seen: list[object] = []
    off = notices.on("gap", seen.append)
    notices.on("gap", seen.append)
    off()
    off()
    notices.send(GAP)
    assert ([GAP], True) == (seen, notices.wanted("gap"))


def test_a_callback_may_remove_itself() -> None:
    """The others are called all the same."""
    notices = Notices()
    seen: list[object] = []
    off = notices.on("gap", lambda gap: off())
    notices.on("gap", seen.append)
    notices.send(GAP)
    assert [GAP] == seen


def test_what_can_not_be_added() -> None:
    """A kind that does not exist, and what is no plain function."""
    notices = Notices()
    with pytest.raises(UsageError, match="no kind of notice: use transport, state, gap"):
        notices.on("weather", print)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="called and not awaited"):
        notices.on("gap", asyncio.sleep)
